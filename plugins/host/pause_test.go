// SPDX-License-Identifier: Apache-2.0

package host

import (
	"math"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
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

// BenchmarkCollectorWaits tells how long the garbage collector had to wait for a guest that does not want to stop (stopping: what it took to stop the world), and how long
// everything stood still in all (pause), while others ask a small plugin and make garbage. "nobody" is without the guest; on a busy machine the longest is what the operating system took the
// processor away for.
func BenchmarkCollectorWaits(b *testing.B) {
	for name, code := range greedy() {
		b.Run(name, func(b *testing.B) {
			m := builder(nil)
			hook(m, exportRequest, Types{I32}, code, goOn())
			p := load(b, newHost(b, Options{}), m.Bytes(), func(s *Source) { s.Limits.Fuel = 1 << 40; s.Limits.Time = 2 * time.Second })
			stopping, total := pauses("stopping"), pauses("total")
			done := make(chan struct{})
			var others sync.WaitGroup
			small := load(b, newHost(b, Options{}), rustGuard(b), func(s *Source) { s.Config = []byte("dragon") })
			for range runtime.GOMAXPROCS(0) {
				others.Go(func() {
					for x, kept := prompt(strings.Repeat("All work and no play. ", 200)), make([][]byte, 1000); ; {
						for i := range kept {
							kept[i] = make([]byte, 4<<10)
							if i%10 == 0 {
								small.Request(b.Context(), x, Open)
							}
							select {
							case <-done:
								return
							default:
							}
						}
					}
				})
			}
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
			others.Wait()
			for _, q := range []struct {
				share float64
				unit  string
			}{{0.5, "median-µs"}, {0.99, "p99-µs"}, {1, "longest-µs"}} {
				b.ReportMetric(quantile("stopping", stopping, q.share)*1e6, "stopping-"+q.unit)
				b.ReportMetric(quantile("total", total, q.share)*1e6, "pause-"+q.unit)
			}
		})
	}
}

// pauses are those for collections so far, by one of the two ways of counting them.
func pauses(way string) *metrics.Float64Histogram {
	s := []metrics.Sample{{Name: "/sched/pauses/" + way + "/gc:seconds"}}
	metrics.Read(s)
	h := s[0].Value.Float64Histogram()
	return &metrics.Float64Histogram{Counts: append([]uint64(nil), h.Counts...), Buckets: h.Buckets}
}

// quantile returns what a share of the pauses since before took at most, in seconds.
func quantile(way string, before *metrics.Float64Histogram, share float64) float64 {
	now := pauses(way)
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
// it at most, if the machine has nothing else to do. It is time of the processor, with everything that a call costs besides. A guest with little memory gets a longer slice, in which it
// can touch all of it: here with a load before each store, so that the kernel has to do with each page twice.
func BenchmarkSlice(b *testing.B) {
	for _, bb := range []struct {
		name  string
		pages int32
		fuel  int64
		loads bool
	}{{"much", 7800, slice, false}, {"little", wideMemory / 4096, wide * slice, true}} {
		b.Run(bb.name, func(b *testing.B) {
			const each = 64
			var touches []Code
			for i := range each {
				if bb.loads {
					touches = append(touches, Get(2), Code(U32([]byte{0x28, 2}, i*4096)), Drop())
				}
				touches = append(touches, Get(2), I32Const(1), Code(U32([]byte{0x36, 2}, i*4096)))
			}
			m := builder(nil)
			m.Data(0, []byte{1})
			hook(m, exportRequest, Types{I32},
				Loop(Seq(touches...), Get(2), I32Const(each*4096), Add(), Tee(2), I32Const((bb.pages-each)*4096), Op(0x49), BrIf(0)), goOn())
			hook(m, exportConfigure, nil, I32Const((bb.pages+15)/16-2), MemoryGrow(), Drop(), goOn())
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
			b.ReportMetric(spent/float64(bb.pages), "cpu-ns/page")
			b.ReportMetric(min(spent, spent/float64(r.Fuel)*float64(bb.fuel))/1e3, "cpu-µs/slice")
			b.ReportMetric(float64(r.Fuel), "fuel/op")
		})
	}
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
	if slice > 4<<10 || wideMemory > 3<<20 {
		t.Errorf("slices of %d, or all of %d bytes: a page of memory for each 5 takes some 2.7 µs, and the collector is to wait no longer than 5 ms", slice, wideMemory)
	}
}

// A guest with little memory gets longer slices, but not for longer than it has little.
func TestGuestsThatGrowGetShortSlicesAtOnce(t *testing.T) {
	t.Parallel()
	m := builder(nil)
	hook(m, exportRequest, nil, I32Const(510), MemoryGrow(), Drop(), goOn())
	p := load(t, newHost(t, Options{}), m.Bytes())
	i, err := p.pool.take(t.Context(), p, 1, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer p.pool.drop(i)
	i.call = call{budget: 1 << 30, left: 1 << 30, until: time.Now().Add(time.Minute)}
	if got := i.refuel(0); got != wide*slice {
		t.Errorf("it begins with %d, want %d", got, wide*slice)
	}
	i.call.left += wide * slice
	i.fuel.Set(0)
	i.stack.Set(1 << 20)
	if err := i.hooks[exportRequest].CallWithStack(i.ctx, i.slots[:]); err != nil {
		t.Fatal(err)
	}
	if got := int64(i.fuel.Get()); got > slice || got <= 0 {
		t.Errorf("after it has grown it has %d, want at most %d", got, slice)
	}
}
