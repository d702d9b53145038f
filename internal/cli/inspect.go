// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/usage"
	"github.com/weir-proxy/weir/usage/journal"
)

func journalCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "journal COMMAND",
		Short: "Look into the journal of a processor",
		Long: `Look into the journal of a processor: <state_dir>/journal, where each admitted request is noted until its row is in Postgres.
These commands read files, and need no running Weir.`,
	}
	c.AddCommand(journalInspect())
	return c
}

func logCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "log COMMAND",
		Short: "Look into an access log that usage is read from",
		Long: `Look into an access log that usage is read from: exchanges.jsonl and its older siblings in the folder envoy.log_dir.
These commands read files, and need no running Weir.`,
	}
	c.AddCommand(logInspect())
	return c
}

// exchangeFacts are what a ticket says.
type exchangeFacts struct {
	Exchange  uuid.UUID          `json:"exchange_id"`
	Time      time.Time          `json:"ts"`
	Tenant    policy.TenantID    `json:"tenant_id"`
	Key       policy.KeyID       `json:"key_id"`
	Model     string             `json:"model"`
	Operation policy.Operation   `json:"operation"`
	Stream    bool               `json:"stream"`
	Channels  []policy.ChannelID `json:"channel_ids"` // in the order of the attempts
}

func factsOf(t *policy.Ticket) *exchangeFacts {
	f := &exchangeFacts{
		Exchange: t.Exchange, Time: t.Time(), Tenant: t.Tenant, Key: t.Key, Model: t.Model, Operation: t.Operation, Stream: t.Stream,
		Channels: []policy.ChannelID{},
	}
	for _, c := range t.Choices {
		f.Channels = append(f.Channels, c.Channel)
	}
	return f
}

// openIntent is an intent as it is printed.
type openIntent struct {
	Exchange uuid.UUID      `json:"exchange_id"`
	Bytes    int64          `json:"request_bytes"`
	Ticket   *exchangeFacts `json:"ticket"` // null when it cannot be read
}

type journalSegment struct {
	File    string    `json:"file"`
	Number  uint64    `json:"number"`
	Created time.Time `json:"created"`
	Bytes   int64     `json:"bytes"`
	Intents int       `json:"intents"`
	Open    int       `json:"open"`
	Damaged bool      `json:"damaged"`
}

type journalDamage struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	Bytes  int64  `json:"bytes"` // -1: not known
	Reason string `json:"reason"`
}

// journalReport is what weir journal inspect --json prints.
type journalReport struct {
	Segments []journalSegment `json:"segments"`
	Open     []openIntent     `json:"open"`
	Torn     int64            `json:"torn_bytes"`
	Damage   []journalDamage  `json:"damage"`
}

func journalInspect() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect DIR|FILE",
		Short: "List the open exchanges of a journal, and what is damaged",
		Long: `List the exchanges that were admitted and are not known to be in Postgres, from a journal's folder or from one of its segments, and what
is damaged in it. It changes nothing, and may be run beside the processor. The exit status is 1 when something is damaged.`,
		Example: `  weir journal inspect /var/lib/weir/journal
  weir journal inspect --json /var/lib/weir/journal/quarantine/000000000007-00000000000005ee.seg`,
		Args: arguments("DIR|FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			found, err := journal.Inspect(args[0])
			if err != nil {
				return err
			}
			report := reportOf(&found)
			if asJSON(c) {
				err = printJSON(c, report)
			} else {
				err = printJournal(c, report)
			}
			if err == nil && len(report.Damage) > 0 {
				return errSilent
			}
			return err
		},
	}
}

func reportOf(r *journal.Report) journalReport {
	out := journalReport{Segments: []journalSegment{}, Open: []openIntent{}, Torn: r.Torn, Damage: []journalDamage{}}
	for _, s := range r.Segments {
		out.Segments = append(out.Segments, journalSegment{s.File, s.Number, s.Created, s.Bytes, s.Intents, s.Open, s.Damaged})
	}
	for _, in := range r.Open {
		one := openIntent{Exchange: in.Exchange, Bytes: in.Bytes}
		if t, err := policy.ParseTicket(in.Ticket); err == nil {
			one.Ticket = factsOf(t)
		}
		out.Open = append(out.Open, one)
	}
	for _, d := range r.Damage {
		out.Damage = append(out.Damage, journalDamage{d.File, d.Offset, d.Bytes, d.Reason})
	}
	return out
}

func printJournal(c *cobra.Command, r journalReport) error {
	if len(r.Open) > 0 {
		t := table{header: []string{"EXCHANGE", "ADMITTED", "TENANT", "KEY", "MODEL", "OPERATION", "STREAM", "BYTES"}}
		for _, in := range r.Open {
			if in.Ticket == nil {
				t.add(in.Exchange.String(), "unreadable ticket", "", "", "", "", "", count(in.Bytes))
				continue
			}
			t.add(append(ticketCells(in.Ticket), count(in.Bytes))...)
		}
		if err := t.print(c); err != nil {
			return err
		}
	}
	size := int64(0)
	for _, s := range r.Segments {
		size += s.Bytes
	}
	remark(c, "%d open in %d segments of %d bytes.", len(r.Open), len(r.Segments), size)
	if r.Torn > 0 {
		remark(c, "%d bytes at the end are of an unfinished write; that is no damage.", r.Torn)
	}
	for _, d := range r.Damage {
		where := "bytes"
		if d.Bytes >= 0 {
			where = fmt.Sprintf("%d bytes at %d", d.Bytes, d.Offset)
		}
		remark(c, "damaged: %s: %s: %s", d.File, where, d.Reason)
	}
	return nil
}

