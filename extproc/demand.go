// SPDX-License-Identifier: Apache-2.0

package extproc

import "time"

// demand is how many requests usually come, and are borne.
type demand struct {
	slots  [10]int   // requests that were seen in the last tenths of a second, in a ring
	last   int       // the last slot
	sum    int       // of all slots
	filled int       // slots that are known
	asked  time.Time // when add was called last
	calm   int       // calls in a row in which most did not wait
	borne  float64   // the most in a tenth of a second, on average over a second in which most did not wait; forgotten slowly
}

const (
	unusual     = 1.2     // times what was borne are more than chance brings, with leastSeen besides
	forgetBorne = 0.99998 // half of it in an hour
)

// add takes into account what was seen since it was called last.
func (d *demand) add(t tally, now time.Time) {
	passed := 1 // tenths of a second: more than one if this process was not given the CPU
	if !d.asked.IsZero() {
		passed = min(max(int(now.Sub(d.asked).Round(shedInterval)/shedInterval), 1), len(d.slots))
	}
	d.asked = now
	for range passed {
		d.last = (d.last + 1) % len(d.slots)
		d.sum -= d.slots[d.last]
		d.slots[d.last] = 0
		d.filled = min(d.filled+1, len(d.slots))
	}
	d.slots[d.last] = t.seen
	d.sum += t.seen
	if d.calm++; t.most() {
		d.calm = 0
	}
	if d.borne *= forgetBorne; d.calm >= len(d.slots) {
		d.borne = max(d.borne, float64(d.sum)/float64(len(d.slots)))
	}
}

// exceeded says whether more requests waited too long in a tenth of a second than usually come in one, and more came in the last second than usually do: a machine that
// stands still makes none come. It is to be asked after add. In the first second nothing is known.
func (d *demand) exceeded(t tally) bool {
	return d.filled == len(d.slots) && float64(t.late) > unusual*d.borne+leastSeen && float64(d.sum) > unusual*d.borne*float64(len(d.slots))+leastSeen
}
