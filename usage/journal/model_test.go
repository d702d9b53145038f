// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

var seeds = flag.Int("seeds", 400, "how many seeds TestWhatWasAcknowledgedIsRecovered runs")

// manySeeds is how many: fewer with -short, as for the race detector.
func manySeeds() int {
	if testing.Short() {
		return min(*seeds, 80)
	}
	return *seeds
}

// fate is what may be said of an intent.
type fate int

const (
	refused  fate = iota // Append failed
	unclear              // Append failed on a disk that did not let it take back what it had written
	accepted             // Append succeeded, and the power may yet take it
	safe                 // open, whatever happens
	settled              // in the books; the power may yet bring it back
	doubtful             // in the books, on a disk that may not have taken note
	closed               // in the books for good
)

// model drives a journal on a disk that fails, and knows what it must recover.
type model struct {
	*testing.T
	rng     *rand.Rand
	o       Options
	m       *memory
	j       *Journal
	fates   map[int]fate
	next    int
	damaged atomic.Bool // the power took something, or what failed could not be taken back; and the journal may not have put it right yet
	healthy bool        // the disk has not failed since the journal was opened, or has been well for long
	said    bytes.Buffer
	parked  int // intents, at most
}

// act does something at random.
func (x *model) act() {
	x.parked = max(x.parked, x.j.Parked())
	switch p := x.rng.IntN(100); {
	case p < 45:
		x.append()
	case p < 66:
		x.settle()
	case p < 69:
		for n, f := range x.fates { // to hold is not to settle
			if f == accepted || f == safe {
				x.j.Hold(intent(n).Exchange)
				break
			}
		}
	case p < 70:
		x.j.Reopen()
	case p < 73:
		x.j.Park(x.rng.IntN(4) > 0)
	case p < 74:
		for n := range x.fates {
			x.j.Renew(intent(n).Exchange, time.Time{})
			break
		}
	case p < 84:
		time.Sleep(time.Duration(x.rng.IntN(10)) * time.Millisecond) //nolint:forbidigo // the time of a synctest bubble
	case p < 88:
		x.spoil()
	case p < 94:
		x.heal()
	case p < 97:
		x.restart(x.m.kill(), false)
	case p < 99:
		x.restart(x.m.powerLoss(x.rng), true)
	default:
		err := x.j.Close()
		if x.healthy && err != nil {
			x.Errorf("close: %v", err)
		}
		x.restart(x.m.kill(), false)
	}
}

func (x *model) append() {
	n := x.next
	x.next++
	err := x.j.Append(intent(n))
	switch {
	case err == nil && x.o.Durability == Fsync:
		x.fates[n] = safe
	case err == nil:
		x.fates[n] = accepted
	case x.healthy:
		x.Fatalf("append %d: %v", n, err)
	case errors.Is(err, errInjected) || x.o.Durability == Fsync:
		x.fates[n] = unclear
	default:
		x.fates[n] = refused
	}
}

func (x *model) settle() {
	for n, f := range x.fates {
		if f != accepted && f != safe {
			continue
		}
		if got := x.j.Settle(intent(n).Exchange); got != 1 {
			x.Errorf("settle %d: got %d", n, got)
		}
		if x.fates[n] = settled; !x.healthy {
			x.fates[n] = doubtful
		}
		if x.rng.IntN(3) > 0 {
			return
		}
	}
}

var errInjected = errors.New("injected")

// spoil makes the disk full, or lets its calls fail at times.
func (x *model) spoil() {
	x.m.mu.Lock()
	defer x.m.mu.Unlock()
	x.healthy = false
	if x.rng.IntN(2) == 0 {
		x.m.space = int64(x.rng.IntN(2000))
		return
	}
	often := 1 + x.rng.IntN(4)
	calls := []string{"open", "write", "sync", "syncdir", "truncate", "remove", "read"}
	only := calls[x.rng.IntN(len(calls))]
	any := x.rng.IntN(2) == 0
	rng := rand.New(rand.NewPCG(x.rng.Uint64(), 0)) // of all who call, one at a time
	x.m.fail = func(call, _ string) error {
		if (any || call == only) && rng.IntN(often) == 0 {
			if call == "truncate" || call == "remove" {
				x.damaged.Store(true)
			}
			return fmt.Errorf("%w: %s: %w", errInjected, call, syscall.EIO)
		}
		return nil
	}
}

