// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/plugins/wasmtest"
)

// filterBench holds a module that speaks proxy-wasm.
func filterBench(t *testing.T, f wasmtest.Filter, o Options) *Bench {
	t.Helper()
	o.Name = "filter"
	b, err := NewBench(t.Context(), f.Wasm(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return b
}

// runCase runs a case of a filter.
func runCase(t *testing.T, b *Bench, text string) *Result {
	t.Helper()
	c, err := ParseCase("case", text)
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const judgedCase = `It asks whether a request may pass.
-- answer judge --
200
content-type: application/json

{"ok":true}
-- want --
request goes on
set header x-filter: yes
calls judge: GET /judge
-- want.request --
{"model":"m","messages":[]}
-- want.calls --
> judge GET /judge
host: judge
user-agent: weir

`

func TestCallsOfAFilterAreAnsweredByTheCase(t *testing.T) {
	t.Parallel()
	b := filterBench(t, wasmtest.Filter{Upstream: "judge", Header: "yes", Body: `{"model":"m","messages":[]}`}, Options{})
	if r := runCase(t, b, judgedCase); !r.Passed || r.Cost.Calls != 1 || r.Cost.Fuel == 0 || r.Cost.Memory == 0 {
		t.Errorf("let through: %+v", r)
	}
	for answer, why := range map[string]string{"500\n": "refused", noAnswer: "not there", "204\ncontent-type: x\n": "another status"} {
		text := "-- answer judge --\n" + answer + "\n-- want --\nrequest answered 403\nanswer header content-type: text/plain\ncalls judge: GET /judge\n-- want.response --\njudged\n"
		if r := runCase(t, b, text); !r.Passed {
			t.Errorf("%s: %q", why, r.Faults)
		}
	}
	r := runCase(t, b, "-- want --\nrequest goes on\n")
	if len(r.Faults) == 0 || !strings.Contains(r.Faults[0], "+ request answered 403") || !strings.Contains(strings.Join(r.Logs, "\n"), `proxy_http_call to "judge" is refused`) {
		t.Errorf("without an answer: %q, it logs %q", r.Faults, r.Logs)
	}
}

const tailed = `-- request --
{"model":"m","stream":true,"messages":[]}
-- response.sse --
data: {"choices":[{"index":0,"delta":{"content":"a"}}]}

data: [DONE]

-- want --
request goes on
response goes on
-- want.response --
data: {"choices":[{"index":0,"delta":{"content":"a"}}]}

data: [DONE]

: seen

`

func TestStreamsOfAFilterAreCut(t *testing.T) {
	t.Parallel()
	b := filterBench(t, wasmtest.Filter{Tail: ": seen\n\n"}, Options{})
	all := runCase(t, b, tailed)
	if !all.Passed || all.Plays < 60 {
		t.Errorf("cut everywhere: %d plays, %q", all.Plays, all.Faults)
	}
	for cuts, plays := range map[string]int{"events": 2, "none": 1} {
		if r := runCase(t, b, "-- settings --\ncuts: "+cuts+"\n"+tailed); !r.Passed || r.Plays != plays {
			t.Errorf("cuts %s: %d plays, %q", cuts, r.Plays, r.Faults)
		}
	}
}

func TestFaultsOfAFilterAreNamed(t *testing.T) {
	t.Parallel()
	r := runCase(t, filterBench(t, wasmtest.Filter{Traps: true}, Options{}), "-- want --\nrequest goes on\n")
	if len(r.Faults) != 1 || !strings.Contains(r.Faults[0], "plugin filter: proxy_on_request_headers: ") {
		t.Errorf("%+v", r)
	}
	b := filterBench(t, wasmtest.Filter{Picky: true}, Options{MaxFuel: 1})
	if r := runCase(t, b, "-- want --\nit does not take its configuration: an empty configuration\n"); !r.Passed {
		t.Errorf("a refused configuration: %q", r.Faults)
	}
	if r := runCase(t, b, "-- config --\n{}\n-- want --\nrequest goes on\n"); len(r.Faults) != 1 || !strings.Contains(r.Faults[0], "--max-fuel is 1") {
		t.Errorf("too much fuel: %q", r.Faults)
	}
}

func TestAnswersThatCannotBeReadAreRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"-- answer judge --\nyes\n":              `section "answer judge": it does not begin with a status`,
		"-- answer judge --\n200\nno header\n":   `section "answer judge": its headers`,
		"-- settings --\ncuts: some\n":           "cuts is all, events or none",
		"-- answers judge --\n200\n":             "there is no section",
		"-- want.calls --\n\n-- want.calls --\n": "is there twice",
	} {
		if _, err := ParseCase("case", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestMetricsOfAFilterAreThoseOfOneExchange(t *testing.T) {
	t.Parallel()
	b := filterBench(t, wasmtest.Filter{Metric: "hits", Tail: "!"}, Options{})
	if r := runCase(t, b, "-- response.sse --\ndata: [DONE]\n\n-- want --\nrequest goes on\nresponse goes on\nmetric hits=1\n"); !r.Passed || r.Plays < 2 {
		t.Errorf("%d plays, %q", r.Plays, r.Faults)
	}
}

func TestFiltersAreMeasured(t *testing.T) {
	t.Parallel()
	c, err := ParseCase("case", "-- answer judge --\n200\n-- response.json --\n{}\n")
	if err != nil {
		t.Fatal(err)
	}
	all, err := filterBench(t, wasmtest.Filter{Upstream: "judge", Tail: "x"}, Options{}).Measure(t.Context(), c, 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	var calls []string
	for _, m := range all {
		calls = append(calls, m.Call)
		if m.Calls == 0 || m.Fuel == 0 || m.Bytes == 0 || m.Failure != "" {
			t.Errorf("%+v", m)
		}
	}
	if diff := cmp.Diff(calls, []string{"request", "exchange"}); diff != "" {
		t.Error(diff)
	}
}