func ticketCells(t *exchangeFacts) []string {
	return []string{
		t.Exchange.String(), localTime(t.Time), count(int64(t.Tenant)), count(int64(t.Key)), t.Model, string(t.Operation), yesNo(t.Stream),
	}
}

// logPiece is a piece of an access log as it is printed.
type logPiece struct {
	From    int64          `json:"from"` // offsets in the file
	To      int64          `json:"to"`
	Kind    string         `json:"kind"` // exchange, periodic, attempt, unadmitted; torn for what is no line
	Ticket  *exchangeFacts `json:"ticket,omitempty"`
	Channel int64          `json:"channel_id,omitempty"`
	HTTP    int            `json:"http_status,omitempty"`
	Attempt int            `json:"attempts,omitempty"` // of an attempt: which one it was
	Flags   string         `json:"flags,omitempty"`
	Details string         `json:"details,omitempty"`
	Outcome *logOutcome    `json:"outcome,omitempty"` // of an exchange that has ended
	Error   string         `json:"error,omitempty"`
}

// logOutcome is the row that a line makes.
type logOutcome struct {
	Status     usage.Status `json:"status"`
	Estimated  bool         `json:"estimated"`
	Input      int64        `json:"input_tokens"`
	Cached     int64        `json:"cached_input_tokens"`
	Output     int64        `json:"output_tokens"`
	Reasoning  int64        `json:"reasoning_tokens"`
	DurationMS int64        `json:"duration_ms"`
}

func logInspect() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect FILE",
		Short: "Print the lines of an access log, decoded",
		Long: `Print what the lines of an access log tell: the ticket of the exchange, how it ended, and the usage that is posted for it. What is no line,
as when an Envoy was killed while it wrote, is named with its offset. Estimates may differ from those that were posted.`,
		Example: `  weir log inspect /var/lib/weir/log/exchanges.jsonl`,
		Args:    arguments("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			pieces, torn, bytes := []logPiece{}, 0, int64(0)
			err := usage.InspectLog(args[0], func(p usage.Piece) error {
				one := pieceOf(&p)
				if one.Kind == "torn" {
					torn, bytes = torn+1, bytes+p.To-p.From
				}
				pieces = append(pieces, one)
				return nil
			})
			if err != nil {
				return err
			}
			err = printList(c, pieces, "The log is empty.", []string{
				"OFFSET", "KIND", "EXCHANGE", "ADMITTED", "TENANT", "KEY", "MODEL", "OPERATION", "STREAM", "CHANNEL", "HTTP", "TRIES",
				"STATUS", "INPUT", "OUTPUT", "REMARK",
			}, pieceCells)
			if err == nil && torn > 0 {
				remark(c, "%d of %d pieces, %d bytes, are no lines.", torn, len(pieces), bytes)
			}
			return err
		},
	}
}

func pieceOf(p *usage.Piece) logPiece {
	out := logPiece{From: p.From, To: p.To, Kind: "torn"}
	if p.Err != nil {
		out.Error = p.Err.Error()
	}
	if p.Line == nil {
		return out
	}
	l := p.Line
	out.Channel, out.HTTP, out.Attempt, out.Flags, out.Details = int64(usage.ChannelOf(l.Cluster)), l.Status, l.Attempts, l.Flags, l.Details
	switch {
	case l.Kind == usage.KindAttempt:
		out.Kind = "attempt"
	case l.Ticket == "":
		out.Kind = "unadmitted"
	case l.Final():
		out.Kind = "exchange"
	default:
		out.Kind = "periodic"
	}
	if p.Ticket != nil {
		out.Ticket = factsOf(p.Ticket)
	}
	if r := p.Record; r != nil {
		out.Outcome = &logOutcome{r.Status, r.Estimated, r.Input, r.CachedInput, r.Output, r.Reasoning, r.Duration.Milliseconds()}
	}
	return out
}

func pieceCells(p logPiece) []string {
	cells := []string{count(p.From), p.Kind}
	if p.Ticket != nil {
		cells = append(cells, ticketCells(p.Ticket)...)
	} else {
		cells = append(cells, make([]string, 7)...)
	}
	cells = append(cells, nonzero(p.Channel), nonzero(int64(p.HTTP)), nonzero(int64(p.Attempt)))
	if o := p.Outcome; o != nil {
		estimated := ""
		if o.Estimated {
			estimated = "~"
		}
		cells = append(cells, string(o.Status), estimated+count(o.Input), estimated+count(o.Output))
	} else {
		cells = append(cells, "", "", "")
	}
	if p.Kind == "torn" {
		return append(cells, fmt.Sprintf("%d bytes: %s", p.To-p.From, p.Error))
	}
	return append(cells, p.Error)
}

// nonzero leaves a cell empty when there is nothing to tell.
func nonzero(n int64) string {
	if n == 0 {
		return ""
	}
	return count(n)
}
