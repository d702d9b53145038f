// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/uuid"
)

// cpu returns the CPU time of this process in microseconds.
func cpu(b *testing.B) float64 { //nolint:thelper // the case itself, not a helper of it
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Sec+u.Stime.Sec)*1e6 + float64(u.Utime.Usec+u.Stime.Usec)
}

// BenchmarkAppend appends and settles intents, each settled by itself, from so many goroutines at once.
func BenchmarkAppend(b *testing.B) {
	for _, d := range []Durability{Async, Fsync} {
		for _, callers := range []int{1, 64, 512} {
			b.Run(fmt.Sprintf("%s/callers=%d", d, callers), func(b *testing.B) {
				j := open(b, b.TempDir(), Options{Durability: d})
				ins := make([]Intent, 1<<14)
				for n := range ins {
					ins[n] = intent(n)
				}
				var next atomic.Int64
				b.ReportAllocs()
				before := cpu(b)
				b.SetParallelism(max(callers/runtime.GOMAXPROCS(0), 1))
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						n := next.Add(1)
						in := ins[int(n)%len(ins)]
						in.Exchange = exchange(int(n))
						if err := j.Append(in); err != nil {
							b.Error(err)
						}
						if n%100 == 0 {
							settleHundred(j, int(n))
						}
					}
				})
				b.StopTimer()
				b.ReportMetric((cpu(b)-before)/float64(b.N), "cpu-µs/op")
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "intents/s")
			})
		}
	}
}

// settleHundred settles a batch, as the shipper does.
func settleHundred(j *Journal, last int) {
	ids := [100]uuid.UUID{}
	for i := range ids {
		ids[i] = exchange(last - 200 + i)
	}
	j.Settle(ids[:]...)
}

// BenchmarkSettleOthers looks up a batch of exchanges that another processor admitted.
func BenchmarkSettleOthers(b *testing.B) {
	j := open(b, b.TempDir(), Options{})
	for n := range 10_000 {
		if err := j.Append(intent(n)); err != nil {
			b.Fatal(err)
		}
	}
	var ids [5000]uuid.UUID
	for i := range ids {
		ids[i] = exchange(1_000_000 + i)
	}
	b.ReportAllocs()
	for b.Loop() {
		j.Settle(ids[:]...)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(ids)), "ns/id")
}

// BenchmarkRecover opens a journal with 100,000 open intents.
func BenchmarkRecover(b *testing.B) {
	dir := b.TempDir()
	j := open(b, dir, Options{})
	for n := range 100_000 {
		if err := j.Append(intent(n)); err != nil {
			b.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		j, r, err := Open(dir, Options{})
		if err != nil || r.Open != 100_000 {
			b.Fatalf("got %+v, %v", r, err)
		}
		if err := j.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSettleParked settles intents that are on the disk alone, in batches as the shipper does that catches up.
func BenchmarkSettleParked(b *testing.B) {
	const batch = 50_000
	j := open(b, b.TempDir(), Options{})
	j.Park(true)
	ids := make([]uuid.UUID, 0, batch)
	next, spent := 0, 0.0
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		for range 5 * batch {
			if err := j.Append(timed(next)); err != nil {
				b.Fatal(err)
			}
			next++
		}
		parkedSoon(b, j, 2*DefaultParkAbove)
		before := cpu(b)
		b.StartTimer()
		for n := next - 5*batch; n < next; n++ {
			if ids = append(ids, timedID(n)); len(ids) == batch {
				if got := j.Settle(ids...); got != batch {
					b.Fatalf("settled %d", got)
				}
				ids = ids[:0]
			}
		}
		spent += cpu(b) - before
	}
	b.ReportMetric(spent/float64(b.N*5*batch), "cpu-µs/id")
}
