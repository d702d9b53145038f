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
	touched := make([]Code, 0, 200)
	for i := range 200 { // each store is to a page that was not touched before, which the kernel has to copy
		touched = append(touched, Get(2), I32Const(1), Code(U32([]byte{0x36, 2}, i*4096))) // i32.store with an offset
	}
	return map[string]Code{
		"nobody": nil,
		"touch": Seq(I32Const(510), MemoryGrow(), Drop(),
			Loop(Seq(touched...), Get(2), I32Const(200*4096), Add(), I32Const(last&^0xfffff), Op(0x71), Set(2), Br(0))),
		"spin": Loop(Br(0)),
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

// BenchmarkSlice tells what a slice costs a guest that touches a page of memory with each store, the dearest thing that a little fuel buys: the collector waits so long for
// it at most, if the machine has nothing else to do. It is time of the processor, with everything that a call costs besides.
func BenchmarkSlice(b *testing.B) {
	const pages, each = 7800, 200
	stores := make([]Code, 0, each)
	for i := range each {
		stores = append(stores, Get(2), I32Const(1), Code(U32([]byte{0x36, 2}, i*4096)))
	}
	m := builder(nil)
	m.Data(0, []byte{1})
	hook(m, exportRequest, Types{I32},
		Loop(Seq(stores...), Get(2), I32Const(each*4096), Add(), Tee(2), I32Const(pages*4096), Op(0x49), BrIf(0)), goOn())
	hook(m, exportConfigure, nil, I32Const(510), MemoryGrow(), Drop(), goOn())
	p := load(b, newHost(b, Options{}), m.Bytes(), func(s *Source) { s.Config = []byte("x") })
	var r Result
	n, before := 0, cpu(b)
	for b.Loop() {
		if r = p.Request(b.Context(), request(), Open); r.Failure != nil {
			b.Fatal(r.Failure)
		}
		n++
	}
	spent := float64(cpu(b)-before) / float64(n)
	b.ReportMetric(spent/pages, "cpu-ns/page")
	b.ReportMetric(spent/float64(r.Fuel)*slice/1e3, "cpu-µs/slice")
	b.ReportMetric(float64(r.Fuel), "fuel/op")
}

// What a guest does between two slices nobody can end, so there have to be many of them, whatever it does.
func TestHostLooksAfterGuestsOften(t *testing.T) {
	t.Parallel()
	const fuel = 10_000_000
	for name, code := range greedy() {
		if code == nil {
			continue
		}
		looks := 0
		still := time.Unix(1_700_000_000, 0)
		h := newHost(t, Options{Clock: func() time.Time { looks++; return still }})
		m := builder(nil)
		hook(m, exportRequest, Types{I32}, code, goOn())
		p := load(t, h, m.Bytes(), func(s *Source) { s.Limits.Fuel, s.Limits.FuelPerByte = fuel, 1 })
		looks = 0
		r := p.Request(t.Context(), request(), Open)
		// A slice ends with the block or the piece of a fill in which it is used up.
		if least := fuel / (2 * slice * looksEvery); r.Failure == nil || r.Failure.Reason != OutOfFuel || looks < least {
			t.Errorf("%s: %d looks, at least %d: %v", name, looks, least, r.Failure)
		}
	}
	if slice > 4<<10 {
		t.Errorf("slices of %d: a page of memory for each 5 takes some 2.7 µs, and the collector is to wait no longer than 5 ms", slice)
	}
}
