// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/plugins/abi"
)

// TestWhatHasTwoReadingsIsRefused has responses that cannot be judged: with a judge that is closed nothing of them reaches the client, with open ones all does.
func TestWhatHasTwoReadingsIsRefused(t *testing.T) {
	t.Parallel()
	streams := map[string]string{
		"no JSON":             `oops sk-secret1`,
		"a string":            `"sk-secret1"`,
		"an array":            `[{"choices":"sk-secret1"}]`,
		"two objects":         `{"choices":[]}{"choices":"sk-secret1"}`,
		"choices twice":       `{"choices":[],"choices":[{"delta":{"content":"sk-secret1"}}]}`,
		"choices in capitals": `{"Choices":[{"delta":{"content":"sk-secret1"}}]}`,
		"choices, escaped":    `{"choi\u0063es":[{"delta":{"content":"sk-secret1"}}]}`,
		"choices, an object":  `{"choices":{"0":{"delta":{"content":"sk-secret1"}}}}`,
		"a choice, a string":  `{"choices":["sk-secret1"]}`,
		"delta twice":         `{"choices":[{"delta":{},"delta":{"content":"sk-secret1"}}]}`,
		"content twice":       `{"choices":[{"delta":{"content":"","content":"sk-secret1"}}]}`,
		"content, an object":  `{"choices":[{"delta":{"content":{"text":"sk-secret1"}}}]}`,
		"content, a number":   `{"choices":[{"delta":{"content":1,"x":"sk-secret1"}}]}`,
		"parts of strings":    `{"choices":[{"delta":{"content":["sk-secret1"]}}]}`,
		"deep parts":          `{"choices":[{"delta":{"content":[{"thinking":[{"thinking":[{"text":"sk-secret1"}]}]}]}}]}`,
		"two reasonings":      `{"choices":[{"delta":{"reasoning":"a","reasoning_content":"sk-secret1"}}]}`,
		"arguments, object":   `{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":{"k":"sk-secret1"}}}]}}]}`,
		"index, a fraction":   `{"choices":[{"index":0.5,"delta":{"content":"sk-secret1"}}]}`,
		"index below 0":       `{"choices":[{"index":-1,"delta":{"content":"sk-secret1"}}]}`,
		"finish, a number":    `{"choices":[{"finish_reason":1,"delta":{"content":"sk-secret1"}}]}`,
	}
	for name, data := range streams {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, r := range []*record{
				chatStream(delta(0, `"content":"a "`, "null"), data, delta(0, `"content":"b"`, `"stop"`), "[DONE]"),
				chatBody(strings.ReplaceAll(data, `"delta"`, `"message"`)),
			} {
				checkUnreadable(t, r, "sk-secret1")
			}
		})
	}
	items := map[string]string{
		"item twice":        `{"type":"response.output_item.done","item":{},"item":{"content":[{"type":"output_text","text":"sk-secret1"}]}}`,
		"item, a string":    `{"type":"response.output_item.done","item":"sk-secret1"}`,
		"content, a string": `{"type":"response.output_item.done","item":{"content":"sk-secret1"}}`,
		"part, a string":    `{"type":"response.content_part.done","part":"sk-secret1"}`,
		"delta, an object":  `{"type":"response.output_text.delta","delta":{"text":"sk-secret1"}}`,
		"output, an object": `{"type":"response.completed","response":{"output":{"text":"sk-secret1"}}}`,
		"text twice":        `{"type":"response.output_text.done","text":"","text":"sk-secret1"}`,
		"index, a string":   `{"type":"response.output_text.done","output_index":"0","text":"sk-secret1"}`,
	}
	for name, data := range items {
		t.Run("responses: "+name, func(t *testing.T) {
			t.Parallel()
			checkUnreadable(t, &record{operation: responsesOp, media: "text/event-stream", body: sse(data)}, "sk-secret1")
		})
	}
}

