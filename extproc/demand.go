// SPDX-License-Identifier: Apache-2.0

package extproc

import "time"

// demand is how many requests come, and how many usually do and are borne.
type demand struct {
	slots  [3 * second]int // requests that were seen in the last tenths of a second, in a ring
	last   int             // the last slot
	filled int             // slots that are known
	asked  time.Time       // when add was called last
	calm   int             // calls in a row in which most did not wait
	borne  float64         // the most in a tenth of a second, on average over a second in which most did not wait; forgotten slowly
}

const (
	second      = int(time.Second / shedInterval)
	unusual     = 1.2     // times what usually comes are more than chance brings, with leastSeen besides
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
		d.slots[d.last] = 0
		d.filled = min(d.filled+1, len(d.slots))
	}
	d.slots[d.last] = t.seen
	if d.calm++; t.most() {
		d.calm = 0
	}
	if d.borne *= forgetBorne; d.calm >= second {
		d.borne = max(d.borne, float64(d.second(0))/float64(second))
	}
}

// second returns how many requests were seen in a second: the last, or so many seconds before.
func (d *demand) second(before int) (seen int) {
	for i := range second {
		seen += d.slots[(d.last+len(d.slots)-before*second-i)%len(d.slots)]
	}
	return seen
}

// exceeded says whether in a tenth of a second more requests waited too long than were ever borne in one, and more came in the last second than in those before: a
// machine or an Envoy that stood still brings at once what came meanwhile, which is many in a moment, but no more in a second. It is to be asked after add. In the
// first second nothing is known.
func (d *demand) exceeded(t tally) bool {
	if d.filled < second || float64(t.late) <= unusual*d.borne+leastSeen {
		return false
	}
	return float64(d.second(0)) > unusual*float64(max(d.second(1), d.second(2)))+leastSeen
}
