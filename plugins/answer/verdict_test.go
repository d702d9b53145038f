// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/plugins/abi"
)

// judging returns a judge made of a function.
func judging(name string, f func(e *abi.Event) *abi.Verdict) Judge {
	return Judge{Name: name, Event: func(e *abi.Event) (*abi.Verdict, error) { return f(e), nil }}
}

// sse makes a stream of events.
func sse(data ...string) []byte {
	var b strings.Builder
	for _, d := range data {
		b.WriteString("data: " + d + "\n\n")
	}
	return []byte(b.String())
}

// delta is an event of chat.
func delta(index int, members, finish string) string {
	return fmt.Sprintf(`{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":%d,"delta":{%s},"finish_reason":%s}]}`, index, members, finish)
}

func chatStream(data ...string) *record {
	return &record{operation: chatOp, media: "text/event-stream", body: sse(data...)}
}

func chatBody(body string) *record {
	return &record{operation: chatOp, media: "application/json", body: []byte(body)}
}

func edit(start, end int, with string) *abi.Verdict {
	return &abi.Verdict{Edits: []abi.Edit{{Start: int64(start), End: int64(end), With: with}}}
}

func TestEachJudgeSeesWhatTheOneBeforeHasLeft(t *testing.T) {
	t.Parallel()
	r := chatStream(delta(0, `"content":"one"`, "null"), delta(0, `"content":"two"`, "null"), delta(0, "", `"stop"`), "[DONE]")
	first := judging("first", func(e *abi.Event) *abi.Verdict {
		state := fmt.Sprintf("%s%d", e.State, e.Kind)
		v := &abi.Verdict{State: []byte(state)}
		switch {
		case e.Text == "one":
			v.Action = abi.Drop
		case e.Kind == abi.KindText:
			v.Edits = edit(0, 1, "T").Edits
		case e.Kind == abi.KindFinish:
			v.Edits = edit(0, 0, "held "+state).Edits
		}
		return v
	})
	first.State = []byte("s")
	second := judging("second", func(e *abi.Event) *abi.Verdict {
		switch e.Kind {
		case abi.KindText:
			return edit(len(e.Text), len(e.Text), "!")
		case abi.KindFinish:
			return edit(0, 0, "also")
		}
		return nil
	})
	between, last := &watcher{t: t}, &watcher{t: t}
	got := r.play(t, r.options(first, between.judge("between"), second, last.judge("last")), r.whole())
	if diff := cmp.Diff(between.seen[1:], []string{`text 0 "Two"`, `text 0 "held s1224"`, `finish 0 "stop"`, "end ok"}); diff != "" {
		t.Errorf("between them (-got +want):\n%s", diff)
	}
	if diff := cmp.Diff(last.seen[1:], []string{`text 0 "Two!"`, `text 0 "held s1224!"`, `text 0 "also"`, `finish 0 "stop"`, "end ok"}); diff != "" {
		t.Errorf("behind them (-got +want):\n%s", diff)
	}
	c, err := readStream(got.body)
	if err != nil {
		t.Fatal(err)
	}
	if want := "Two!held s1224!also"; c.texts["0.content"] != want || c.events != 3 || !c.done {
		t.Errorf("the client has %q in %d events, want %q in 3:\n%s", c.texts["0.content"], c.events, want, got.body)
	}
}