func (x *model) heal() {
	x.m.mu.Lock()
	x.m.space, x.m.fail = -1, nil
	x.m.mu.Unlock()
	time.Sleep(3 * retryInterval) //nolint:forbidigo // the time of a synctest bubble
	x.healthy = true
	x.damaged.Store(false)
	for n, f := range x.fates {
		switch f {
		case accepted:
			x.fates[n] = safe
		case unclear:
			x.fates[n] = refused
		}
	}
	x.check()
}

// check compares what is open with what is known.
func (x *model) check() {
	x.j.Reopen()
	handed := make(map[int]Intent)
	x.j.Each(func(in Intent) {
		if _, twice := handed[number(in.Exchange)]; twice {
			x.Errorf("intent %d is handed out twice", number(in.Exchange))
		}
		handed[number(in.Exchange)] = in
	})
	got := all(x.j)
	if d := cmp.Diff(handed, got); d != "" {
		x.Errorf("handed out, and quiet (-handed out +quiet):\n%s", d)
	}
	if open := x.j.Open(); open != len(got) {
		x.Errorf("%d are open, and %d are quiet", open, len(got))
	}
	for n, in := range got {
		if in != intent(n) {
			x.Errorf("intent %d is %+v", n, in)
		}
		if f, known := x.fates[n]; !known || f == refused || f == settled || f == doubtful || f == closed {
			x.Errorf("intent %d is open, and is known (%v) as %d", n, known, f)
		}
	}
	for n, f := range x.fates {
		if _, is := got[n]; !is && (f == accepted || f == safe) {
			x.Errorf("intent %d is not open", n)
		}
	}
}

// restart opens the journal on what is left of the disk.
func (x *model) restart(left *memory, powerLoss bool) {
	_ = x.j.Close() // on a disk that nobody looks at any more
	for n, f := range x.fates {
		if powerLoss && (f == accepted || f == settled || f == closed) || f == doubtful {
			x.fates[n] = unclear
		}
	}
	x.m = left
	x.o.fs = left
	j, r, err := Open("j", x.o)
	if err != nil {
		x.Fatalf("open: %v", err)
	}
	if powerLoss {
		x.damaged.Store(true)
	}
	if len(r.Damage) > 0 && !x.damaged.Load() {
		x.Errorf("damage was reported of a disk that has none: %v", r.Damage)
	}
	x.j, x.healthy = j, true
	got := make(map[int]bool)
	j.Each(func(in Intent) { got[number(in.Exchange)] = true })
	for n, f := range x.fates {
		is := got[n]
		switch {
		case is && f == unclear:
			x.fates[n] = accepted
		case f == unclear:
			x.fates[n] = closed
		}
	}
	x.check()
	if x.Failed() {
		x.Logf("powerLoss %v", powerLoss)
	}
}

func TestWhatWasAcknowledgedIsRecovered(t *testing.T) {
	parked := 0
	for seed := range uint64(manySeeds()) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := &model{T: t, rng: rand.New(rand.NewPCG(seed, 4)), m: newMemory(), fates: make(map[int]fate), healthy: true}
				x.o = Options{fs: x.m, SegmentBytes: int64(500 + x.rng.IntN(4000)), ParkAbove: 1 + x.rng.IntN(20), Logger: logger(&x.said)}
				if seed%2 == 1 {
					x.o.Durability = Fsync
				}
				var err error
				if x.j, _, err = Open("j", x.o); err != nil {
					t.Fatal(err)
				}
				defer func() { _ = x.j.Close() }()
				for range 200 {
					x.act()
					if t.Failed() {
						said := x.said.String()
						t.Fatalf("seed %d; at last the journal said:\n%s", seed, said[max(0, len(said)-3000):])
					}
				}
				x.heal()
				if err := x.j.Close(); err != nil {
					t.Error(err)
				}
				parked = max(parked, x.parked)
			})
		})
	}
	t.Logf("%d intents were parked at most", parked)
	if manySeeds() > 20 && parked == 0 {
		t.Error("intents were never parked")
	}
}
