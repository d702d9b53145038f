// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/plugins/abi"
	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/plugins/proxywasm"
	"github.com/weir-proxy/weir/policy"
)

// sieve is a filter in Go. It puts one text for another, in requests and responses.
type sieve struct {
	from, to  string
	denial    *policy.Denial // if set: of every request
	ends      string         // a response that has this is ended there
	seen      []string
	abandoned int
	closed    int
	place     proxywasm.Place
}

func (f *sieve) About() host.About { return host.About{Request: true, Event: true} }

func (f *sieve) Judge(at proxywasm.Place) policy.Judge {
	f.place = at
	return f
}

func (f *sieve) Watches() bool { return true }

func (f *sieve) Request(q *policy.Question) (*policy.Ruling, *policy.Denial) {
	f.seen = append(f.seen, q.Model+" "+string(q.Body))
	if f.denial != nil {
		return nil, f.denial
	}
	return &policy.Ruling{Body: bytes.ReplaceAll(q.Body, []byte(f.from), []byte(f.to)), Set: []policy.Header{{Name: "x-" + f.from, Value: f.to}}}, nil
}

func (f *sieve) Abandon() { f.abandoned++ }

func (f *sieve) Watch(*policy.Question) policy.Watcher { return f }

func (f *sieve) Head(_ int, headers []policy.Header) (*policy.HeadRuling, bool) {
	for _, h := range headers {
		f.seen = append(f.seen, h.Name)
	}
	return &policy.HeadRuling{Set: []policy.Header{{Name: "x-by-" + f.from, Value: "1"}}, Remove: []string{"x-old"}}, false
}

func (f *sieve) Body(chunk []byte, _ bool) ([]byte, bool, *policy.Denial) {
	if f.ends != "" && bytes.Contains(chunk, []byte(f.ends)) {
		return []byte("!"), true, nil
	}
	return bytes.ReplaceAll(chunk, []byte(f.from), []byte(f.to)), false, nil
}

func (f *sieve) Tags() []policy.Tag { return []policy.Tag{{Name: f.from, Value: f.to}} }

func (f *sieve) Close() { f.closed++ }

func TestFiltersAndPluginsAreAskedInOrder(t *testing.T) {
	t.Parallel()
	first, last := &sieve{from: "hello", to: "hullo"}, &sieve{from: `"m"`, to: `"n"`}
	table := NewTable([]Link{
		{ID: 1, Name: "first", Filter: first, Headers: []string{"x-team"}}, {ID: 2, Plugin: appending(" there")}, {ID: 3, Name: "last", Filter: last, Mode: host.Open},
	}, Options{})
	if diff := cmp.Diff(table.Headers(), []string{":authority", "x-team"}); diff != "" {
		t.Error(diff)
	}
	r, denial := judgeOf(t, table).Request(question(hello))
	if denial != nil {
		t.Fatal(denial)
	}
	want := &policy.Ruling{
		Body: []byte(`{"model":"n","messages":[{"role":"user","content":"hullo there"}],"max_tokens":9}`),
		Set:  []policy.Header{{Name: "x-hello", Value: "hullo"}, {Name: `x-"m"`, Value: `"n"`}},
	}
	if diff := cmp.Diff(r, want); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(last.seen, []string{`m {"model":"m","messages":[{"role":"user","content":"hullo there"}],"max_tokens":9}`}); diff != "" {
		t.Error(diff)
	}
	if first.place.Mode != host.Closed || last.place.Mode != host.Open || len(first.place.Headers) != 1 {
		t.Errorf("places %+v, %+v", first.place, last.place)
	}
}

func TestModelOfAFilterIsWhatLaterPluginsSee(t *testing.T) {
	t.Parallel()
	var got *abi.Exchange
	look := &toy{request: func(x *abi.Exchange) abi.Verdict {
		got = x
		return abi.Verdict{}
	}}
	table := NewTable([]Link{{ID: 1, Filter: &sieve{from: `"m"`, to: `"other"`}}, {ID: 2, Plugin: look}}, Options{})
	if _, denial := judgeOf(t, table).Request(question(hello)); denial != nil {
		t.Fatal(denial)
	}
	if diff := cmp.Diff(got.Channels, []string{"other-1", "other-2"}); diff != "" || got.Asked.Model != "other" {
		t.Errorf("model %s: %s", got.Asked.Model, diff)
	}
}

