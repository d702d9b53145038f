// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/base64"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"
)

func testTickets() map[string]*Ticket {
	id := uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057")
	most := &Ticket{
		Exchange: id, Tenant: math.MaxInt64, Key: math.MaxInt64, Operation: OpResponses, Stream: true,
		Model: strings.Repeat("m", maxTicketString),
	}
	for i := range maxChoices {
		most.Choices = append(most.Choices, Choice{Channel: ChannelID(i + 1), Upstream: strings.Repeat("u", maxTicketString), Partial: BillNone})
	}
	return map[string]*Ticket{
		"chat":   {Exchange: id, Tenant: 1, Key: 2, Operation: OpChat, Model: "gpt-4o", Choices: []Choice{{Channel: 3, Upstream: "gpt-4o"}}},
		"stream": {Exchange: id, Tenant: 1, Key: 2, Operation: OpCompletions, Stream: true, Model: "漢", Choices: []Choice{{Channel: 3, Upstream: "a"}, {Channel: 4, Upstream: "漢"}, {Channel: 5, Upstream: "b/c"}}},
		"billing": {Exchange: id, Tenant: 1, Key: 2, Operation: OpChat, Model: "m", Choices: []Choice{
			{Channel: 3, Upstream: "m", Partial: BillInput}, {Channel: 4, Upstream: "m"}, {Channel: 5, Upstream: "m", Partial: BillNone},
		}},
		"tags": {
			Exchange: id, Tenant: 1, Key: 2, Operation: OpChat, Model: "m", Choices: []Choice{{Channel: 3, Upstream: "m"}},
			Tags: []Tag{{"team", "röd"}, {"empty", ""}, {strings.Repeat("n", MaxTagName), strings.Repeat("v", MaxTagValue)}},
		},
		"priced": {
			Exchange: id, Tenant: 1, Key: 2, Operation: OpChat, Model: "m", Choices: []Choice{{Channel: 3, Upstream: "m"}}, Price: 1_795_386_000_123,
		},
		"priced and tagged": {
			Exchange: id, Tenant: 1, Key: 2, Operation: OpResponses, Model: "m", Price: 1, Service: Priority, Tags: []Tag{{"a", "b"}},
		},
		"charges": {
			Exchange: id, Tenant: 1, Key: 2, Operation: OpChat, Model: "m", Choices: []Choice{{Channel: 3, Upstream: "m"}},
			Charges: Charges{Holder: id, Reserved: MaxReserved, Accounts: []Account{{Budget: 1, Period: 1764460800}, {Budget: math.MaxInt64}}},
		},
		"tags and charges": {
			Exchange: id, Tenant: 1, Key: 2, Operation: OpChat, Model: "m", Choices: []Choice{{Channel: 3, Upstream: "m"}}, Tags: []Tag{{"a", "b"}},
			Charges: Charges{Holder: id, Reserved: 0, Accounts: []Account{{Budget: 3, Period: -3600}}},
		},
		"no choices": {Exchange: id, Tenant: 1, Key: 2, Operation: OpEmbeddings, Model: "m"},
		"most":       most,
	}
}

func TestTicketReadsAsItWasWritten(t *testing.T) {
	t.Parallel()
	for name, want := range testTickets() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseTicket(want.String())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got, want); diff != "" {
				t.Errorf("ticket differs (-got +want):\n%s", diff)
			}
		})
	}
}

// The format outlives a deployment: tickets of the last version are still in the log when the next one starts.
func TestTicketFormatIsStable(t *testing.T) {
	t.Parallel()
	const want = "AQGJCl2slndLvM6zAgmagFcBAgIBA-a8ogMDAWEEAAUDYi9j"
	if got := testTickets()["stream"].String(); got != want {
		t.Errorf("ticket = %s, want %s", got, want)
	}
	const priced = "AgGJCl2slndLvM6zAgmagFcBAgEAAW0BAwD7heGqoDQA"
	if got := testTickets()["priced"].String(); got != priced {
		t.Errorf("ticket with a price = %s, want %s", got, priced)
	}
}

func TestTicketKnowsTimeAndUpstreamNames(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil)
	ticket := testTickets()["stream"]
	ticket.Exchange = e.newID(noon.Add(123456 * time.Microsecond))
	if got, want := ticket.Time(), noon.Add(123*time.Millisecond); !got.Equal(want) {
		t.Errorf("time = %v, want %v", got, want)
	}
	for id, want := range map[ChannelID]string{3: "a", 4: "漢", 5: "b/c", 6: ""} {
		if got := ticket.Upstream(id); got != want {
			t.Errorf("upstream of %d = %q, want %q", id, got, want)
		}
	}
}

// TestTicketCarriesWhatIsBilledWithoutACount: what was agreed at admission counts, and the usual takes no room.
func TestTicketCarriesWhatIsBilledWithoutACount(t *testing.T) {
	t.Parallel()
	ticket := testTickets()["billing"]
	for id, want := range map[ChannelID]Partial{3: BillInput, 4: BillEstimate, 5: BillNone, 6: BillEstimate} {
		if got := ticket.Partial(id); got != want {
			t.Errorf("of channel %d is billed %q, want %q", id, got, want)
		}
	}
	plain := *ticket
	plain.Choices = []Choice{{Channel: 3, Upstream: "m"}, {Channel: 4, Upstream: "m"}, {Channel: 5, Upstream: "m"}}
	if got, want := len(ticket.String()), len(plain.String()); got != want {
		t.Errorf("%d characters, and %d without policies", got, want)
	}
	// Codes that are not known, of the first and the second channel.
	raw, err := base64.RawURLEncoding.DecodeString(plain.String())
	if err != nil {
		t.Fatal(err)
	}
	flags := 1 + len(plain.Exchange) + 3
	for _, bad := range []byte{0b11 << 1, 0b11 << 3} {
		raw[flags] = bad
		if got, err := ParseTicket(base64.RawURLEncoding.EncodeToString(raw)); !errors.Is(err, ErrTicket) {
			t.Errorf("flags %b: %+v, %v; want ErrTicket", bad, got, err)
		}
	}
	none := testTickets()["no choices"].String() // a policy of a channel that there is not
	if raw, err = base64.RawURLEncoding.DecodeString(none); err != nil {
		t.Fatal(err)
	}
	raw[flags] = 0b01 << 1
	if got, err := ParseTicket(base64.RawURLEncoding.EncodeToString(raw)); !errors.Is(err, ErrTicket) {
		t.Errorf("%+v, %v; want ErrTicket", got, err)
	}
}

