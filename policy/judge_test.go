// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// judge is a [Judge] that does as it is told, and notes what it was asked.
type judge struct {
	ruling  *Ruling
	denial  *Denial
	watcher Watcher
	asked   []Question
	offered []string
	watched *Question
	dropped int // calls of Abandon
}

func (j *judge) Watches() bool { return j.watcher != nil }

func (j *judge) Request(q *Question) (*Ruling, *Denial) {
	j.asked = append(j.asked, *q)
	j.offered = q.Channels(q.Model)
	return j.ruling, j.denial
}

func (j *judge) Watch(q *Question) Watcher {
	j.watched = q
	return j.watcher
}

func (j *judge) Abandon() { j.dropped++ }

// blind is a watcher that changes nothing.
type blind struct{ Watcher }

// judgedEngine returns an engine whose exchanges all go before j.
func judgedEngine(t *testing.T, j *judge) *Engine {
	t.Helper()
	e := New(Options{Judge: func(tenant *Tenant, _ *Key) Judge {
		if tenant.Name == "unjudged" {
			return nil
		}
		return j
	}})
	s, err := NewSnapshot(SnapshotData{
		Tenants: []Tenant{{ID: 1, Name: "acme"}, {ID: 2, Name: "unjudged"}},
		Keys: []Key{
			{ID: 1, Tenant: 1, Hash: HashKey("sk-1"), Models: []string{"small", "large", "nowhere"}},
			{ID: 2, Tenant: 2, Hash: HashKey("sk-2")},
		},
		Channels: []Channel{
			{ID: 10, Name: "first", Weight: 1, Priority: 2, Models: []Model{{Name: "small"}, {Name: "large"}, {Name: "secret"}}},
			{ID: 11, Name: "second", Weight: 1, Priority: 1, Models: []Model{{Name: "large", Upstream: "huge"}}},
			{ID: 12, Name: "theirs", Weight: 1, Tenant: 2, Models: []Model{{Name: "large"}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	e.SetSnapshot(s)
	return e
}

func ask(t *testing.T, e *Engine, key, body string) (*Exchange, *Admission, *Denial) {
	t.Helper()
	x, _, denial := e.Begin(&Head{
		Method: "POST", Path: "/v1/chat/completions", Authorization: "Bearer " + key, Address: "10.1.2.3", Headers: []Header{{"x-team", "red"}},
	})
	if denial != nil {
		t.Fatal(denial)
	}
	a, denial := x.Admit([]byte(body))
	return x, a, denial
}

func TestJudgeSeesTheRequestAndWhoSentIt(t *testing.T) {
	t.Parallel()
	j := &judge{}
	x, a, denial := ask(t, judgedEngine(t, j), "sk-1", `{"model":"large","stream":true}`)
	if denial != nil {
		t.Fatal(denial)
	}
	if len(j.asked) != 1 || x.Watched() || a.Watch != nil {
		t.Fatalf("asked %d times, watched %v", len(j.asked), x.Watched())
	}
	q := j.asked[0]
	if q.Exchange != x.ID || q.Tenant.Name != "acme" || q.Key.ID != 1 || q.Address != "10.1.2.3" || q.Operation != OpChat || q.Model != "large" ||
		!q.Stream || string(q.Body) != `{"model":"large","stream":true}` {
		t.Errorf("asked %+v", q)
	}
	if diff := cmp.Diff(q.Headers, []Header{{"x-team", "red"}}); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(j.offered, []string{"first", "second"}); diff != "" {
		t.Errorf("offered: got, want: %s", diff)
	}
	if !a.StripUsage || a.Body == nil {
		t.Errorf("the admission of an untouched request is %+v", a)
	}
}

func TestNobodyIsAskedOfTenantsWithoutPolicies(t *testing.T) {
	t.Parallel()
	j := &judge{denial: &Denial{Code: "no"}}
	if _, _, denial := ask(t, judgedEngine(t, j), "sk-2", `{"model":"large"}`); denial != nil || len(j.asked) != 0 {
		t.Errorf("asked %d times, denial %v", len(j.asked), denial)
	}
}

func TestModelThatCountsIsTheOneThatTheJudgeLeaves(t *testing.T) {
	t.Parallel()
	if _, _, denial := ask(t, judgedEngine(t, &judge{}), "sk-1", `{"model":"secret"}`); denial == nil || denial.Code != CodeModelNotAllowed {
		t.Errorf("a model that is not allowed: %v", denial)
	}
	j := &judge{ruling: &Ruling{Body: []byte(`{"model":"small"}`)}}
	if _, a, denial := ask(t, judgedEngine(t, j), "sk-1", `{"model":"an alias"}`); denial != nil || a.Model != "small" {
		t.Errorf("an alias: %v", denial)
	}
}

func TestChangedRequestIsAuthorisedAndRoutedAnew(t *testing.T) {
	t.Parallel()
	for body, code := range map[string]string{
		`{"model":"secret"}`:               CodeModelNotAllowed,
		`{"model":"nowhere"}`:              CodeModelNotFound,
		`{"model":"small"`:                 CodeInvalidJSON,
		`{"model":"a","model":"b"}`:        CodeInvalidJSON,
		strings.Repeat(" ", 33<<20) + `{}`: CodeTooLarge,
	} {
		_, _, denial := ask(t, judgedEngine(t, &judge{ruling: &Ruling{Body: []byte(body)}}), "sk-1", `{"model":"large"}`)
		if denial == nil || denial.Code != code {
			t.Errorf("%.40s: %v, want %s", body, denial, code)
		}
	}
	j := &judge{ruling: &Ruling{Body: []byte(`{"model":"small"}`), Set: []Header{{"a", "b"}}, Remove: []string{"c"}, Tags: []Tag{{"team", "red"}}}}
	_, a, denial := ask(t, judgedEngine(t, j), "sk-1", `{"model":"large","stream":true}`)
	if denial != nil {
		t.Fatal(denial)
	}
	if string(a.Body) != `{"model":"small"}` || a.Model != "small" || a.Stream || len(a.Choices) != 1 || len(a.Set) != 1 || len(a.Remove) != 1 {
		t.Errorf("admission %+v", a)
	}
	ticket, err := ParseTicket(a.Ticket)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(ticket.Tags, []Tag{{"team", "red"}}); diff != "" || ticket.Model != "small" {
		t.Errorf("ticket %+v: %s", ticket, diff)
	}
}

func TestChannelsThatAJudgeNamesAreTriedInItsOrder(t *testing.T) {
	t.Parallel()
	_, a, denial := ask(t, judgedEngine(t, &judge{ruling: &Ruling{Channels: []string{"second", "theirs", "first"}}}), "sk-1", `{"model":"large"}`)
	if denial != nil {
		t.Fatal(denial)
	}
	if diff := cmp.Diff(a.Choices, []Choice{{Channel: 11, Upstream: "huge"}, {Channel: 10, Upstream: "large"}}); diff != "" {
		t.Errorf("choices: got, want: %s", diff)
	}
	_, _, denial = ask(t, judgedEngine(t, &judge{ruling: &Ruling{Channels: []string{"theirs"}}}), "sk-1", `{"model":"large"}`)
	if denial == nil || denial.Code != CodeNoChannel {
		t.Errorf("another tenant's channel: %v", denial)
	}
}

func TestWatcherTakesTheUsageChunkOutItself(t *testing.T) {
	t.Parallel()
	j := &judge{watcher: blind{}}
	x, a, denial := ask(t, judgedEngine(t, j), "sk-1", `{"model":"large","stream":true}`)
	if denial != nil {
		t.Fatal(denial)
	}
	if !x.Watched() || a.Watch != Watcher(blind{}) || a.StripUsage || j.watched == nil || !j.watched.StripUsage {
		t.Errorf("watched %v, admission %+v, question %+v", x.Watched(), a, j.watched)
	}
	j = &judge{watcher: blind{}, denial: &Denial{Code: "no"}}
	if _, a, denial := ask(t, judgedEngine(t, j), "sk-1", `{"model":"large"}`); denial == nil || a != nil || j.watched != nil {
		t.Error("a refused exchange is watched")
	}
}

func TestJudgeIsToldOfAnExchangeThatItLetThroughInVain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		judge     judge
		abandoned int
	}{
		"admitted":            {judge{}, 0},
		"denied by itself":    {judge{denial: Denied(403, "no", "No.")}, 0},
		"to an unknown model": {judge{ruling: &Ruling{Body: []byte(`{"model":"unheard-of","messages":[]}`)}}, 1},
		"to no body":          {judge{ruling: &Ruling{Body: []byte(`{`)}}, 1},
	} {
		_, _, _ = ask(t, judgedEngine(t, &c.judge), "sk-1", `{"model":"large","messages":[]}`)
		if c.judge.dropped != c.abandoned {
			t.Errorf("%s: abandoned %d times, want %d", name, c.judge.dropped, c.abandoned)
		}
	}
}