func TestDenialGivesUpTheStreamsOfAllFilters(t *testing.T) {
	t.Parallel()
	first, last := &sieve{}, &sieve{denial: policy.Denied(403, "no", "No.")}
	first.from, first.to = "x", "y"
	table := NewTable([]Link{{ID: 1, Filter: first}, {ID: 2, Filter: last}}, Options{})
	if _, denial := judgeOf(t, table).Request(question(hello)); denial != last.denial {
		t.Errorf("denial %v", denial)
	}
	if first.abandoned != 1 || last.abandoned != 1 {
		t.Errorf("abandoned %d and %d times", first.abandoned, last.abandoned)
	}
}

func TestBodyOfAFilterThatCannotBeReadIsAFailure(t *testing.T) {
	t.Parallel()
	for _, mode := range []host.Mode{host.Closed, host.Open} {
		table := NewTable([]Link{{Filter: &sieve{from: `"messages":[`, to: `"messages":{[`}, Mode: mode}}, Options{})
		r, denial := judgeOf(t, table).Request(question(hello))
		if mode == host.Closed && (denial == nil || denial.Status != 503) {
			t.Errorf("closed: %v", denial)
		}
		if mode == host.Open && (denial != nil || r.Body != nil || r.Set != nil) {
			t.Errorf("open: %v, %+v", denial, r)
		}
	}
}

func TestResponsePassesFiltersAndPluginsInOrder(t *testing.T) {
	t.Parallel()
	plugin := &toy{event: func(e *abi.Event) abi.Verdict {
		if e.Kind == abi.KindText && e.Text == "hullo" {
			return abi.Verdict{Edits: []abi.Edit{{Start: 0, End: 5, With: "howdy"}}}
		}
		return abi.Verdict{}
	}}
	first, last := &sieve{from: "hello", to: "hullo"}, &sieve{from: "howdy", to: "hi"}
	table := NewTable([]Link{{ID: 1, Filter: first}, {ID: 2, Plugin: plugin}, {ID: 3, Filter: last}}, Options{})
	j := judgeOf(t, table)
	if _, denial := j.Request(question(hello)); denial != nil {
		t.Fatal(denial)
	}
	q := question(hello)
	q.StripUsage = true
	watch := j.Watch(q)
	ruling, whole := watch.Head(200, []policy.Header{{Name: "content-type", Value: "text/event-stream"}, {Name: "x-old", Value: "1"}})
	if diff := cmp.Diff(ruling.Set, []policy.Header{{Name: "x-by-hello", Value: "1"}, {Name: "x-by-howdy", Value: "1"}}); diff != "" || whole {
		t.Error(diff)
	}
	if diff := cmp.Diff(last.seen[1:], []string{"content-type", "x-by-hello"}); diff != "" {
		t.Errorf("headers that the last one sees: %s", diff)
	}
	var got []byte
	for i, chunk := range []string{
		"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hello\"}}]}\n\n",
		"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1,\"total_tokens\":2}}\n\n",
		"data: [DONE]\n\n",
	} {
		out, over, denial := watch.Body([]byte(chunk), i == 2)
		if denial != nil || over && i < 2 {
			t.Fatal(denial, over)
		}
		got = append(got, out...)
	}
	watch.Close()
	want := "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}]}\n\ndata: [DONE]\n\n"
	if diff := cmp.Diff(string(got), want); diff != "" {
		t.Error(diff)
	}
	if first.closed != 1 || last.closed != 1 {
		t.Errorf("closed %d and %d times", first.closed, last.closed)
	}
}

func TestFilterThatEndsAResponseEndsItForAll(t *testing.T) {
	t.Parallel()
	first, last := &sieve{from: "a", to: "b", ends: "stop"}, &sieve{from: "!", to: "."}
	table := NewTable([]Link{{ID: 1, Filter: first}, {ID: 2, Filter: last}}, Options{})
	watch := judgeOf(t, table).Watch(question(hello))
	watch.Head(200, nil)
	if out, over, _ := watch.Body([]byte("a"), false); string(out) != "b" || over {
		t.Errorf("%q, over %v", out, over)
	}
	if out, over, _ := watch.Body([]byte("stop"), false); string(out) != "." || !over {
		t.Errorf("%q, over %v", out, over)
	}
}
