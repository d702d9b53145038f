// SPDX-License-Identifier: Apache-2.0

package extproc

import (
	"strings"
	"testing"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/protobuf/proto"

	"github.com/weir-proxy/weir/policy"
)

func chatBody(bytes int, stream string) []byte {
	const line = `The weir keeps the level of the river, \"more or less\", and measures it.\n`
	return []byte(`{"model":"gpt-4o","messages":[{"role":"user","content":"` + strings.Repeat(line, bytes/len(line)) +
		`"}],"temperature":0.7` + stream + `}`)
}

func benchEngine(b *testing.B) *policy.Engine { //nolint:thelper // the case itself, not a helper of it
	e := policy.New(policy.Options{Health: &policy.Cooldowns{}})
	e.SetSnapshot(testSnapshot(b))
	return e
}

// BenchmarkExchange is a whole decision from the bytes of Envoy's messages to the bytes of the answers, without gRPC.
func BenchmarkExchange(b *testing.B) {
	server := New(Options{Engine: benchEngine(b)})
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
			headers, body := chat(b, "sk-good", bb.body)
			var wire [2][]byte
			for i, m := range []*extprocv3.ProcessingRequest{headers, body} {
				var err error
				if wire[i], err = proto.Marshal(m); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				x := session{server: server}
				for _, w := range wire {
					m := &extprocv3.ProcessingRequest{}
					if err := proto.Unmarshal(w, m); err != nil {
						b.Fatal(err)
					}
					answer, _ := server.timed(b.Context(), &x, m)
					if _, err := proto.Marshal(answer); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkStream is the same through gRPC in this process, client included.
func BenchmarkStream(b *testing.B) {
	client := serve(b, Options{Engine: benchEngine(b)})
	headers, body := chat(b, "sk-good", chatBody(1000, ""))
	b.ReportAllocs()
	for b.Loop() {
		exchange(b, client, headers, body)
	}
}
