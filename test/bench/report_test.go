// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/policy"
)

// measured is a run of 100 requests.
func measured(gateway string, round int, envoy, processor time.Duration) measurement {
	return measurement{
		Load: "json", Loop: closedLoop, Gateway: gateway, Round: round, Requests: 100, Rate: 1000,
		P50: envoy / 10, P99: envoy / 5, CPU: usage{Envoy: envoy, Processor: processor},
	}
}

func TestReportComparesWithinARound(t *testing.T) {
	t.Parallel()
	o, err := parseOptions([]string{"-loads", "json", "-users", "0", "-streams", "0"}, new(bytes.Buffer))
	if err != nil {
		t.Fatal(err)
	}
	ms := time.Millisecond
	all := &results{Runs: []measurement{
		measured(bare, 0, 5*ms, 0), measured(weir, 0, 15*ms, 10*ms), // 5 times
		measured(bare, 1, 10*ms, 0), measured(weir, 1, 30*ms, 10*ms), // 4 times, on a machine that is half as fast
		measured(weir, 2, 90*ms, 10*ms), // whose bare failed
	}}
	var out bytes.Buffer
	report{options: o, results: all, w: &out}.print()
	want := `| gateway | requests/s | Envoy µs | processor µs |      both µs |           × bare | Postgres µs | Envoy MB | processor MB |
|---------|-----------:|---------:|-------------:|-------------:|-----------------:|------------:|---------:|-------------:|
| bare    |       1000 |     75.0 |            – |  75.0 (50.0–100) |             1.00 |           – |        – |            – |
| weir    |       1000 |      300 |          100 | 400 (250–1000) | 4.50 (4.00–5.00) |           – |        – |            – |
`
	squeeze := func(s string) string { return strings.Join(strings.Fields(strings.ReplaceAll(s, "-", "")), " ") }
	if !strings.Contains(squeeze(out.String()), squeeze(want)) {
		t.Errorf("got:\n%s\nwant in it:\n%s", out.String(), want)
	}
}

func TestTableIsAligned(t *testing.T) {
	t.Parallel()
	var tb table
	tb.add("name", "µs")
	tb.add("a", "1.00")
	tb.add("longer", "–")
	var out bytes.Buffer
	tb.write(&out)
	want := "| name   |   µs |\n|--------|-----:|\n| a      | 1.00 |\n| longer |    – |\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestFiguresHaveThreeDigits(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{0: "0", 0.123: "0.12", -5.55: "-5.55", 12.34: "12.3", 123.4: "123", 12345: "12345"} {
		if got := figure(v); got != want {
			t.Errorf("%v: got %s, want %s", v, got, want)
		}
	}
	if got := figure(math.NaN()); got != "–" {
		t.Errorf("unknown: got %s", got)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	for _, args := range []string{
		"-loads nothing", "-loops endless", "-variants nobody", "-variants ,", "-rounds 0", "-duration 0s", "-rate -1", "-port 65530", "extra", "-unknown",
	} {
		if _, err := parseOptions(strings.Fields(args), new(bytes.Buffer)); err == nil {
			t.Errorf("%s: no error", args)
		}
	}
}

