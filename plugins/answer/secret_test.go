// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRedactedStreamsAddUp reads each recorded stream before and after as a client does: every text must have become what redacting the whole of it gives, and
// whatever repeats a text must repeat that.
func TestRedactedStreamsAddUp(t *testing.T) {
	t.Parallel()
	for _, r := range records(t) {
		if !r.stream() {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			want, err := readStream(string(r.body))
			if err != nil {
				t.Fatal(err)
			}
			out := r.play(t, r.options(redactor()), r.whole())
			got, err := readStream(out.body)
			if err != nil {
				t.Fatalf("%v\n%s", err, out.body)
			}
			for _, texts := range []map[string]string{want.texts, want.told} {
				for k, s := range texts {
					texts[k] = redact(s)
				}
				maps.DeleteFunc(texts, func(k, s string) bool { return s == "" || strings.Contains(k, "details") })
			}
			for _, texts := range []map[string]string{got.texts, got.told} {
				maps.DeleteFunc(texts, func(k, s string) bool { return s == "" || strings.Contains(k, "details") })
			}
			if diff := cmp.Diff([]any{got.texts, got.told, got.done, got.err}, []any{want.texts, want.told, want.done, want.err}); diff != "" {
				t.Errorf("texts differ (-got +want):\n%s", diff)
			}
			for k, s := range got.texts {
				if told, ok := got.told[k]; ok && told != s {
					t.Errorf("text %s is %q by pieces and %q as a whole", k, s, told)
				}
			}
		})
	}
}

// teller makes a stream of pieces of a text.
type teller struct {
	operation string
	key       string // by which the client has the text
	piece     func(s string) string
	last      func(all string) string
}

func tellers() map[string]teller {
	chunk := func(member, finish string) string {
		return `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{` + member + `},"finish_reason":` + finish + "}]}\n\n"
	}
	delta := func(name string) func(string) string {
		return func(s string) string { return chunk(`"`+name+`":`+quote(s), "null") }
	}
	stop := func(string) string { return chunk("", `"stop"`) + "data: [DONE]\n\n" }
	event := func(typ, members string) string {
		return "event: " + typ + "\ndata: {\"type\":\"" + typ + `","output_index":0,"item_id":"i",` + members + "}\n\n"
	}
	item := func(all string) string {
		return `{"type":"message","content":[{"type":"output_text","text":` + quote(all) + `}]}`
	}
	return map[string]teller{
		"content":   {chatOp, "0.content", delta("content"), stop},
		"refusal":   {chatOp, "0.refusal", delta("refusal"), stop},
		"reasoning": {chatOp, "0.reasoning_content", delta("reasoning_content"), stop},
		"finish comes with text": {
			chatOp, "0.content", delta("content"), func(string) string { return chunk(`"content":"."`, `"stop"`) + "data: [DONE]\n\n" },
		},
		"no finish":     {chatOp, "0.content", delta("content"), func(string) string { return "data: [DONE]\n\n" }},
		"no end":        {chatOp, "0.content", delta("content"), func(string) string { return "" }},
		"no blank line": {chatOp, "0.content", delta("content"), func(string) string { return "data: {}\r" }},
		"arguments": {
			chatOp, "0.call.0",
			func(s string) string {
				return chunk(`"tool_calls":[{"index":0,"id":"call_1","function":{"name":"f","arguments":`+quote(s)+`}}]`, "null")
			},
			stop,
		},
		"completions": {
			completionsOp, "0.text",
			func(s string) string { return `data: {"id":"c","choices":[{"index":0,"text":` + quote(s) + "}]}\n\n" },
			func(string) string {
				return "data: {\"choices\":[{\"index\":0,\"text\":\"\",\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"
			},
		},
		"responses": {
			responsesOp, "0.0",
			func(s string) string {
				return event("response.output_text.delta", `"content_index":0,"delta":`+quote(s))
			},
			func(all string) string {
				return event("response.output_text.done", `"content_index":0,"text":`+quote(all)) +
					event("response.output_item.done", `"item":`+item(all)) +
					event("response.completed", `"response":{"output":[`+item(all)+`]}`)
			},
		},
		"responses, only at the end": {
			responsesOp, "0.0",
			func(s string) string {
				return event("response.output_text.delta", `"content_index":0,"delta":`+quote(s))
			},
			func(all string) string { return event("response.completed", `"response":{"output":[`+item(all)+`]}`) },
		},
	}
}

// TestNoCutOfATextLetsASecretThrough cuts a text in three at all places, and the bytes at random ones.
func TestNoCutOfATextLetsASecretThrough(t *testing.T) {
	t.Parallel()
	const text = "é \"sk-AbCd12\" a@b.cd\n<sk-12345>"
	var places []int
	for i := range text {
		places = append(places, i)
	}
	places = append(places, len(text))
	for name, w := range tellers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(1, 2))
			for i, a := range places {
				for _, b := range places[i:] {
					tell := w.last(text)
					want := redact(text)
					if name == "finish comes with text" {
						want = redact(text + ".")
					}
					body := w.piece(text[:a]) + w.piece(text[a:b]) + w.piece(text[b:]) + tell
					if name == "no end" {
						body = strings.TrimRight(body, "\n")
					}
					r := record{operation: w.operation, media: "text/event-stream", body: []byte(body)}
					out := r.play(t, r.options(redactor()), shred(rng, r.body))
					if out.err != nil {
						t.Fatal(out.err)
					}
					for _, s := range []string{"sk-", "AbCd", "b.cd", "12345"} {
						if strings.Contains(out.body, s) {
							t.Fatalf("cut at %d and %d, %q is let through:\n%s", a, b, s, out.body)
						}
					}
					c, err := readStream(out.body)
					if err != nil {
						t.Fatal(err)
					}
					if got := c.texts[w.key]; got != want {
						t.Fatalf("cut at %d and %d, the text is %q, want %q:\n%s", a, b, got, want, out.body)
					}
					if told, ok := c.told[w.key]; ok && told != want {
						t.Fatalf("cut at %d and %d, the text is told as %q, want %q:\n%s", a, b, told, want, out.body)
					}
				}
			}
		})
	}
}

// shred cuts bytes at random places.
func shred(rng *rand.Rand, body []byte) [][]byte {
	var cut []int
	for range rng.IntN(20) {
		cut = append(cut, rng.IntN(len(body)+1))
	}
	slices.Sort(cut)
	var out [][]byte
	at := 0
	for _, c := range append(cut, len(body)) {
		out = append(out, body[at:c])
		at = c
	}
	return out
}

// TestRedactionOfBodiesAddsUp does the same for responses that are no streams.
func TestRedactionOfBodiesAddsUp(t *testing.T) {
	t.Parallel()
	for _, r := range records(t) {
		if r.stream() || r.operation == "embeddings" {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			read := func(body string) string {
				typ := ""
				if r.operation == responsesOp {
					typ, body = `"type":"x","response":`, strings.TrimSpace(body)+"}"
				} else {
					body = strings.TrimSpace(body)[1:]
				}
				c, err := readStream("data: {" + typ + strings.ReplaceAll(body, "\n", " "))
				if err != nil {
					t.Fatal(err)
				}
				return fmt.Sprint(c.texts, c.told)
			}
			out := r.play(t, r.options(redactor()), r.whole())
			if got, want := read(out.body), redact(read(string(r.body))); got != want {
				t.Errorf("texts are %s, want %s", got, want)
			}
			if out.status != 0 {
				t.Errorf("status %d takes the place of the provider's", out.status)
			}
		})
	}
}
