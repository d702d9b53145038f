// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"
)

func TestClockThatIsSetGoesOnMonotonically(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clock")
	ours, err := openClock(path)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := openClock(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, ahead := range []time.Duration{0, time.Hour, -time.Nanosecond, -20 * day, 500 * day, 1500 * time.Millisecond} {
		ours.set(ahead)
		before, now, after := time.Now(), theirs.now(), time.Now()
		if now.Before(before) || now.After(after) { // by the monotonic clock, as long as both times have it
			t.Errorf("ahead by %v: the monotonic clock went from %v by %v to %v", ahead, before, now, after)
		}
		wall := now.Round(0)
		if wall.Before(before.Round(0).Add(ahead)) || wall.After(after.Round(0).Add(ahead)) {
			t.Errorf("ahead by %v: %v, at %v", ahead, wall, before.Round(0))
		}
	}
}

func TestClockIsSetRightBeforeADayOrAMonthEnds(t *testing.T) {
	now := time.Date(2028, 2, 28, 13, 14, 15, 16, time.FixedZone("", 3600))
	for kind, want := range map[Kind]time.Time{
		Midnight: time.Date(2028, 2, 28, 23, 59, 59, 5e8, time.UTC),
		MonthEnd: time.Date(2028, 2, 29, 23, 59, 59, 5e8, time.UTC),
	} {
		f := Fault{Kind: kind}
		if got := now.Add(f.step(now)); !got.Equal(want) {
			t.Errorf("%s: got %v, want %v", kind, got, want)
		}
	}
	f := Fault{Kind: ClockStep, Step: time.Hour}
	if got := f.step(now); got != time.Hour {
		t.Errorf("got %v", got)
	}
	r := rand.New(rand.NewPCG(1, 1))
	ahead, behind := 0, 0
	for range 1000 {
		d := drawStep(r)
		if d < -20*day || d > 500*day {
			t.Fatalf("drew %v", d)
		}
		if d > 31*day {
			ahead++
		} else if d < -time.Hour {
			behind++
		}
	}
	if ahead == 0 || behind == 0 {
		t.Errorf("of 1000, %d are far ahead and %d far behind", ahead, behind)
	}
}