// checkUnreadable plays a response that has a secret where it cannot be judged.
func checkUnreadable(t *testing.T, r *record, secret string) {
	t.Helper()
	open := judging("open", func(*abi.Event) *abi.Verdict { return nil })
	open.Open = true
	got := r.play(t, r.options(open), r.whole())
	if e, ok := errors.AsType[*UnreadableError](got.err); !ok || got.body != string(r.body) || got.denied != nil {
		t.Errorf("open: error %v (%v), got %+v", got.err, e, got)
	}
	closed := r.play(t, r.options(open, judging("closed", func(*abi.Event) *abi.Verdict { return nil })), r.whole())
	if _, ok := errors.AsType[*UnreadableError](closed.err); !ok || strings.Contains(fmt.Sprint(closed.body, closed.err), secret) {
		t.Errorf("closed: got %+v", closed)
	}
	if closed.denied == nil || !strings.Contains(closed.body, `"code":"response_unreadable"`) || !r.stream() && closed.status != 502 {
		t.Errorf("closed: got %+v", closed)
	}
}

func TestLargeResponsesAreRefused(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 900)
	small := delta(0, `"content":"a"`, "null")
	tests := map[string]*record{
		"event":            chatStream(small, delta(0, `"content":"`+big+big+`"`, "null"), "[DONE]"),
		"line without end": {operation: chatOp, media: "text/event-stream", body: append(sse(small), "data: "+big+big...)},
		"many lines":       {operation: chatOp, media: "text/event-stream", body: append(sse(small), strings.Repeat(": "+big[:90]+"\n", 20)+"\n"...)},
		"body":             chatBody(`{"choices":[{"message":{"content":"` + big + big + `"}}]}`),
		"texts": {operation: responsesOp, media: "text/event-stream", body: bytes.Repeat(sse(
			`{"type":"response.output_text.delta","delta":"`+big[:400]+`"}`), 8)},
	}
	for name, r := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			open := judging("open", func(*abi.Event) *abi.Verdict { return nil })
			o := r.options(open)
			o.Limit = 1000
			var first played
			cuts(r.body, func(cut string, chunks [][]byte) {
				got := r.play(t, o, chunks)
				if _, ok := errors.AsType[*UnreadableError](got.err); !ok && got.denied == nil {
					t.Fatalf("%s: %+v", cut, got)
				}
				if !strings.Contains(got.body, "response_unreadable") || strings.Contains(got.body, big) || strings.Count(got.body, big[:400]) > 5 {
					t.Fatalf("%s: %s", cut, got.body)
				}
				if first.body == "" {
					first = got
				}
				if diff := cmp.Diff(got.body, first.body); diff != "" {
					t.Fatalf("%s: the output depends on the cuts:\n%s", cut, diff)
				}
				o := o
				open.Open = true
				o.Judges = []Judge{open}
				if got := r.play(t, o, chunks); got.body != string(r.body) {
					t.Fatalf("%s, open: got %q", cut, got.body)
				}
			})
		})
	}
}

func TestManyChoicesAreRefused(t *testing.T) {
	t.Parallel()
	var data []string
	for i := range maxChoices + 1 {
		data = append(data, delta(i, `"content":"a"`, "null"))
	}
	r := chatStream(data...)
	got := r.play(t, r.options(judging("j", func(*abi.Event) *abi.Verdict { return nil })), r.whole())
	if got.denied == nil || got.denied.Code != codeUnreadable {
		t.Errorf("got %+v", got.denied)
	}
}

