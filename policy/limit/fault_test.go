// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"testing"
	"time"
)

func even(n int) func(time.Duration) []float64 {
	d := make([]float64, n)
	for i := range d {
		d[i] = overload / float64(n)
	}
	return func(time.Duration) []float64 { return d }
}

// want checks what was admitted since a time, as a part of what the limit allows, and the bound: limit, burst, and what restarts add.
func (w *world) want(seed uint64, from time.Duration, least, most float64) {
	w.t.Helper()
	allowed := float64(w.limit.Requests) * (w.now - from).Minutes()
	if got := float64(w.count(from, w.now)) / allowed; got < least || got > most {
		w.t.Errorf("seed %d: %.3f of the limit was admitted, want %.3f to %.3f (%v)", seed, got, least, most, w)
	}
	bound := float64(w.limit.Requests) + newRule(w.limit).burst[requests]*(1+float64(w.restarts)/3)
	if got := float64(w.worstWindow(time.Minute)); got > bound*1.01+float64(len(w.all)) { // clocks may be fast
		w.t.Errorf("seed %d: %v admitted within a minute, want at most %v", seed, got, bound)
	}
}

func TestDeadReplicasPartComesBack(t *testing.T) {
	t.Parallel()
	for _, seed := range seeds(t) {
		w := newWorld(t, seed, 3, simulated)
		w.demand = even(3)
		w.run(2 * time.Minute)
		w.all[0].crash()
		w.run(Gone + 5*time.Second)
		from := w.now
		w.run(5 * time.Minute)
		w.want(seed, from, 0.98, 1.02)
		w.restarts++
		w.all[0].start()
		from = w.now
		w.run(5 * time.Minute)
		w.want(seed, from, 0.98, 1.02+0.02)
		if w.worstSum > 1+1e-6 {
			t.Errorf("seed %d: the replicas held %v of the limit together", seed, w.worstSum)
		}
	}
}

func TestReplicaThatJoinsGetsItsPartFromTheOthers(t *testing.T) {
	t.Parallel()
	for _, seed := range seeds(t) {
		w := newWorld(t, seed, 3, simulated)
		w.demand = even(3)
		w.run(time.Minute)
		r := w.join(1)
		began := w.now
		for !r.limiter.Joined() && w.now < began+5*time.Second {
			w.run(10 * time.Millisecond)
		}
		if took := w.now - began; took > 3*Interval {
			t.Errorf("seed %d: it took %s until it held its part", seed, took)
		}
		w.demand = even(4)
		from := w.now
		w.run(5 * time.Minute)
		w.want(seed, from, 0.98, 1.02)
		if w.worstSum > 1+1e-6 {
			t.Errorf("seed %d: the replicas held %v of the limit together", seed, w.worstSum)
		}
	}
}

func TestReplicaThatIsCutOffDoesNotExceedTheLimit(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		cut     time.Duration
		strict  bool
		sum     float64
		demands func(time.Duration) []float64
	}{
		"for some seconds":             {20 * time.Second, false, 1, even(3)},
		"while it has most":            {25 * time.Second, false, 1, func(time.Duration) []float64 { return []float64{overload, 1, 1} }},
		"while it has least":           {25 * time.Second, false, 1, func(time.Duration) []float64 { return []float64{0.1, overload, 1} }},
		"for minutes, strict":          {3 * time.Minute, true, 1, even(3)},
		"for minutes, and it goes on":  {3 * time.Minute, false, 1 + 1.0/3, even(3)},
		"for minutes, and it had most": {3 * time.Minute, false, 1 + 1.0/3, func(time.Duration) []float64 { return []float64{overload, 1, 1} }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, seed := range seeds(t) {
				w := newWorld(t, seed, 3, simulated)
				for _, r := range w.all {
					r.strict, r.limiter.o.Strict = tt.strict, tt.strict
				}
				w.demand = tt.demands
				w.run(time.Minute)
				w.all[0].cut = true
				w.run(tt.cut)
				w.all[0].cut = false
				w.run(10 * time.Second)
				from := w.now
				w.run(3 * time.Minute)
				if w.worstSum > tt.sum+1e-6 {
					t.Errorf("seed %d: the replicas held %v of the limit together, want at most %v", seed, w.worstSum, tt.sum)
				}
				w.admitted = w.admitted[len(w.admitted)-w.count(from, w.now):]
				w.want(seed, from, 0.98, 1.02)
			}
		})
	}
}

