// SPDX-License-Identifier: Apache-2.0

package proxywasm

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/plugins/host"
	w "github.com/weir-proxy/weir/plugins/wasmtest"
	"github.com/weir-proxy/weir/policy"
)

// played is what a client gets of a response.
type played struct {
	ruling  *policy.HeadRuling
	whole   bool
	chunks  []string
	denial  *policy.Denial
	over    bool
	reports []Report
}

var eventStream = []policy.Header{{Name: "content-type", Value: "text/event-stream"}, {Name: "x-upstream", Value: "u"}}

// play shows a response to a plugin, after a request. A body that it wants whole comes whole.
func (p *Plugin) play(t *testing.T, at Place, chunks ...string) *played {
	t.Helper()
	out := &played{}
	at.Note = func(r Report) { out.reports = append(out.reports, r) }
	j := p.Judge(at)
	if !j.Watches() {
		t.Fatal("it does not watch responses")
	}
	if _, denial := j.Request(question()); denial != nil {
		t.Fatal(denial)
	}
	watcher := j.Watch(question())
	defer watcher.Close()
	out.ruling, out.whole = watcher.Head(200, eventStream)
	if out.denial = out.ruling.Denial; out.denial != nil {
		return out
	}
	if out.whole {
		chunks = []string{strings.Join(chunks, "")}
	}
	for i, c := range chunks {
		var b []byte
		b, out.over, out.denial = watcher.Body([]byte(c), i == len(chunks)-1)
		out.chunks = append(out.chunks, string(b))
		if out.over || out.denial != nil {
			break
		}
	}
	return out
}

// replaceBody has the whole of a response's body, as it is now, replaced.
func (g *guest) replaceBody(with string) w.Code {
	return g.try("proxy_set_buffer_bytes", num(bufferResponseBody), num(0), w.Get(1), g.text(with))
}

func TestResponsePassesChunkByChunk(t *testing.T) {
	t.Parallel()
	g := newGuest()
	g.hook(exportResponseHeader,
		g.try("proxy_add_header_map_value", num(mapResponseHeaders), g.text("x-seen"), g.text("1")),
		g.try("proxy_replace_header_map_value", num(mapRequestHeaders), g.text("x-late"), g.text("1")), goOn)
	// Chunks of three bytes are replaced, others pass.
	g.hook(exportResponseBody, w.If0(w.Seq(w.Get(1), num(3), w.Sub()), g.replaceBody("***")), goOn)
	p := g.load(t, Source{})
	got := p.play(t, Place{}, "a", "abc", "", "abcd")
	if diff := cmp.Diff(got.chunks, []string{"a", "***", "", "abcd"}); diff != "" || got.whole {
		t.Error(diff)
	}
	if diff := cmp.Diff(got.ruling, &policy.HeadRuling{Set: []policy.Header{{Name: "x-seen", Value: "1"}}}); diff != "" {
		t.Error(diff)
	}
	got = p.play(t, Place{Mode: host.Shadow}, "a", "abc", "d")
	if diff := cmp.Diff(got.chunks, []string{"a", "abc", "d"}); diff != "" || len(got.ruling.Set) > 0 {
		t.Errorf("in shadow mode: %s, %+v", diff, got.ruling)
	}
	changes := 0
	for _, r := range got.reports {
		if r.Outcome == Change {
			changes++
		}
	}
	if changes != 2 {
		t.Errorf("%d changes are reported in shadow mode, want those of the head and a chunk", changes)
	}
	if p := g.load(t, Source{RequestOnly: true}); p.Judge(Place{}).Watches() {
		t.Error("it watches responses though it is for requests only")
	}
}

func TestResponseIsHeldAsLongAsThePluginPauses(t *testing.T) {
	t.Parallel()
	g := newGuest()
	g.hook(exportResponseBody, w.If0(w.Get(2), stop, w.Return()), goOn) // goes on at the end
	p := g.load(t, Source{Limits: Limits{HeldBytes: 10}})
	if diff := cmp.Diff(p.play(t, Place{}, "ab", "cd", "ef").chunks, []string{"", "", "abcdef"}); diff != "" {
		t.Error(diff)
	}
	got := p.play(t, Place{Mode: host.Open}, "0123456", "789", "abc", "def")
	if diff := cmp.Diff(got.chunks, []string{"", "", "0123456789abc", "def"}); diff != "" {
		t.Errorf("too much is held: %s", diff)
	}
	if f := got.reports[len(got.reports)-1].Failure; f == nil || f.Reason != host.BadAnswer {
		t.Errorf("failure %v", f)
	}
	if diff := cmp.Diff(p.play(t, Place{Mode: host.Shadow}, "ab", "cd", "ef").chunks, []string{"ab", "cd", "ef"}); diff != "" {
		t.Errorf("in shadow mode: %s", diff)
	}
}

