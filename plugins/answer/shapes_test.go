// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/plugins/abi"
)

// dropping drops the calls of a function.
func dropping(name string) Judge {
	return judging("dropping", func(e *abi.Event) *abi.Verdict {
		if e.Kind == abi.KindToolCall && e.Tool.Name == name {
			return &abi.Verdict{Action: abi.Drop}
		}
		return nil
	})
}

func TestACallWhoseFirstEventIsDroppedIsGone(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"chat_tools.sse", "responses.sse"} {
		for _, r := range records(t) {
			if r.name != name {
				continue
			}
			out := r.play(t, r.options(dropping("send_mail")), r.whole())
			c, err := readStream(out.body)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(out.body, "send_mail") || strings.Contains(fmt.Sprint(c.texts), "example.org\\") {
				t.Errorf("%s: the call is there:\n%s", name, out.body)
			}
			key := "0.call.0"
			if r.operation == responsesOp {
				key = "2.args"
				if c.told[key] != `{"city":"Oslo"}` || !strings.Contains(out.body, `"output_index":2`) || strings.Contains(out.body, `"output_index":3`) {
					t.Errorf("%s: the call behind it is told as %q", name, c.told[key])
				}
			} else if !strings.Contains(out.body, `"finish_reason":"tool_calls"`) {
				t.Errorf("%s: no end:\n%s", name, out.body)
			}
			if got := c.texts[key]; got != `{"city":"Oslo"}` {
				t.Errorf("%s: the call behind it has the arguments %q:\n%s", name, got, out.body)
			}
		}
	}
}

func TestCallsInABodyAreTakenOutOfTheArray(t *testing.T) {
	t.Parallel()
	forms := map[string]struct{ call, body string }{
		chatOp: {
			`{"id":"call_%d","type":"function","function":{"name":"%s","arguments":"{}"}}`,
			`{"choices":[{"message":{"content":null,"tool_calls":[ %s ]},"finish_reason":"tool_calls"}]}`,
		},
		responsesOp: {`{"type":"function_call","call_id":"call_%d","name":"%s","arguments":"{}"}`, `{"output":[ %s ],"usage":null}`},
	}
	for op, f := range forms {
		for _, order := range [][]string{{"bad"}, {"bad", "good"}, {"good", "bad"}, {"bad", "good", "bad", "bad", "fine", "bad"}, {"bad", "bad"}} {
			var all, kept []string
			for i, n := range order {
				all = append(all, fmt.Sprintf(f.call, i, n))
				if n != "bad" {
					kept = append(kept, all[i])
				}
			}
			r := record{operation: op, media: "application/json", body: fmt.Appendf(nil, f.body, strings.Join(all, ", "))}
			got := r.play(t, r.options(dropping("bad")), r.whole())
			if want := fmt.Sprintf(f.body, strings.Join(kept, ", ")); got.body != want || got.err != nil {
				t.Errorf("%s %v: got %s, want %s (%v)", op, order, got.body, want, got.err)
			}
		}
	}
}

func TestUsageThatTheClientDidNotAskForIsTakenOut(t *testing.T) {
	t.Parallel()
	for _, r := range records(t) {
		if !r.stream() || r.operation == responsesOp {
			continue
		}
		w := &watcher{t: t}
		o := r.options(w.judge("w"))
		o.StripUsage = true
		var want strings.Builder
		for part := range strings.SplitAfterSeq(string(r.body), "\n\n") {
			if !strings.Contains(part, `"choices":[],"usage":{`) {
				want.WriteString(part)
			}
		}
		if r.name == "completions.sse" { // its lines end with CRLF
			want.Reset()
			for part := range strings.SplitAfterSeq(string(r.body), "\r\n\r\n") {
				if !strings.Contains(part, `"choices":[],"usage":{`) {
					want.WriteString(part)
				}
			}
		}
		cuts(r.body, func(name string, chunks [][]byte) {
			w.seen, w.last = nil, 0
			if got := r.play(t, o, chunks); got.body != want.String() {
				t.Fatalf("%s, %s (-got +want):\n%s", r.name, name, cmp.Diff(got.body, want.String()))
			}
		})
		if strings.Contains(string(r.body), `_tokens":`) && !strings.Contains(strings.Join(w.seen, "\n"), "\nusage ") {
			t.Errorf("%s: the judges do not see it: %q", r.name, w.seen)
		}
	}
}

