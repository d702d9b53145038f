// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-proxy/weir/plugins/abi"
	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/plugins/proxywasm"
	"github.com/weir-proxy/weir/policy"
)

// toy is a plugin in Go. Its verdicts are held to the same rules as those of real ones.
type toy struct {
	request func(*abi.Exchange) abi.Verdict
	event   func(*abi.Event) abi.Verdict
	fails   bool
}

func (p *toy) About() host.About {
	return host.About{Request: p.request != nil || p.fails, Event: p.event != nil}
}

func (p *toy) Request(_ context.Context, x *abi.Exchange, m host.Mode) host.Result {
	if p.fails {
		return host.Result{Verdict: &abi.Verdict{}, Failure: &host.Failure{Reason: host.Trap}}
	}
	v := p.request(x)
	if err := v.CheckRequest(x); err != nil {
		panic(err)
	}
	return result(v, m)
}

func (p *toy) Event(_ context.Context, e *abi.Event, m host.Mode) host.Result {
	v := p.event(e)
	if err := v.CheckEvent(e); err != nil {
		panic(err)
	}
	return result(v, m)
}

func result(v abi.Verdict, m host.Mode) host.Result {
	if m == host.Shadow {
		return host.Result{Verdict: &abi.Verdict{}, Would: &v}
	}
	return host.Result{Verdict: &v}
}

// question is a chat of key 7 of tenant 3.
func question(body string) *policy.Question {
	return &policy.Question{
		Exchange: uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057"), Tenant: &policy.Tenant{ID: 3, Name: "acme"}, Key: &policy.Key{ID: 7, Name: "k"},
		Address: "10.0.0.1", Headers: []policy.Header{{Name: "x-team", Value: "red"}, {Name: "x-other", Value: "1"}},
		Operation: policy.OpChat, Model: "m", Body: []byte(body),
		Channels: func(model string) []string { return []string{model + "-1", model + "-2"} },
	}
}

const hello = `{"model":"m","messages":[{"role":"user","content":"hello"}],"max_tokens":9}`

// appending returns a plugin that adds to the first text.
func appending(text string) *toy {
	return &toy{request: func(x *abi.Exchange) abi.Verdict {
		n := int64(len(x.Messages[0].Texts[0].Text))
		return abi.Verdict{Edits: []abi.Edit{{Text: 1, Start: n, End: n, With: text}}}
	}}
}

func judgeOf(t *testing.T, table *Table) policy.Judge {
	t.Helper()
	q := question(hello)
	j := table.Judge(q.Tenant, q.Key)
	if j == nil {
		t.Fatal("nobody judges")
	}
	return j
}

func TestLinksOfEverybodyTheTenantAndTheKeyAreAskedInOrder(t *testing.T) {
	t.Parallel()
	table := NewTable([]Link{
		{ID: 6, Plugin: appending(" key2"), Key: 7, Tenant: 3, Place: 2},
		{ID: 5, Plugin: appending(" key1"), Key: 7, Tenant: 3, Place: 1},
		{ID: 4, Plugin: appending(" tenant"), Tenant: 3},
		{ID: 3, Plugin: appending(" all2")},
		{ID: 2, Plugin: appending(" all1")},
		{ID: 9, Plugin: appending(" wrong"), Tenant: 4},
		{ID: 8, Plugin: appending(" wrong"), Key: 8},
	}, Options{})
	r, denial := judgeOf(t, table).Request(question(hello))
	if denial != nil {
		t.Fatal(denial)
	}
	want := `{"model":"m","messages":[{"role":"user","content":"hello all1 all2 tenant key1 key2"}],"max_tokens":9}`
	if string(r.Body) != want {
		t.Errorf("body %s, want %s", r.Body, want)
	}
}

func TestWhoHasNoPluginsIsNotJudged(t *testing.T) {
	t.Parallel()
	table := NewTable([]Link{{Plugin: appending("x"), Tenant: 4}, {Plugin: appending("x"), Key: 1}}, Options{})
	q := question(hello)
	if j := table.Judge(q.Tenant, q.Key); j != nil {
		t.Errorf("judged by %v", j)
	}
}