func TestHeadersAreChangedInOrder(t *testing.T) {
	t.Parallel()
	a := New(Options{Common: abi.Event{Operation: chatOp}, Judges: []Judge{
		judging("first", func(*abi.Event) *abi.Verdict {
			return &abi.Verdict{
				Set: []abi.Header{{Name: "x-a", Value: "1"}, {Name: "x-b", Value: "1"}}, Remove: []string{"x-old", "x-again"},
				Tags: []abi.Tag{{Name: "t", Value: "1"}, {Name: "u", Value: "1"}},
			}
		}),
		judging("second", func(e *abi.Event) *abi.Verdict {
			if got := fmt.Sprint(e.Headers); got != "[{content-type application/json} {x-a 1} {x-b 1}]" {
				t.Errorf("the second judge sees %s", got)
			}
			return &abi.Verdict{Set: []abi.Header{{Name: "x-again", Value: "2"}}, Remove: []string{"x-b"}, Tags: []abi.Tag{{Name: "t", Value: "2"}}}
		}),
	}})
	h, out, err := a.Head(200, []abi.Header{{Name: "content-type", Value: "application/json"}, {Name: "x-old", Value: "0"}, {Name: "x-again", Value: "0"}})
	if err != nil || out.End {
		t.Fatal(out, err)
	}
	want := Headers{Set: []abi.Header{{Name: "x-a", Value: "1"}, {Name: "x-again", Value: "2"}}, Remove: []string{"x-old", "x-b", "content-length"}, Held: true}
	if diff := cmp.Diff(h, want); diff != "" {
		t.Errorf("headers (-got +want):\n%s", diff)
	}
	if diff := cmp.Diff(a.Tags(), []abi.Tag{{Name: "t", Value: "2"}, {Name: "u", Value: "1"}}); diff != "" {
		t.Errorf("tags (-got +want):\n%s", diff)
	}
}

// TestADenialEndsTheResponse denies each event of each record in turn.
func TestADenialEndsTheResponse(t *testing.T) {
	t.Parallel()
	for _, r := range records(t) {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			w := &watcher{}
			r.play(t, r.options(w.judge("watcher")), r.whole())
			for at, which := range w.seen[:len(w.seen)-1] {
				n := 0
				denying := judging("denying", func(*abi.Event) *abi.Verdict {
					if n++; n == at+1 {
						return &abi.Verdict{Action: abi.Deny, Denial: abi.Denial{Status: 451, Code: "not_here", Message: `says "no"`}}
					}
					return nil
				})
				after := &watcher{t: t}
				got := r.play(t, r.options(denying, after.judge("after")), r.whole())
				if got.err != nil || got.denied == nil || got.denied.Code != "not_here" {
					t.Fatalf("%s: denied %v, error %v", which, got.denied, got.err)
				}
				want := append(append([]string{}, w.seen[:at]...), "end denied")
				if diff := cmp.Diff(after.seen, want); at > 0 && diff != "" {
					t.Fatalf("%s: the judge behind saw (-got +want):\n%s", which, diff)
				}
				r.checkDenied(t, which, got, at == 0)
			}
		})
	}
}

// checkDenied looks at a denied response as a client does.
func (r *record) checkDenied(t *testing.T, which string, got played, head bool) {
	t.Helper()
	want := map[string]any{"message": `says "no"`, "type": "invalid_request_error", "code": "not_here", "param": nil}
	switch {
	case r.operation == "embeddings" && !head: // it has gone out
		if got.status != 0 || got.body != "" {
			t.Errorf("%s: %d %q", which, got.status, got.body)
		}
	case head || !r.stream():
		var o struct{ Error map[string]any }
		if err := json.Unmarshal([]byte(got.body), &o); err != nil {
			t.Fatalf("%s: %v: %s", which, err, got.body)
		}
		if diff := cmp.Diff(o.Error, want); diff != "" || got.status != 451 {
			t.Errorf("%s: status %d, error (-got +want):\n%s", which, got.status, diff)
		}
	default:
		c, err := readStream(got.body)
		if err != nil {
			t.Fatalf("%s: %v", which, err)
		}
		if diff := cmp.Diff(c.err, want); diff != "" && c.err["type"] != "server_error" || got.status != 0 {
			t.Errorf("%s: status %d, error (-got +want):\n%s", which, got.status, diff)
		}
	}
}

