// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"
)

func chatBody(bytes int, stream string) []byte {
	const line = `The weir keeps the level of the river, \"more or less\", and measures it.\n`
	return []byte(`{"model":"gpt-4o","messages":[{"role":"user","content":"` + strings.Repeat(line, bytes/len(line)) +
		`"}],"temperature":0.7` + stream + `}`)
}

func decide(tb testing.TB, e *Engine, h *Head, body []byte) { //nolint:thelper // the case itself, not a helper of it
	x, _, denial := e.Begin(h)
	if denial == nil {
		_, denial = x.Admit(body)
	}
	if denial != nil {
		tb.Fatal(denial)
	}
}

// The bounds are what it takes: the exchange, the admission, its choices, the model's name and the ticket (three); for a stream
// also the body that is forwarded and the member that is added.
func TestDecisionAllocatesLittle(t *testing.T) {
	e := newEngine(t, func(o *Options) { o.Health = &Cooldowns{} })
	h := post("/v1/chat/completions")
	for _, tt := range []struct {
		name string
		body []byte
		most float64
	}{
		{"chat", chatBody(1000, ""), 7},
		{"stream", chatBody(1000, `,"stream":true`), 9},
		{"refusal", []byte(`{"model":`), 12},
	} {
		got := testing.AllocsPerRun(100, func() {
			x, _, _ := e.Begin(h)
			x.Admit(tt.body) //nolint:errcheck // only its cost counts
		})
		if got > tt.most {
			t.Errorf("%s: %v allocations, want at most %v", tt.name, got, tt.most)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	e := newEngine(b, func(o *Options) { o.Random, o.Health = nil, &Cooldowns{} })
	h := post("/v1/chat/completions")
	for _, bb := range []struct {
		name string
		body []byte
	}{
		{"json-1KB", chatBody(1000, "")},
		{"stream-1KB", chatBody(1000, `,"stream":true`)},
		{"json-72KB", chatBody(72_000, "")},
		{"stream-72KB", chatBody(72_000, `,"stream":true`)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				decide(b, e, h, bb.body)
			}
		})
	}
}