func TestPluginIsShownWhatItMaySee(t *testing.T) {
	t.Parallel()
	var got []*abi.Exchange
	look := &toy{request: func(x *abi.Exchange) abi.Verdict {
		got = append(got, x)
		return abi.Verdict{}
	}}
	table := NewTable([]Link{{ID: 1, Plugin: look, Headers: []string{"x-team", "x-absent"}}, {ID: 2, Plugin: look, Body: true}}, Options{
		Count:  func(policy.Operation, string, []byte) int64 { return 5 },
		Budget: func(policy.TenantID, policy.KeyID) (int64, bool) { return 0, true },
	})
	if diff := cmp.Diff(table.Headers(), []string{"x-absent", "x-team"}); diff != "" {
		t.Error(diff)
	}
	r, denial := judgeOf(t, table).Request(question(hello))
	if denial != nil || r.Body != nil {
		t.Fatalf("%v, %+v", denial, r)
	}
	left := int64(0)
	want := &abi.Exchange{
		ID: "01890a5d-ac96-774b-bcce-b302099a8057", Caller: abi.Caller{Tenant: 3, TenantName: "acme", Key: 7, KeyName: "k", Address: "10.0.0.1"},
		Asked:    abi.Asked{Operation: "chat", Model: "m", MaxOutput: 9},
		Budget:   &left,
		Headers:  []abi.Header{{Name: "x-team", Value: "red"}},
		Messages: []abi.Message{{Role: "user", Texts: []abi.Text{{ID: 1, Text: "hello"}}}},
		Channels: []string{"m-1", "m-2"},
	}
	if n := got[0].Tokens(); n != 5 {
		t.Errorf("it is told of %d tokens", n)
	}
	got[0].Tokens = nil
	if diff := cmp.Diff(got[0], want); diff != "" {
		t.Errorf("got, want: %s", diff)
	}
	if string(got[1].Body) != hello || got[1].Headers != nil {
		t.Errorf("the second is shown %+v", got[1])
	}
}

func TestTokensAreCountedOnceForEachBodyAndOnlyIfAskedFor(t *testing.T) {
	t.Parallel()
	counted := 0
	count := func(policy.Operation, string, []byte) int64 { counted++; return 5 }
	asks := &toy{request: func(x *abi.Exchange) abi.Verdict {
		if a, b := x.Tokens(), x.Tokens(); a != 5 || b != 5 {
			t.Errorf("told of %d and %d tokens", a, b)
		}
		return abi.Verdict{}
	}}
	for want, links := range map[int][]Link{
		0: {{ID: 1, Plugin: appending("!")}, {ID: 2, Plugin: appending("?")}},
		1: {{ID: 1, Plugin: appending("!")}, {ID: 2, Plugin: asks}, {ID: 3, Plugin: asks}},
		2: {{ID: 1, Plugin: asks}, {ID: 2, Plugin: appending("!")}, {ID: 3, Plugin: asks}},
	} {
		counted = 0
		if _, denial := judgeOf(t, NewTable(links, Options{Count: count})).Request(question(hello)); denial != nil || counted != want {
			t.Errorf("counted %d times, want %d: %v", counted, want, denial)
		}
	}
}

func TestDenialEndsTheChain(t *testing.T) {
	t.Parallel()
	deny := &toy{request: func(*abi.Exchange) abi.Verdict {
		return abi.Verdict{Action: abi.Deny, Denial: abi.Denial{Status: 403, Code: "not_now", Message: "Come back."}}
	}}
	never := &toy{request: func(*abi.Exchange) abi.Verdict {
		t.Error("asked after a denial")
		return abi.Verdict{}
	}}
	_, denial := judgeOf(t, NewTable([]Link{{ID: 1, Plugin: deny}, {ID: 2, Plugin: never}}, Options{})).Request(question(hello))
	if diff := cmp.Diff(denial, &policy.Denial{Status: 403, Type: "invalid_request_error", Code: "not_now", Message: "Come back."}); diff != "" {
		t.Error(diff)
	}
	shadow := NewTable([]Link{{ID: 1, Plugin: deny, Mode: host.Shadow}, {ID: 2, Plugin: appending("!")}}, Options{})
	if r, denial := judgeOf(t, shadow).Request(question(hello)); denial != nil || r.Body == nil {
		t.Errorf("a denial in shadow mode: %v", denial)
	}
}

