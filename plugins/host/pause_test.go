// SPDX-License-Identifier: Apache-2.0

package host

import (
	"math"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	. "github.com/weir-proxy/weir/plugins/wasmtest" //nolint:revive // instructions read as such
)

// greedy are guests that take as long as they can between two looks of the host.
func greedy() map[string]Code {
	const last = 32<<20 - 8
	chased := make([]Code, 0, 200)
	for range 100 { // each load gives the address of the next, all over 32 MiB
		chased = append(chased, I32Load(), I32Const(last&^3), Op(0x71))
	}
	return map[string]Code{
		"nobody": nil,
		"spin":   Loop(Br(0)),
		"store": Seq(I32Const(510), MemoryGrow(), Drop(),
			Loop(Get(2), Get(2), I32Store(), Get(2), I32Const(4096+64), Add(), I32Const(last&^3), Op(0x71), Set(2), Br(0))),
		"chase": Seq(I32Const(510), MemoryGrow(), Drop(),
			Loop(Get(2), Get(2), I32Const(1103515245), Op(0x6c), I32Const(12345), Add(), I32Const(last&^3), Op(0x71), I32Store(),
				Get(2), I32Const(4), Add(), Tee(2), I32Const(16<<20), Op(0x49), BrIf(0)),
			Loop(Get(2), Seq(chased...), Set(2), Br(0))),
		"fill": Seq(I32Const(510), MemoryGrow(), Drop(), Loop(I32Const(0), Get(2), I32Const(last), MemoryFill(), Br(0))),
	}
}

// BenchmarkCollectorWaits tells how long the garbage collector had to wait for a guest that does not want to stop: what it took to stop the world. "nobody" is without a guest; on a busy
// machine the longest is what the operating system took the processor away for.
func BenchmarkCollectorWaits(b *testing.B) {
	for name, code := range greedy() {
		b.Run(name, func(b *testing.B) {
			m := builder(nil)
			hook(m, exportRequest, Types{I32}, code, goOn())
			p := load(b, newHost(b, Options{}), m.Bytes(), func(s *Source) { s.Limits.Fuel = 1 << 40; s.Limits.Time = 2 * time.Second })
			before := stops()
			done := make(chan struct{})
			go func() {
				defer close(done)
				for b.Loop() {
					if code == nil {
						<-time.After(2 * time.Second)
						continue
					}
					p.Request(b.Context(), request(), Open)
				}
			}()
			for running := true; running; {
				runtime.GC()
				select {
				case <-done:
					running = false
				default:
				}
			}
			for _, q := range []struct {
				share float64
				unit  string
			}{{0.5, "median-µs"}, {0.99, "p99-µs"}, {1, "longest-µs"}} {
				b.ReportMetric(quantile(before, q.share)*1e6, q.unit)
			}
		})
	}
}

func stops() *metrics.Float64Histogram {
	s := []metrics.Sample{{Name: "/sched/pauses/stopping/gc:seconds"}}
	metrics.Read(s)
	h := s[0].Value.Float64Histogram()
	return &metrics.Float64Histogram{Counts: append([]uint64(nil), h.Counts...), Buckets: h.Buckets}
}

// quantile returns what a share of the stops since before took at most, in seconds.
func quantile(before *metrics.Float64Histogram, share float64) float64 {
	now := stops()
	total := uint64(0)
	for i := range now.Counts {
		now.Counts[i] -= before.Counts[i]
		total += now.Counts[i]
	}
	seen := uint64(0)
	for i, n := range now.Counts {
		if seen += n; n > 0 && float64(seen) >= share*float64(total) {
			return min(now.Buckets[i+1], math.MaxFloat64)
		}
	}
	return 0
}
