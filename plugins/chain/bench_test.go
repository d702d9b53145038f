// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-proxy/weir/plugins/host"
)

// BenchmarkChain tells what plugins in Rust cost a chat with a prompt of 4 KB, from the body to the ruling. The best of many runs is what a busy machine changes least.
func BenchmarkChain(b *testing.B) {
	wasm, err := os.ReadFile("../host/testdata/guard-rust.wasm")
	if err != nil {
		b.Fatal(err)
	}
	h, err := host.New(b.Context(), host.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := h.Close(b.Context()); err != nil {
			b.Error(err)
		}
	})
	q := question(`{"model":"m","messages":[{"role":"user","content":"` +
		strings.Repeat("A weir is a low dam that regulates a river and measures its flow. ", 62) + `"}]}`)
	metrics := NewMetrics(prometheus.NewRegistry())
	for _, n := range []int{1, 5} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			var links []Link
			for place := range n {
				p, err := h.Load(b.Context(), host.Source{Name: "guard", Wasm: wasm, Config: []byte("dragon\nunicorn")})
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() {
					if err := p.Close(); err != nil {
						b.Error(err)
					}
				})
				links = append(links, Link{ID: int64(place), Name: "guard", Plugin: p, Place: place})
			}
			table := NewTable(links, Options{Metrics: metrics})
			const batch = 10
			best := time.Hour
			for b.Loop() {
				began := time.Now()
				for range batch {
					if _, denial := table.Judge(q.Tenant, q.Key).Request(q); denial != nil {
						b.Fatal(denial)
					}
				}
				best = min(best, time.Since(began)/batch)
			}
			b.ReportMetric(float64(best.Nanoseconds())/1e3, "best-µs")
		})
	}
}