func TestTextsAreAddedWhereTheChoiceEnds(t *testing.T) {
	t.Parallel()
	footer := judging("footer", func(e *abi.Event) *abi.Verdict {
		if e.Kind == abi.KindFinish && e.Reason != "" {
			return edit(0, 0, "\"é\"")
		}
		return nil
	})
	const head = `{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{`
	tests := map[string]struct {
		r    *record
		want string
	}{
		"stream": {
			chatStream(delta(0, `"content":"a"`, "null"), delta(0, ``, `"stop"`), "[DONE]"),
			string(sse(delta(0, `"content":"a"`, "null"), head+`"content":"\"é\""},"logprobs":null,"finish_reason":null}]}`, delta(0, ``, `"stop"`), "[DONE]")),
		},
		"stream, empty text with the end": {
			chatStream(delta(0, `"content":""`, `"stop"`)),
			string(sse(head+`"content":"\"é\""},"logprobs":null,"finish_reason":null}]}`, delta(0, `"content":""`, `"stop"`))),
		},
		"stream, text with the end": {
			chatStream(delta(0, `"content":"a"`, `"stop"`)),
			string(sse(delta(0, `"content":"a\"é\""`, `"stop"`))),
		},
		"body": {
			chatBody(`{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}`),
			`{"choices":[{"message":{"content":"a\"é\""},"finish_reason":"stop"}]}`,
		},
		"body, null": {
			chatBody(`{"choices":[{"message":{"content":null},"finish_reason":"stop"}]}`),
			`{"choices":[{"message":{"content":"\"é\""},"finish_reason":"stop"}]}`,
		},
		"body, nothing": {
			chatBody(`{"choices":[{"message":{"role":"assistant"},"finish_reason":"stop"}]}`),
			`{"choices":[{"message":{"role":"assistant","content":"\"é\""},"finish_reason":"stop"}]}`,
		},
		"responses": {
			&record{operation: responsesOp, media: "application/json", body: []byte(`{"output":[{"type":"message","content":[{"type":"output_text","text":"a"}]}]}`)},
			`{"output":[{"type":"message","content":[{"type":"output_text","text":"a\"é\""}]}]}`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := tt.r.play(t, tt.r.options(footer), tt.r.whole())
			if diff := cmp.Diff(got.body, tt.want); diff != "" || got.err != nil {
				t.Errorf("error %v (-got +want):\n%s", got.err, diff)
			}
		})
	}
}

func TestEventsWithNothingLeftDisappear(t *testing.T) {
	t.Parallel()
	quiet := judging("quiet", func(e *abi.Event) *abi.Verdict {
		if e.Kind == abi.KindText {
			return &abi.Verdict{Action: abi.Drop}
		}
		return nil
	})
	for data, want := range map[string]string{
		delta(0, `"content":"a"`, "null"):                                                        "",
		delta(0, `"content":"a","refusal":null,"tool_calls":[]`, "null"):                         "",
		delta(0, `"role":"assistant","content":"a"`, "null"):                                     delta(0, `"role":"assistant","content":""`, "null"),
		delta(0, `"content":"a"`, `"stop"`):                                                      delta(0, `"content":""`, `"stop"`),
		`{"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"prompt_tokens":1}}`:          `{"choices":[{"index":0,"delta":{"content":""}}],"usage":{"prompt_tokens":1}}`,
		`{"choices":[{"index":0,"delta":{"content":"a"}}],"usage":null,"obfuscation":"x"}`:       "",
		`{"choices":[{"index":0,"delta":{"content":"a"},"content_filter_results":{"hate":{}}}]}`: `{"choices":[{"index":0,"delta":{"content":""},"content_filter_results":{"hate":{}}}]}`,
		`{"choices":[{"index":0,"delta":{"content":"a"},"logprobs":{"content":[{"token":"a"}]},"finish_reason":null},{"index":1,"delta":{"role":"assistant"}}]}`: `{"choices":[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":null},{"index":1,"delta":{"role":"assistant"}}]}`,
		delta(0, `"content":""`, "null"):                                delta(0, `"content":""`, "null"),
		delta(0, ``, "null"):                                            delta(0, ``, "null"),
		`{"x_groq":{"id":"r"},` + delta(0, `"content":"a"`, "null")[1:]: `{"x_groq":{"id":"r"},` + delta(0, `"content":""`, "null")[1:],
	} {
		r := chatStream(data)
		var wanted string
		if want != "" {
			wanted = string(sse(want))
		}
		if got := r.play(t, r.options(quiet), r.whole()); got.body != wanted || got.err != nil {
			t.Errorf("%s: got %q, want %q (%v)", data, got.body, wanted, got.err)
		}
	}
}