func TestADenialSaysWhatItsSpecificationHas(t *testing.T) {
	t.Parallel()
	r := record{operation: responsesOp, media: "text/event-stream", body: []byte("event: response.output_text.delta\r\n" +
		`data: {"type":"response.output_text.delta","sequence_number":7,"output_index":0,"content_index":0,"delta":"x"}` + "\r\n\r\n")}
	deny := judging("j", func(e *abi.Event) *abi.Verdict {
		if e.Kind == abi.KindText {
			return &abi.Verdict{Action: abi.Deny, Denial: abi.Denial{Status: 500, Code: "c"}}
		}
		return nil
	})
	got := r.play(t, r.options(deny), r.whole())
	want := "event: error\r\n" + `data: {"type":"error","sequence_number":8,"code":"c","message":"A policy of this gateway has denied the response.","param":null,` +
		`"error":{"message":"A policy of this gateway has denied the response.","type":"server_error","param":null,"code":"c"}}` + "\r\n\r\n"
	if got.body != want {
		t.Errorf("got %q, want %q", got.body, want)
	}
}

func TestAJudgeThatFailsEndsTheResponseIfClosed(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	failing := func(open bool) Judge {
		return Judge{Name: "failing", Open: open, Event: func(e *abi.Event) (*abi.Verdict, error) {
			if strings.Contains(e.Text, "two") {
				return nil, broken
			}
			if e.Text == "three" {
				return edit(2, 9, "beyond"), nil
			}
			return nil, nil
		}}
	}
	r := chatStream(delta(0, `"content":"one"`, "null"), delta(0, `"content":"two"`, "null"), delta(0, `"content":"three"`, `"stop"`), "[DONE]")
	body := chatBody(`{"choices":[{"message":{"content":"two"},"finish_reason":"stop"}]}`)
	for name, r := range map[string]*record{"stream": r, "body": body} {
		got := r.play(t, r.options(failing(true)), r.whole())
		if got.body != string(r.body) || got.denied != nil || !errors.Is(got.err, broken) && name == "body" {
			t.Errorf("%s, open: %+v", name, got)
		}
		if e, ok := errors.AsType[*JudgeError](got.err); !ok || e.Judge != "failing" || e.Kind != abi.KindText {
			t.Errorf("%s, open: error %v", name, got.err)
		}
		w := &watcher{t: t}
		got = r.play(t, r.options(failing(false), w.judge("w")), r.whole())
		if got.denied == nil || got.denied.Code != "plugin_failed" || !errors.Is(got.err, broken) {
			t.Errorf("%s, closed: %+v", name, got)
		}
		if !strings.Contains(got.body, `"code":"plugin_failed"`) || strings.Contains(got.body, "two") || strings.Contains(got.body, "broken") {
			t.Errorf("%s, closed: the client gets %s", name, got.body)
		}
		if last := w.seen[len(w.seen)-1]; last != "end denied" {
			t.Errorf("%s, closed: the last event is %s", name, last)
		}
	}
}

func TestAbortTellsTheJudgesOnce(t *testing.T) {
	t.Parallel()
	w := &watcher{t: t}
	r := chatStream(delta(0, `"content":"one"`, "null"), `{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}`, `{"choices":[{"index":0,"del`)
	a := New(r.options(redactor(), w.judge("w")))
	if _, _, err := a.Head(200, r.headers()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write(r.body[:len(r.body)-2], false); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := a.Abort("client_closed"); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := a.Write([]byte("x"), true); err != nil || !out.End || len(out.Body) > 0 {
		t.Errorf("after the abort: %+v, %v", out, err)
	}
	if diff := cmp.Diff(w.seen[1:], []string{"usage {Input:1 Cached:0 Output:2 Reasoning:0}", "end client_closed"}); diff != "" {
		t.Errorf("events (-got +want):\n%s", diff)
	}
	if _, err := New(Options{}).Write(nil, true); err == nil {
		t.Error("a body without a head is taken")
	}
}
