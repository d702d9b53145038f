// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/plugins/abi"
)

// FuzzWrite gives any bytes as a response, cut by the bytes themselves. Without edits and with open judges all of it comes out; with a redactor
// that is closed, the cuts make no difference to output and events.
func FuzzWrite(f *testing.F) {
	for i, r := range records(f) {
		f.Add(r.body, uint8(i%3), r.stream(), uint16(i*37))
	}
	f.Add([]byte("data: {\"choices\":[{\"delta\":{\"content\":[{\"thinking\":[{\"text\":\"a\"}]}]}}]}\r\r\n\n\rdata\r\n:"), uint8(0), true, uint16(3))
	operations := []string{chatOp, completionsOp, responsesOp}
	f.Fuzz(func(t *testing.T, body []byte, operation uint8, stream bool, cut uint16) {
		r := record{operation: operations[int(operation)%len(operations)], media: "application/json", body: body}
		if stream {
			r.media = "text/event-stream"
		}
		at := 0
		if len(body) > 0 {
			at = int(cut) % len(body)
		}
		chunks := [][]byte{body[:at], body[at:]}
		bytewise := make([][]byte, 0, len(body)+1)
		for i := range body {
			bytewise = append(bytewise, body[i:i+1])
		}
		bytewise = append(bytewise, nil)

		o := r.options(Judge{Name: "open", Open: true, Event: func(*abi.Event) (*abi.Verdict, error) { return nil, nil }})
		o.Limit = 4096
		for _, c := range [][][]byte{chunks, bytewise} {
			if got := r.play(t, o, c); got.body != string(body) {
				t.Fatalf("what nobody edits is changed (-got +want):\n%s", cmp.Diff(got.body, string(body)))
			}
		}
		var want played
		var events []string
		for i, c := range [][][]byte{r.whole(), chunks, bytewise} {
			w := &watcher{t: t}
			o := r.options(redactor(), w.judge("w"), dropping("send_mail"))
			o.Limit = 4096
			o.StripUsage = true
			got := r.play(t, o, c)
			if i == 0 {
				want, events = got, w.seen
				continue
			}
			if got.body != want.body || got.status != want.status {
				t.Fatalf("the output depends on the cuts (-got +want):\n%s", cmp.Diff(got.body, want.body))
			}
			if diff := cmp.Diff(w.seen, events); diff != "" {
				t.Fatalf("the events depend on the cuts (-got +want):\n%s", diff)
			}
		}
	})
}

// TestUneditedEventsAllocateTheirText holds a stream that nobody edits to one allocation for each event with text, the text itself, and none for others.
func TestUneditedEventsAllocateTheirText(t *testing.T) {
	none := Judge{Name: "j", Event: func(*abi.Event) (*abi.Verdict, error) { return nil, nil }}
	responses := `{"type":"response.output_text.delta","sequence_number":4,"item_id":"i","output_index":0,"content_index":0,"delta":"word","logprobs":[]}`
	tests := map[string]struct {
		r    *record
		want float64
	}{
		"text":        {chatStream(delta(0, `"content":"word"`, "null")), 1},
		"empty":       {chatStream(delta(0, `"content":""`, "null")), 0},
		"role":        {chatStream(delta(0, `"role":"assistant","content":null`, "null")), 0},
		"comment":     {&record{operation: chatOp, media: "text/event-stream", body: []byte(": ping\n\n")}, 0},
		"arguments":   {chatStream(delta(0, `"tool_calls":[{"index":0,"function":{"arguments":"word"}}]`, "null")), 1},
		"usage":       {chatStream(`{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}`), 0},
		"responses":   {&record{operation: responsesOp, media: "text/event-stream", body: sse(responses)}, 1},
		"completions": {&record{operation: completionsOp, media: "text/event-stream", body: sse(`{"choices":[{"index":0,"text":"word"}]}`)}, 1},
	}
	for name, tt := range tests {
		a := New(tt.r.options(none, none))
		if _, _, err := a.Head(200, tt.r.headers()); err != nil {
			t.Fatal(err)
		}
		write := func() {
			out, err := a.Write(tt.r.body, false)
			if err != nil || !bytes.Equal(out.Body, tt.r.body) {
				t.Fatal(string(out.Body), err)
			}
		}
		for range 100 { // buffers grow
			write()
		}
		if got := testing.AllocsPerRun(500, write); got > tt.want {
			t.Errorf("%s: %v allocations, want %v", name, got, tt.want)
		}
	}
}

// BenchmarkStream is a stream of 200 events of chat, each in a chunk of its own: unedited, and redacted by a judge that holds back.
func BenchmarkStream(b *testing.B) {
	var chunks [][]byte
	size := 0
	for range 200 {
		chunks = append(chunks, sse(`{"id":"chatcmpl-BxQf0pTz3K","object":"chat.completion.chunk","created":1763836800,"model":"gpt-4o-2024-08-06","service_tier":"default",`+
			`"system_fingerprint":"fp_f7a584cf1f","choices":[{"index":0,"delta":{"content":" words and"},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"Kq1"}`))
		size += len(chunks[0])
	}
	held := []byte("d")
	moved := &abi.Verdict{Edits: []abi.Edit{{End: 10, With: "moved word"}}, State: held}
	for name, j := range map[string]Judge{
		"unedited": {Name: "j", Event: func(*abi.Event) (*abi.Verdict, error) { return nil, nil }},
		"edited": {Name: "j", Event: func(e *abi.Event) (*abi.Verdict, error) {
			if e.Kind == abi.KindText {
				return moved, nil
			}
			return nil, nil
		}},
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				a := New(Options{Common: abi.Event{Operation: chatOp}, Judges: []Judge{j}})
				if _, _, err := a.Head(200, []abi.Header{{Name: "content-type", Value: "text/event-stream"}}); err != nil {
					b.Fatal(err)
				}
				for i, c := range chunks {
					if _, err := a.Write(c, i == len(chunks)-1); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/200, "ns/event")
		})
	}
}
