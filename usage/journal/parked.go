// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"slices"
	"time"

	"github.com/google/uuid"
)

// parked are open intents of a segment that are known on the disk alone. A bit for each is what they take of memory. They were never held.
type parked struct {
	least int64 // no frame of an intent in the segment is shorter: so at/least is another number for each
	open  []uint64
	n     int   // bits that are set
	bytes int64 // of all the frames, when they were recovered

	first, last uuid.UUID              // the ids lie between these
	seen        time.Duration          // the latest sign of life of any of them
	owed        map[uuid.UUID]struct{} // settled while the segment could not be read: to be taken off once it can
}

func (p *parked) bit(at int64) (word int, mask uint64) {
	n := at / p.least
	return int(n / 64), 1 << (n % 64)
}

func (p *parked) has(at int64) bool {
	word, mask := p.bit(at)
	return word < len(p.open) && p.open[word]&mask != 0
}

// add parks the intent whose frame begins at an offset. Least must be known.
func (p *parked) add(id uuid.UUID, at int64) {
	word, mask := p.bit(at)
	if word >= len(p.open) {
		p.open = append(p.open, make([]uint64, word+1-len(p.open))...)
	}
	p.open[word] |= mask
	if p.n == 0 || bytes.Compare(id[:], p.first[:]) < 0 {
		p.first = id
	}
	if p.n == 0 || bytes.Compare(id[:], p.last[:]) > 0 {
		p.last = id
	}
	p.n++
}

func (p *parked) remove(at int64) {
	word, mask := p.bit(at)
	p.open[word] &^= mask
	p.n--
}

// within reports whether the intent of an exchange may be one of them.
func (p *parked) within(id uuid.UUID) bool {
	return bytes.Compare(p.first[:], id[:]) <= 0 && bytes.Compare(id[:], p.last[:]) <= 0
}

// park parks an intent that is open, was never held, and is where it was.
func (t *table) park(id uuid.UUID, segment uint32, at int64, in *parked) {
	p, is := t.has(id, segment, at)
	if !is || p.held || p.told {
		return
	}
	delete(t.open, id)
	in.add(id, at)
	in.seen = max(in.seen, p.seen)
	t.resting++
}

// putParked adds what is parked in a segment that nothing else is known of.
func (t *table) putParked(segment uint32, p *parked) {
	if p.n == 0 {
		return
	}
	t.parked[segment] = p
	t.resting += p.n
	t.inside[segment] = tally{open: p.n, bytes: p.bytes}
}

// hasAt reports whether the frame of a segment is an intent that is open or held there, or parked.
func (t *table) hasAt(f frame, segment uint32) bool {
	if len(f.payload) < len(uuid.UUID{}) {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	_, here := t.has(uuid.UUID(f.payload[:16]), segment, f.at)
	p := t.parked[segment]
	if here || p == nil || !p.has(f.at) {
		return here
	}
	_, owed := p.owed[uuid.UUID(f.payload[:16])]
	return !owed
}

// isParked reports whether something of a segment is parked.
func (t *table) isParked(segment uint32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.parked[segment] != nil
}

// parkable returns how many intents of a segment can be parked.
func (t *table) parkable(segment uint32) int {
	n := t.inside[segment]
	if p := t.parked[segment]; p != nil {
		n.open -= p.n
	}
	return n.open - n.told
}

// forgetEmpty lets go of what is known of a segment in which nothing is parked any more.
func (t *table) forgetEmpty(segment uint32) {
	if p := t.parked[segment]; p != nil && p.n == 0 {
		delete(t.parked, segment)
	}
}

// parkedSegments returns the segments of which something is parked, oldest first.
func (t *table) parkedSegments(those func(*parked) bool) []uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.parkedSegmentsLocked(those)
}

func (t *table) parkedSegmentsLocked(those func(*parked) bool) (numbers []uint32) {
	for number, p := range t.parked {
		if those(p) {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	return numbers
}