func TestQuickShortensOnlyWhatIsNotGiven(t *testing.T) {
	t.Parallel()
	o, err := parseOptions(strings.Fields("-quick -users 7 -rate 10 -clients 3 -loads sse,json -json f"), new(bytes.Buffer))
	if err != nil {
		t.Fatal(err)
	}
	if o.users != 7 || o.rounds != 1 || o.duration >= 5*time.Second {
		t.Errorf("got %+v", o)
	}
	if want := "go run ./test/bench -clients=3 -loads=sse,json -quick=true -rate=10 -users=7"; o.command != want {
		t.Errorf("got command %q, want %q", o.command, want)
	}
	chosen := o.chosen()
	if diff := cmp.Diff([]string{"sse", "json"}, names(chosen)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if chosen[0].rate != 10 || chosen[1].users != 3 {
		t.Errorf("got rate %v and %d clients", chosen[0].rate, chosen[1].users)
	}
}

func TestBareEnvoyIsConfiguredByJSON(t *testing.T) {
	t.Parallel()
	for socket, want := range map[string]int{"": 0, `/a "b"/c.sock`: 1} {
		b, err := bareEnvoy{Port: 1, Admin: 2, Provider: 3, Socket: socket}.bootstrap()
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(b) {
			t.Errorf("socket %q: not JSON:\n%s", socket, b)
		}
		if got := strings.Count(string(b), "ExternalProcessor"); got != want {
			t.Errorf("socket %q: %d processors, want %d", socket, got, want)
		}
	}
}

func TestReplayedLinesDifferOnlyInTheirExchange(t *testing.T) {
	t.Parallel()
	ticket := policy.Ticket{
		Exchange: uuid.Must(uuid.NewV7()), Tenant: 1, Key: 2, Operation: policy.OpChat, Model: "gpt-4o-mini",
		Choices: []policy.Choice{{Channel: 3, Upstream: "gpt-4o-mini"}},
	}
	line := `{"kind":"exchange","log_type":"DownstreamEnd","ticket":"` + ticket.String() + `","status":200}`
	got, err := otherExchange([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	var l struct{ Ticket string }
	if err := json.Unmarshal(got, &l); err != nil {
		t.Fatal(err)
	}
	other, err := policy.ParseTicket(l.Ticket)
	if err != nil {
		t.Fatal(err)
	}
	if other.Exchange == ticket.Exchange || strings.ReplaceAll(string(got), l.Ticket, ticket.String()) != line {
		t.Errorf("got %s", got)
	}
	for _, other := range []string{`{"kind":"attempt"}`, `{"kind":"exchange","log_type":"DownstreamPeriodic","ticket":"x"}`} {
		if got, err := otherExchange([]byte(other)); err != nil || got != nil {
			t.Errorf("%s: got %s, %v", other, got, err)
		}
	}
	for _, bad := range []string{`{`, `{"kind":"exchange","log_type":"DownstreamEnd","ticket":"x"}`} {
		if got, err := otherExchange([]byte(bad)); err == nil {
			t.Errorf("%s: got %s, want an error", bad, got)
		}
	}
}

func TestOnlyWholeAnswersAreServed(t *testing.T) {
	t.Parallel()
	whole := fake.Totals{Requests: 2, Completed: 2, Tokens: fake.Tokens{Input: 10, CachedInput: 1, Output: 5, Reasoning: 3}}
	got, err := served(whole)
	if want := (counts{2, 10, 1, 5, 3}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if sum, want := got.plus(got).minus(counts{Requests: 1}), (counts{3, 20, 2, 10, 6}); sum != want {
		t.Errorf("got %+v, want %+v", sum, want)
	}
	for _, bad := range []fake.Totals{{Requests: 2, Completed: 1, Errors: 1}, {Requests: 2, Completed: 2, Open: 1}} {
		if _, err := served(bad); err == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
}

func TestCPUModel(t *testing.T) {
	t.Parallel()
	if got := cpuModel("processor\t: 0\nmodel name\t: Some CPU @ 2.10GHz\nflags\t: fpu\n"); got != "Some CPU @ 2.10GHz" {
		t.Errorf("got %q", got)
	}
	if got := cpuModel("processor\t: 0\n"); got == "" {
		t.Error("a kernel that does not say leaves it empty")
	}
}

func TestReportTakesItsPlaceInThePage(t *testing.T) {
	t.Parallel()
	page := "# A\n" + docsBegin + "\nold\n" + docsEnd + "\n# B\n"
	got, err := replaceResults(page, "new\n")
	if want := "# A\n" + docsBegin + "\n\nnew\n\n" + docsEnd + "\n# B\n"; err != nil || got != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	for _, bad := range []string{"", docsBegin, docsEnd + docsBegin} {
		if _, err := replaceResults(bad, ""); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}