func TestLaterPluginsSeeAnotherModelAndItsChannels(t *testing.T) {
	t.Parallel()
	first := &toy{request: func(*abi.Exchange) abi.Verdict {
		return abi.Verdict{
			Model: "n", MaxOutput: 5, Set: []abi.Header{{Name: "a", Value: "1"}, {Name: "b", Value: "1"}}, Remove: []string{"c"},
			Tags: []abi.Tag{{Name: "x", Value: "1"}, {Name: "y", Value: "1"}},
		}
	}}
	second := &toy{request: func(x *abi.Exchange) abi.Verdict {
		if diff := cmp.Diff(x.Channels, []string{"n-1", "n-2"}); diff != "" || x.Asked.Model != "n" || x.Asked.MaxOutput != 5 {
			t.Errorf("the second is asked %+v", x)
		}
		return abi.Verdict{
			Channels: []string{"n-2"}, Set: []abi.Header{{Name: "c", Value: "2"}}, Remove: []string{"a"}, Tags: []abi.Tag{{Name: "y", Value: "2"}},
		}
	}}
	third := &toy{request: func(x *abi.Exchange) abi.Verdict {
		if diff := cmp.Diff(x.Channels, []string{"n-2"}); diff != "" {
			t.Error(diff)
		}
		return abi.Verdict{}
	}}
	r, denial := judgeOf(t, NewTable([]Link{{ID: 1, Plugin: first}, {ID: 2, Plugin: second}, {ID: 3, Plugin: third}}, Options{})).Request(question(hello))
	if denial != nil {
		t.Fatal(denial)
	}
	want := &policy.Ruling{
		Body:     []byte(`{"model":"n","messages":[{"role":"user","content":"hello"}],"max_tokens":5}`),
		Channels: []string{"n-2"}, Set: []policy.Header{{Name: "b", Value: "1"}, {Name: "c", Value: "2"}}, Remove: []string{"a"},
		Tags: []policy.Tag{{Name: "x", Value: "1"}, {Name: "y", Value: "2"}},
	}
	if diff := cmp.Diff(r, want); diff != "" {
		t.Errorf("got, want: %s", diff)
	}
}

func TestRequestsThatCannotBeReadAreTheClientsFault(t *testing.T) {
	t.Parallel()
	_, denial := judgeOf(t, NewTable([]Link{{Plugin: appending("x")}}, Options{})).Request(question(`{"model":"m","messages":[{"role":"user","content":"a","content":"b"}]}`))
	if denial == nil || denial.Status != 400 || denial.Param != "messages[0]" {
		t.Errorf("denial %+v", denial)
	}
}

func TestInsertThatDoesNotFitFollowsTheMode(t *testing.T) {
	t.Parallel()
	insert := &toy{request: func(*abi.Exchange) abi.Verdict {
		return abi.Verdict{Inserts: []abi.Insert{{Role: "system", Text: "be kind"}}}
	}}
	for mode, fails := range map[host.Mode]bool{host.Closed: true, host.Open: false} {
		q := question(`{"model":"m","input":"a"}`)
		q.Operation = policy.OpEmbeddings
		_, denial := judgeOf(t, NewTable([]Link{{Plugin: insert, Mode: mode}}, Options{})).Request(q)
		if (denial != nil) != fails {
			t.Errorf("mode %d: %v", mode, denial)
		}
	}
}

// value returns a counter by the values of its two labels, in the order of their names.
func value(t *testing.T, g prometheus.Gatherer, name, first, second string) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == first && m.GetLabel()[1].GetValue() == second {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Errorf("no metric %s of %s and %s", name, first, second)
	return 0
}

func TestCallsAreCounted(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	m := NewMetrics(registry)
	table := NewTable([]Link{{ID: 1, Name: "a", Plugin: appending("x")}, {ID: 2, Name: "b", Plugin: &toy{fails: true}}, {ID: 3, Name: "c", Mode: host.Shadow, Plugin: appending("x")}}, Options{Metrics: m})
	for range 3 {
		if _, denial := judgeOf(t, table).Request(question(hello)); denial != nil {
			t.Fatal(denial)
		}
	}
	for labels, want := range map[[2]string]float64{{"a", "change"}: 3, {"b", "fail"}: 3, {"c", "change"}: 3, {"a", "deny"}: 0} {
		if got := value(t, registry, "weir_plugin_calls_total", labels[1], labels[0]); got != want {
			t.Errorf("%v: %v, want %v", labels, got, want)
		}
	}
	if got := value(t, registry, "weir_plugin_failures_total", "b", "trap"); got != 3 {
		t.Errorf("%v traps", got)
	}
}

