// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/policy/budget"
)

func usageCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "usage COMMAND",
		Short: "What was used, by whom, and what it cost",
		Long: `Each admitted request is one row of usage. Cached and reasoning tokens are included in input and output. The cost is empty where the
model has no price.`,
	}
	c.AddCommand(usageList(), usageSum())
	return c
}

// noUsage is said in place of an empty list. People look right after their first request, whose row is on its way.
const noUsage = "There is no usage here yet. A row comes within a second of the end of its exchange: send a request through the gateway, or ask with fewer filters."

// usageFlags select rows.
type usageFlags struct {
	query        admin.UsageQuery
	since, until string
}

func (f *usageFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.query.Tenant, "tenant", "", "only of this `TENANT`")
	c.Flags().StringVar(&f.query.Key, "key", "", "only of this `KEY`")
	c.Flags().StringVar(&f.query.Channel, "channel", "", "only by this `CHANNEL`")
	c.Flags().StringVar(&f.query.Model, "model", "", "only of this `MODEL`, as clients asked for it")
	c.Flags().StringVar(&f.query.Status, "status", "", "only with this `STATUS`: ok, client_closed, upstream_error, timeout, unresolved")
	c.Flags().StringVar(&f.since, "since", "", "not before this `TIME`: 2026-01-31, 2026-01-31T15:04:05Z, or an age such as 90m, 24h, 7d")
	c.Flags().StringVar(&f.until, "until", "", "before this `TIME`, in the forms of --since")
}

func (f *usageFlags) parse() (admin.UsageQuery, error) {
	now, err := time.Now(), error(nil)
	if f.query.Zone != "" {
		zone, err := budget.ParseZone(f.query.Zone)
		if err != nil {
			return f.query, wrongUsage("--time-zone: %w", err)
		}
		now = now.In(zone)
	}
	if f.query.Since, err = parseMoment("since", f.since, now); err != nil {
		return f.query, err
	}
	f.query.Until, err = parseMoment("until", f.until, now)
	return f.query, err
}

// parseMoment takes a time, a day in the zone of now, or an age.
func parseMoment(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, s, now.Location()); err == nil {
		return t, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.AddDate(0, 0, -int(n)), nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, wrongUsage("--%s %q is neither a time as in 2026-01-31T15:04:05Z, nor a day, nor an age such as 24h or 7d", flag, s)
}

func usageList() *cobra.Command {
	var f usageFlags
	var last int
	var spreadsheet bool
	c := &cobra.Command{
		Use:   "list [--last N] [--FILTER VALUE]...",
		Short: "List requests, newest first",
		Long:  "List requests, newest first. A request is there within a second after it has ended.",
		Example: `  weir usage list --last 1
  weir usage list --key laptop --since 24h --status upstream_error
  weir usage list --exchange 01890a5d-ac96-774b-bcce-b302099a8057
  weir usage list --tenant acme --since 2026-01-01 --until 2026-02-01 --last 1000000 --csv > acme.csv`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			q, err := f.parse()
			if err != nil {
				return err
			}
			if last < 1 {
				return wrongUsage("--last must be at least 1, not %d", last)
			}
			client, err := connect(c)
			if err != nil {
				return err
			}
			rows, err := client.Usage(c.Context(), q, last)
			if err != nil {
				return err
			}
			if spreadsheet {
				return printCSV(c, rows, usageCSVHeader(), usageCSV)
			}
			return printList(c, rows, noUsage,
				[]string{"TIME", "TENANT", "KEY", "MODEL", "CHANNEL", "STATUS", "HTTP", "TRIES", "INPUT", "OUTPUT", "COST", "FIRST BYTE", "DURATION"},
				usageCells)
		},
	}
	c.Flags().IntVar(&last, "last", 20, "at most `N`, the newest")
	csvFlag(c, &spreadsheet)
	f.register(c)
	c.Flags().StringVar(&f.query.Exchange, "exchange", "", "only this `ID`: the x-weir-exchange-id of an answer")
	return c
}

func usageCells(u admin.UsageRow) []string {
	firstByte := ""
	if u.FirstByteMS != nil {
		firstByte = count(*u.FirstByteMS) + " ms"
	}
	estimated := ""
	if u.Estimated {
		estimated = "~" // The tokens are not the provider's own count.
	}
	return []string{
		localTime(u.TS), nameOr(u.Tenant, u.TenantID), nameOr(u.Key, u.KeyID), u.Model, channelOf(u), u.Status, count(int64(u.HTTPStatus)),
		count(int64(u.Attempts)), estimated + count(u.InputTokens), estimated + count(u.OutputTokens), usd(u.CostNanoUSD), firstByte,
		count(u.DurationMS) + " ms",
	}
}

// channelOf is empty when no channel took it.
func channelOf(u admin.UsageRow) string {
	if u.ChannelID == nil {
		return u.Channel
	}
	return nameOr(u.Channel, *u.ChannelID)
}

// nameOr is the id of what has been deleted.
func nameOr(name string, id int64) string {
	if name == "" {
		return count(id)
	}
	return name
}

func usageSum() *cobra.Command {
	var f usageFlags
	var by string
	var spreadsheet bool
	c := &cobra.Command{
		Use:   "sum [--by key,model,channel,tenant,hour,day,month] [--FILTER VALUE]...",
		Short: "Add usage up",
		Long: `Add usage up, in groups or to one total. Hours are in UTC; days and months are those of --time-zone, and so are days after --since and
--until. A bill needs the zone that the budgets of its tenant have.`,
		Example: `  weir usage sum --by tenant,day --since 7d
  weir usage sum --by model --tenant acme
  weir usage sum --by tenant,model --since 2026-01-01 --until 2026-02-01 --time-zone Europe/Berlin --csv > january.csv`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			q, err := f.parse()
			if err != nil {
				return err
			}
			client, err := connect(c)
			if err != nil {
				return err
			}
			dimensions := splitNames(by)
			sums, err := client.SumUsage(c.Context(), q, dimensions)
			if err != nil {
				return err
			}
			if spreadsheet {
				return printCSV(c, sums, sumCSVHeader(dimensions), func(s admin.UsageSum) []string { return sumCSV(s, dimensions) })
			}
			header := []string{}
			for _, d := range dimensions {
				header = append(header, strings.ToUpper(d))
			}
			header = append(header, "REQUESTS", "ESTIMATED", "INPUT", "CACHED", "OUTPUT", "REASONING", "COST", "UNPRICED")
			return printList(c, sums, noUsage, header,
				func(s admin.UsageSum) []string {
					cells := []string{}
					for _, d := range dimensions {
						cells = append(cells, s.Group[d])
					}
					return append(cells, count(s.Requests), count(s.Estimated), count(s.InputTokens), count(s.CachedInputTokens),
						count(s.OutputTokens), count(s.ReasoningTokens), usd(s.CostNanoUSD), count(s.Unpriced))
				})
		},
	}
	c.Flags().StringVar(&by, "by", "", "group by these `DIMENSIONS`, with commas between (default: one total)")
	c.Flags().StringVar(&f.query.Zone, "time-zone", "", "the `ZONE` of days and months, as in Europe/Berlin (default: UTC, and that of this machine for --since and --until)")
	csvFlag(c, &spreadsheet)
	f.register(c)
	c.Flags().StringVar(&f.query.Exchange, "exchange", "", "only this `ID`: the x-weir-exchange-id of an answer")
	return c
}