// TestResponsesWithoutTextPass has responses of which head, usage and end are all that judges see.
func TestResponsesWithoutTextPass(t *testing.T) {
	t.Parallel()
	large := `{"data":[{"embedding":"` + strings.Repeat("AAAA", 5000) + `"}],"usage" : {"prompt_tokens":3,"total_tokens":3}}`
	tests := map[string]struct {
		operation string
		status    int
		headers   []abi.Header
		body      string
		open      bool
		want      []string
	}{
		"provider's error":  {chatOp, 429, nil, `{"error":{"message":"slow down"}}`, false, []string{"end upstream_error"}},
		"embeddings, large": {"embeddings", 200, nil, large, false, []string{"usage {Input:3 Cached:0 Output:0 Reasoning:0}", "end ok"}},
		"unknown, open":     {"images", 200, nil, `{"data":[{"b64_json":"x"}]}`, true, []string{"end ok"}},
		"nothing":           {chatOp, 200, nil, "", false, []string{"end ok"}},
		"an error in it":    {chatOp, 200, nil, `{"error":{"message":"no"}}`, false, []string{"end upstream_error"}},
		"compressed, open":  {chatOp, 200, []abi.Header{{Name: "content-encoding", Value: "gzip"}}, "\x1f\x8b", true, []string{"end ok"}},
		"identity":          {chatOp, 200, []abi.Header{{Name: "content-encoding", Value: "identity"}}, `{}`, false, []string{"end ok"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cuts([]byte(tt.body[:min(len(tt.body), 200)]), func(cut string, chunks [][]byte) {
				w := &watcher{t: t}
				j := w.judge("w")
				j.Open = tt.open
				a := New(Options{Common: abi.Event{Operation: tt.operation}, Judges: []Judge{j}, Limit: 10_000})
				if _, out, err := a.Head(tt.status, tt.headers); out.End || (err != nil) != tt.open {
					t.Fatal(out, err)
				}
				var got []byte
				for i, c := range append(chunks, []byte(tt.body[min(len(tt.body), 200):])) {
					out, err := a.Write(c, i == len(chunks))
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, out.Body...)
				}
				if string(got) != tt.body {
					t.Fatalf("%s: got %q", cut, got)
				}
				if diff := cmp.Diff(w.seen[1:], tt.want); diff != "" {
					t.Fatalf("%s: events (-got +want):\n%s", cut, diff)
				}
			})
		})
	}
}

func TestUnreadableResponsesAreRefusedByTheirHead(t *testing.T) {
	t.Parallel()
	for operation, encoding := range map[string]string{responsesOp: "br", "images": "identity", "": ""} {
		w := &watcher{t: t}
		a := New(Options{Common: abi.Event{Operation: operation}, Judges: []Judge{w.judge("w")}})
		_, out, err := a.Head(200, []abi.Header{{Name: "content-encoding", Value: encoding}})
		if _, ok := errors.AsType[*UnreadableError](err); !ok || out.Status != 502 || !out.End {
			t.Errorf("%s: got %+v, %v", operation, out, err)
		}
		if last := w.seen[len(w.seen)-1]; last != "end denied" {
			t.Errorf("%s: the last event is %s", operation, last)
		}
	}
}

// TestWholeTextsThatDifferGiveWay has a stream of responses that says other things as a whole than piece by piece.
func TestWholeTextsThatDifferGiveWay(t *testing.T) {
	t.Parallel()
	piece := `{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"abc"}`
	done := func(text string) string {
		return `{"type":"response.output_text.done","output_index":0,"content_index":0,"text":"` + text + `"}`
	}
	for text, want := range map[string]string{"abc": "abc", "abd": "abc", "ab": "abc", "": "abc", "abcd": "abcd", "abc sk-12345": "abc [REDACTED]", "sk-12345": "abc"} {
		r := record{operation: responsesOp, media: "text/event-stream", body: sse(piece, done(text))}
		got := r.play(t, r.options(redactor()), r.whole())
		c, err := readStream(got.body)
		if err != nil || got.err != nil {
			t.Fatal(err, got.err)
		}
		if told := c.told["0.0"]; told != want {
			t.Errorf("%q is told as %q, want %q", text, told, want)
		}
		open := judging("open", func(*abi.Event) *abi.Verdict { return nil })
		open.Open = true
		if got := r.play(t, r.options(open), r.whole()); got.body != string(r.body) {
			t.Errorf("%q does not pass where all judges are open and none edits: %s", text, got.body)
		}
	}
}
