// SPDX-License-Identifier: Apache-2.0

package jsonscan

import (
	"encoding/base64"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
)

func chat(content string) []byte {
	q, _ := json.Marshal(content)
	return []byte(`{"model":"gpt-4o","messages":[{"role":"system","content":"You are terse."},{"role":"user","content":` +
		string(q) + `}],"temperature":0.7,"stream":true}`)
}

func BenchmarkScan(b *testing.B) {
	image := make([]byte, 3<<20)
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range image {
		image[i] = byte(rng.Uint32())
	}
	prose := "The weir keeps the level of the river, \"more or less\", and measures it.\n"
	for _, bb := range []struct {
		name string
		text []byte
	}{
		{"chat-1KB", chat(strings.Repeat(prose, 12))},
		{"chat-72KB", chat(strings.Repeat(prose, 970))},
		{"image-4MB", chat("data:image/png;base64," + base64.StdEncoding.EncodeToString(image))},
		{"chinese-64KB", chat(strings.Repeat("堰保持着河流的水位，并测量它的流量。", 1200))},
		{"arrays-1MB", []byte(`{"a":[` + strings.Repeat("[],", 350_000) + `[]]}`)},
		{"numbers-1MB", []byte(`{"input":[` + strings.Repeat("1234,", 200_000) + `1]}`)},
		{"toolong-10MB", []byte(`{"a":` + strings.Repeat("[", 10<<20))},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.SetBytes(int64(len(bb.text)))
			b.ReportAllocs()
			var o Object
			for b.Loop() {
				_ = testKeys.Scan(bb.text, &o)
			}
		})
	}
}
