// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"math"
	"slices"

	"github.com/google/uuid"
)

// newReading returns what is known before anything is read.
func newReading(disk fileSystem, dir string, keep int) *reading {
	return &reading{
		disk: disk, dir: dir, keep: keep,
		open: make(map[uuid.UUID]place), parked: make(map[uint32]*parked), settled: make(map[uuid.UUID]struct{}), ends: make(map[uint64]int64),
	}
}

// park finds what is open in the segments whose intents were left out at first, now that all is known that was settled. So recovery takes memory
// for what is settled, and a little for what is open, however much that is.
func (r *reading) park() {
	var left []*readSegment // oldest first
	for _, s := range r.segments {
		if s.parked {
			left = append(left, s)
		}
	}
	if len(left) == 0 {
		return
	}
	// Only the oldest segment is ever emptied, and what was moved out of it before a crash is in two places. The newer one counts.
	oldest := left[0]
	copies := make(map[uuid.UUID]struct{})
	r.intents(oldest, func(f found) { copies[f.id] = struct{}{} })
	for _, s := range slices.Backward(left[1:]) {
		r.intents(s, func(f found) { delete(copies, f.id) })
		r.parkSegment(s, nil)
	}
	r.parkSegment(oldest, copies)
	r.buf = nil
}

// parkSegment parks what is open in a segment, if it is among some; nil is all.
func (r *reading) parkSegment(s *readSegment, among map[uuid.UUID]struct{}) {
	p := &parked{least: math.MaxInt64}
	var open []found
	r.intents(s, func(f found) {
		p.least = min(p.least, int64(f.size))
		_, settled := r.settled[f.id]
		_, newer := r.open[f.id]
		_, is := among[f.id]
		if !settled && !newer && (is || among == nil) {
			open = append(open, f)
		}
	})
	for _, f := range open {
		p.add(f.id, int64(f.at))
		p.bytes += int64(f.size)
	}
	if p.n > 0 {
		r.parked[uint32(s.number)] = p
	}
}

// intents hands out the intents in a segment.
func (r *reading) intents(s *readSegment, each func(found)) {
	var err error
	r.buf, err = scanFile(r.disk, &s.segment, r.buf, func(f frame) {
		if f.kind != kindIntent {
			return
		}
		if in, err := peekIntent(f.payload); err == nil {
			each(found{in.Exchange, placeIn(&s.segment, f.at, f.size(), 0)})
		}
	})
	if err != nil {
		r.bad(s, 0, -1, "it cannot be read again: "+err.Error())
	}
}