func TestParseTicketRefusesAPriceThatIsNone(t *testing.T) {
	t.Parallel()
	ticket := testTickets()["priced"]
	ticket.Price, ticket.Service = 5, Flex
	raw, err := base64.RawURLEncoding.DecodeString(ticket.String())
	if err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string][]byte{"no price": {0, 0}, "a service that is not known": {5, byte(services)}, "no service": {5}, "nothing": {}} {
		bad := slices.Concat(raw[:len(raw)-2], end)
		if got, err := ParseTicket(base64.RawURLEncoding.EncodeToString(bad)); !errors.Is(err, ErrTicket) {
			t.Errorf("%s: %+v, %v; want ErrTicket", name, got, err)
		}
	}
}

func TestParseTicketRefusesEveryPrefixAndSuffix(t *testing.T) {
	t.Parallel()
	s := testTickets()["stream"].String()
	for n := range len(s) {
		if _, err := ParseTicket(s[:n]); !errors.Is(err, ErrTicket) {
			t.Errorf("prefix of %d: %v, want ErrTicket", n, err)
		}
	}
	for _, bad := range []string{s + "A", s + "AAAA", "=" + s, s + "=", strings.Replace(s, "AQ", "Ag", 1), " " + s} {
		if _, err := ParseTicket(bad); !errors.Is(err, ErrTicket) {
			t.Errorf("%s: %v, want ErrTicket", bad, err)
		}
	}
}

func TestTagsBeyondTheLimitsAreLeftOut(t *testing.T) {
	t.Parallel()
	ticket := testTickets()["chat"]
	ticket.Tags = []Tag{{"", "no name"}, {strings.Repeat("n", MaxTagName+1), "v"}, {"n", strings.Repeat("v", MaxTagValue+1)}}
	for range MaxTags + 3 {
		ticket.Tags = append(ticket.Tags, Tag{"good", "one"})
	}
	got, err := ParseTicket(ticket.String())
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Tags) != MaxTags || got.Tags[0] != (Tag{"good", "one"}) {
		t.Errorf("%d tags, the first %v", len(got.Tags), got.Tags[0])
	}
}

// TestTicketsReadOneByOneAreAsTheyWere: what a reader returns is what ParseTicket does, and what may be kept of a ticket stays as it is.
func TestTicketsReadOneByOneAreAsTheyWere(t *testing.T) {
	var r TicketReader
	var kept, want []Ticket
	for range 3 {
		for name, ticket := range testTickets() {
			got, err := r.Read(ticket.String())
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := ParseTicket(ticket.String())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(*got, *parsed, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s (-reader +ParseTicket):\n%s", name, diff)
			}
			kept, want = append(kept, *got), append(want, *parsed)
			if _, err := r.Read(ticket.String() + "!"); !errors.Is(err, ErrTicket) {
				t.Errorf("%s with more behind it: %v", name, err)
			}
		}
	}
	for i := range want {
		kept[i].Choices, want[i].Choices = nil, nil
	}
	if diff := cmp.Diff(kept, want); diff != "" {
		t.Errorf("kept (-got +want):\n%s", diff)
	}
}

// TestReaderKeepsFewNames: clients invent names of models.
func TestReaderKeepsFewNames(t *testing.T) {
	var r TicketReader
	for i := range 3 * maxNames {
		want := "model-" + strconv.Itoa(i)
		got, err := r.Read((&Ticket{Model: want, Operation: OpChat}).String())
		if err != nil || got.Model != want {
			t.Fatalf("%q, %v", got.Model, err)
		}
	}
	if len(r.names) > maxNames {
		t.Errorf("%d names are kept", len(r.names))
	}
	s := (&Ticket{Model: "gpt-4o", Operation: OpChat, Choices: []Choice{{Channel: 1, Upstream: "gpt-4o-2026"}}}).String()
	if n := testing.AllocsPerRun(100, func() { _, _ = r.Read(s) }); n > 0 {
		t.Errorf("a ticket takes %v allocations", n)
	}
}

func FuzzParseTicket(f *testing.F) {
	for _, t := range testTickets() {
		f.Add(t.String())
	}
	f.Add("")
	f.Add("AQ")
	f.Fuzz(func(t *testing.T, s string) {
		ticket, err := ParseTicket(s)
		if err != nil {
			if !errors.Is(err, ErrTicket) || ticket != nil {
				t.Fatalf("ParseTicket = %v, %v, want nil and ErrTicket", ticket, err)
			}
			return
		}
		again, err := ParseTicket(ticket.String())
		if err != nil {
			t.Fatalf("%s: parses, but not when written again: %v", s, err)
		}
		if diff := cmp.Diff(again, ticket); diff != "" {
			t.Fatalf("%s: differs when written again:\n%s", s, diff)
		}
	})
}