func TestResponseIsShownToWhoWatches(t *testing.T) {
	t.Parallel()
	var states []string
	loud := &toy{
		request: func(*abi.Exchange) abi.Verdict { return abi.Verdict{State: []byte("0")} },
		event: func(e *abi.Event) abi.Verdict {
			states = append(states, string(e.State))
			if e.Kind == abi.KindText {
				return abi.Verdict{Edits: []abi.Edit{{End: int64(len(e.Text)), With: strings.ToUpper(e.Text)}}, State: []byte("1")}
			}
			return abi.Verdict{}
		},
	}
	table := NewTable([]Link{{ID: 1, Plugin: appending("!")}, {ID: 2, Plugin: loud}}, Options{})
	j := judgeOf(t, table)
	q := question(hello)
	if _, denial := j.Request(q); denial != nil || !j.Watches() {
		t.Fatalf("denial %v, watches %v", denial, j.Watches())
	}
	w := j.Watch(q)
	ruling, whole := w.Head(200, []policy.Header{{Name: "content-type", Value: "text/event-stream"}})
	if whole || ruling.Denial != nil {
		t.Fatalf("a stream is held: %+v", ruling)
	}
	stream := "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hey\"}}]}\n\n"
	var got strings.Builder
	for i := range len(stream) {
		out, _, _ := w.Body([]byte(stream[i:i+1]), false)
		got.Write(out)
	}
	out, over, _ := w.Body([]byte("data: [DONE]\n\n"), true)
	got.Write(out)
	w.Close()
	if want := strings.Replace(stream, "hey", "HEY", 1) + "data: [DONE]\n\n"; got.String() != want || !over {
		t.Errorf("got %q, want %q", got.String(), want)
	}
	if len(states) < 3 || states[0] != "0" || states[len(states)-1] != "1" {
		t.Errorf("states %q", states)
	}
	if quiet := judgeOf(t, NewTable([]Link{{Plugin: appending("!")}}, Options{})); quiet.Watches() {
		t.Error("a plugin without a hook for responses is shown one")
	}
}

func TestAnswerInOnePieceMayBeDenied(t *testing.T) {
	t.Parallel()
	deny := &toy{event: func(e *abi.Event) abi.Verdict {
		if e.Kind == abi.KindText {
			return abi.Verdict{Action: abi.Deny, Denial: abi.Denial{Status: 451, Code: "unfit", Message: "No."}}
		}
		return abi.Verdict{}
	}}
	j := judgeOf(t, NewTable([]Link{{Plugin: deny}}, Options{}))
	q := question(hello)
	if r, denial := j.Request(q); r != nil || denial != nil {
		t.Fatalf("%v %v", r, denial)
	}
	w := j.Watch(q)
	defer w.Close()
	if _, whole := w.Head(200, []policy.Header{{Name: "content-type", Value: "application/json"}}); !whole {
		t.Error("the body is not asked for whole")
	}
	_, over, denial := w.Body([]byte(`{"choices":[{"index":0,"message":{"content":"bad"},"finish_reason":"stop"}]}`), true)
	if !over || denial == nil || denial.Status != 451 || denial.Code != "unfit" {
		t.Errorf("over %v, denial %v", over, denial)
	}
}

func TestResponsesThatEndMidwayAreCounted(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	deny := &toy{event: func(e *abi.Event) abi.Verdict {
		if e.Kind == abi.KindText && e.Text == "no" {
			return abi.Verdict{Action: abi.Deny, Denial: abi.Denial{Status: 403, Code: "not_so"}, Tags: []abi.Tag{{Name: "said", Value: e.Text}}}
		}
		return abi.Verdict{}
	}}
	sieve := &sieve{from: "x", to: "y"}
	table := NewTable([]Link{{ID: 1, Name: "deny", Plugin: deny}, {ID: 2, Name: "sieve", Filter: sieve}}, Options{Metrics: NewMetrics(registry)})
	j := judgeOf(t, table)
	q := question(hello)
	if _, denial := j.Request(q); denial != nil {
		t.Fatal(denial)
	}
	w := j.Watch(q)
	w.Head(200, []policy.Header{{Name: "content-type", Value: "text/event-stream"}})
	said := func(text string) []byte {
		return []byte(`data: {"choices":[{"index":0,"delta":{"content":"` + text + `"}}]}` + "\n\n")
	}
	if _, over, _ := w.Body(said("yes"), false); over || len(w.Tags()) != 1 {
		t.Errorf("over %v, tags %v", over, w.Tags())
	}
	if out, over, denial := w.Body(said("no"), false); !over || denial != nil || !strings.Contains(string(out), "not_so") {
		t.Errorf("got %s, over %v, %v", out, over, denial)
	}
	w.Close()
	if diff := cmp.Diff(w.Tags(), []policy.Tag{{Name: "said", Value: "no"}, {Name: "x", Value: "y"}}); diff != "" {
		t.Errorf("tags (-got +want):\n%s", diff)
	}
	sieve.place.Note(proxywasm.Report{Cut: true})
	for plugin, want := range map[string]float64{"deny": 1, "sieve": 1} {
		if got := cuts(t, registry, plugin); got != want {
			t.Errorf("%s: %v responses cut, want %v", plugin, got, want)
		}
	}
}

func cuts(t *testing.T, g prometheus.Gatherer, plugin string) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "weir_plugin_cut_responses_total" && m.GetLabel()[0].GetValue() == plugin {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}