func TestReplicasGoOnWhileTheBoardIsDown(t *testing.T) {
	t.Parallel()
	for _, seed := range seeds(t) {
		w := newWorld(t, seed, 3, simulated)
		w.demand = func(time.Duration) []float64 { return []float64{overload, overload / 2, 0.5} }
		w.run(time.Minute)
		w.board.down = true
		w.demand = even(3)
		w.run(15 * time.Second)
		from := w.now
		w.run(5 * time.Minute)
		w.want(seed, from, 0.98, 1.02)
		w.board.down = false
		from = w.now
		w.run(3 * time.Minute)
		w.want(seed, from, 0.98, 1.02)
		if w.worstSum > 1+1e-6 {
			t.Errorf("seed %d: the replicas held %v of the limit together", seed, w.worstSum)
		}
	}
}

func TestRoundsWithUnknownOutcomeAndSkewedClocksDoNotExceedTheLimit(t *testing.T) {
	t.Parallel()
	for _, seed := range seeds(t) {
		w := newWorld(t, seed, 3, simulated)
		w.board.unknown = 0.2
		w.join(1.03)
		w.join(0.97)
		w.demand = func(now time.Duration) []float64 {
			d := make([]float64, 5)
			d[int(now/(7*time.Second))%5] = overload / 2
			d[int(now/(11*time.Second))%5] += overload / 2
			return d
		}
		w.run(10 * time.Second)
		from := w.now
		w.run(10 * time.Minute)
		w.want(seed, from, 0.85, 1.02)
		if w.worstSum > 1+1e-6 {
			t.Errorf("seed %d: the replicas held %v of the limit together", seed, w.worstSum)
		}
	}
}

func TestDemandBelowTheLimitIsHardlyEverRefused(t *testing.T) {
	t.Parallel()
	demands := map[string]func(now time.Duration) []float64{
		"at one replica, which has not seen it before": func(time.Duration) []float64 { return []float64{8, 0, 0} },
		"at all":   func(time.Duration) []float64 { return []float64{2.6, 2.6, 2.6} },
		"unevenly": func(time.Duration) []float64 { return []float64{6, 1.5, 0.5} },
	}
	for name, demand := range demands {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, seed := range seeds(t) {
				w := newWorld(t, seed, 3, simulated)
				w.demand = demand
				w.run(5 * time.Minute)
				if refused := w.offered - len(w.admitted); refused > w.offered/500 { // chance has gusts that no part of the burst would hold
					t.Errorf("seed %d: %d of %d requests were refused though four fifths of the limit were asked for", seed, refused, w.offered)
				}
			}
		})
	}
}

func TestRestartKeepsWhatOthersWereGiven(t *testing.T) {
	t.Parallel()
	for _, seed := range seeds(t) {
		w := newWorld(t, seed, 3, simulated)
		w.demand = func(time.Duration) []float64 { return []float64{overload, 0, 0} }
		w.run(time.Minute)
		w.all[1].crash()
		w.run(time.Second)
		w.all[1].start()
		w.restarts++
		w.demand = even(3)
		w.run(time.Minute)
		if w.worstSum > 1+1e-6 {
			t.Errorf("seed %d: the replicas held %v of the limit together", seed, w.worstSum)
		}
		w.want(seed, w.now-time.Minute, 0.95, 1.02+1.0/6)
	}
}

func TestAnyMixtureOfFaultsKeepsTheLimit(t *testing.T) {
	t.Parallel()
	for _, seed := range seeds(t) {
		w := newWorld(t, seed, 3, simulated)
		w.board.unknown = 0.05
		weights := []float64{1, 1, 1, 1, 1}
		w.demand = func(time.Duration) []float64 {
			d, sum := make([]float64, len(w.all)), 0.0
			for i := range d {
				sum += weights[i]
			}
			for i := range d {
				d[i] = overload * weights[i] / sum
			}
			return d
		}
		from := w.now
		for w.now < from+10*time.Minute {
			w.run(time.Duration(w.random.ExpFloat64() * float64(5*time.Second)))
			r := w.all[w.random.IntN(len(w.all))]
			switch w.random.IntN(6) {
			case 0: // another replica gets the demand
				weights[w.random.IntN(len(weights))] = w.random.ExpFloat64()
			case 1:
				if r.up {
					r.crash()
					w.after(time.Duration(w.random.Int64N(int64(40*time.Second))), func() {
						w.restarts++
						r.start()
					})
				}
			case 2:
				if !r.cut { // for less than it takes to be taken for dead
					r.cut = true
					w.after(time.Duration(w.random.Int64N(int64(20*time.Second))), func() { r.cut = false })
				}
			case 3:
				if !w.board.down {
					w.board.down = true
					w.after(time.Duration(w.random.Int64N(int64(time.Minute))), func() { w.board.down = false })
				}
			case 4:
				if len(w.all) < len(weights) {
					w.join(0.98 + w.random.Float64()/25)
				}
			}
		}
		if w.worstSum > 1+1e-6 {
			t.Errorf("seed %d: the replicas held %v of the limit together", seed, w.worstSum)
		}
		w.want(seed, from, 0.3, 1.05+float64(w.restarts)/180)
	}
}