func TestHeadWaitsForTheBody(t *testing.T) {
	t.Parallel()
	g := newGuest()
	g.hook(exportResponseHeader, stop)
	g.hook(exportResponseBody, g.replaceBody(`{"new":1}`), goOn)
	got := g.load(t, Source{}).play(t, Place{}, "ab", "cd")
	if diff := cmp.Diff(got.chunks, []string{`{"new":1}`}); diff != "" || !got.whole || got.denial != nil {
		t.Errorf("%s, %+v", diff, got)
	}

	// Its head may still be changed then.
	g = newGuest()
	g.hook(exportResponseHeader, stop)
	g.hook(exportResponseBody,
		g.try("proxy_replace_header_map_value", num(mapResponseHeaders), g.text(":status"), g.text("201")),
		g.try("proxy_replace_header_map_value", num(mapResponseHeaders), g.text("content-type"), g.text("text/csv")), goOn)
	got = g.load(t, Source{}).play(t, Place{}, "ab", "cd")
	want := policy.Replied(&policy.Reply{Status: 201, Body: []byte("abcd"), Headers: []policy.Header{{Name: "content-type", Value: "text/csv"}}})
	if diff := cmp.Diff(got.denial, want); diff != "" {
		t.Error(diff)
	}
}

func TestResponseWaitsForACall(t *testing.T) {
	t.Parallel()
	s := serve(t, func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "judged") })
	g := newGuest()
	g.hook(exportResponseBody, w.If0(w.Get(2), goOn, w.Return()), w.Seq(g.call("judge", "/", "", 3000), w.Drop()), stop)
	g.answered(
		g.try("proxy_set_buffer_bytes", num(bufferResponseBody), num(0), num(1<<20), g.callBody()),
		g.try("proxy_continue_stream", num(streamTypeResponse)))
	got := g.load(t, Source{Upstreams: s.upstream()}).play(t, Place{}, "a", "b")
	if diff := cmp.Diff(got.chunks, []string{"a", "judged"}); diff != "" {
		t.Errorf("%s, %+v", diff, got.reports)
	}
}

func TestFailureInAResponseEndsItOrDoesNot(t *testing.T) {
	t.Parallel()
	g := newGuest()
	g.hook(exportResponseBody, w.If0(w.Seq(w.Get(1), num(3), w.Sub()), w.Loop(w.Br(0))), goOn)
	p := g.load(t, Source{Limits: Limits{Limits: host.Limits{Fuel: 1_000_000, FuelPerByte: 1}}})
	got := p.play(t, Place{}, "data: a\n\n", "bad", "more")
	want := "\n\ndata: " + `{"error":{"message":"A policy of this gateway could not be evaluated. Try again later.","type":"server_error","param":null,"code":"plugin_failed"}}` + "\n\n"
	if diff := cmp.Diff(got.chunks, []string{"data: a\n\n", want}); diff != "" || !got.over {
		t.Errorf("%s, over %v", diff, got.over)
	}
	got = p.play(t, Place{Mode: host.Open}, "a", "bad", "bad", "more")
	if diff := cmp.Diff(got.chunks, []string{"a", "bad", "bad", "more"}); diff != "" {
		t.Errorf("open: %s", diff)
	}
	if f := got.reports[len(got.reports)-1].Failure; f == nil || f.Reason != host.OutOfFuel {
		t.Errorf("failure %v", f)
	}
}

func TestLocalResponseTakesThePlaceOfAResponse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		hook, before string
		chunks       []string
		denied       bool
	}{
		"at the head":        {exportResponseHeader, "", nil, true},
		"in a stream":        {exportResponseBody, "", []string{"\n\ndata: {\"error\""}, false},
		"of a body in whole": {exportResponseBody, exportResponseHeader, []string{""}, true},
	} {
		g := newGuest()
		if c.before != "" {
			g.hook(c.before, stop)
		}
		g.hook(c.hook, g.tell(num(218)), goOn)
		got := g.load(t, Source{}).play(t, Place{}, "a", "b")
		if denied := got.denial != nil && got.denial.Reply.Status == 418; denied != c.denied {
			t.Errorf("%s: denial %+v", name, got.denial)
		}
		if len(got.chunks) != len(c.chunks) || len(c.chunks) > 0 && !strings.HasPrefix(got.chunks[0], c.chunks[0]) {
			t.Errorf("%s: chunks %q", name, got.chunks)
		}
		cut := !c.denied
		last := len(got.reports) - 1
		if cut {
			if !got.reports[last].Cut {
				t.Errorf("%s: nobody is told that the response ends midway: %+v", name, got.reports)
			}
			last--
		}
		if r := got.reports[last]; r.Outcome != Deny || r.Failure != nil {
			t.Errorf("%s: reports %+v", name, got.reports)
		}
	}
}

func TestEndOfTheStreamIsTold(t *testing.T) {
	t.Parallel()
	g := newGuest()
	g.hook(exportResponseBody, goOn)
	told := func(name string) w.Code {
		return w.Seq(g.try("proxy_define_metric", num(0), g.text(name), num(out)),
			g.try("proxy_increment_metric", w.Seq(num(out), w.I32Load()), w.I64Const(1)))
	}
	g.Func(exportDone, w.Types{w.I32}, w.Types{w.I32}, nil, told("done"), num(1))
	g.Func(exportLog, w.Types{w.I32}, nil, nil, told("log"))
	p := g.load(t, Source{})
	p.play(t, Place{}, "a", "b")
	p.ask(t, Place{}, question()) // given up after the request
	want := []Metric{{Name: "done", Value: 2}, {Name: "log", Value: 2}}
	if diff := cmp.Diff(p.Metrics(3), want); diff != "" {
		t.Error(diff)
	}
}
