// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"math"
	"sync"
	"time"

	"github.com/google/uuid"
)

// place is where the frame of an intent is that is open or held. Tickets stay on the disk: an intent takes 41 bytes of a map that is between
// 7/16 and 7/8 full, thus 47 to 94 bytes of memory, and none that the garbage collector looks into. A million are 50 to 90 MB; see [Journal.Park] for
// where these could wait for the books.
type place struct {
	segment uint32        // its number
	at      uint32        // offset of the frame
	size    uint32        // of the frame
	held    bool          // not open
	told    bool          // it was held before: somebody was told that it ended
	seen    time.Duration // the last sign of life, or when it was held
}

// longAgo is before any sign of life.
const longAgo = time.Duration(math.MinInt64)

// tally is what a segment is kept for.
type tally struct {
	open  int   // or held, or parked
	told  int   // of them
	bytes int64 // of their frames
}

// with returns a tally with so many more intents like one.
func (n tally) with(more int, p place) tally {
	n.open, n.bytes = n.open+more, n.bytes+int64(more)*int64(p.size)
	if p.told {
		n.told += more
	}
	return n
}

// table is the set of intents that are open or held.
type table struct {
	mu     sync.Mutex
	open   map[uuid.UUID]place // or held
	held   int                 // of them
	inside map[uint32]tally    // by segment
	floor  time.Duration       // no open intent was seen earlier
	lost   []uuid.UUID         // whose frames could not be read, until somebody asks for them

	parked  map[uint32]*parked // by segment: what is open and not in the map above; no value is empty
	resting int                // of them
}

func newTable() *table {
	return &table{open: make(map[uuid.UUID]place), inside: make(map[uint32]tally), parked: make(map[uint32]*parked)}
}

// put adds an intent, or moves it to another place, where it is no older than it was. The lock must be held, here and in remove.
func (t *table) put(id uuid.UUID, p place) {
	if old, ok := t.open[id]; ok {
		t.subtract(old)
		p.seen, p.held, p.told = max(p.seen, old.seen), old.held, old.told
	}
	t.open[id] = p
	t.inside[p.segment] = t.inside[p.segment].with(1, p)
	t.floor = min(t.floor, p.seen)
}

func (t *table) remove(id uuid.UUID) bool {
	_, ok := t.take(id)
	return ok
}

// take removes an intent and returns its place.
func (t *table) take(id uuid.UUID) (p place, ok bool) {
	if p, ok = t.open[id]; ok {
		delete(t.open, id)
		t.subtract(p)
		if p.held {
			t.held--
		}
	}
	return p, ok
}

// hold holds an open intent, and reports whether it is held for the first time.
func (t *table) hold(id uuid.UUID, now time.Duration) (ok, first bool) {
	p, ok := t.open[id]
	if ok = ok && !p.held; ok {
		if first = !p.told; first {
			n := t.inside[p.segment]
			n.told++
			t.inside[p.segment] = n
		}
		p.held, p.told, p.seen = true, true, now
		t.open[id] = p
		t.held++
	}
	return ok, first
}

// reopen opens what is held, and returns how many intents that are. The lock must be held, as in hold.
func (t *table) reopen() (n int) {
	if n = t.held; n == 0 {
		return 0
	}
	for id, p := range t.open {
		if p.held {
			p.held, p.seen = false, longAgo
			t.open[id] = p
		}
	}
	t.held, t.floor = 0, longAgo
	return n
}

// heldBefore returns what has been held since before a time.
func (t *table) heldBefore(before time.Duration) (ids []uuid.UUID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held == 0 {
		return nil
	}
	for id, p := range t.open {
		if p.held && p.seen < before {
			ids = append(ids, id)
		}
	}
	return ids
}

func (t *table) subtract(p place) {
	n := t.inside[p.segment].with(-1, p)
	if n.open == 0 {
		delete(t.inside, p.segment)
		return
	}
	t.inside[p.segment] = n
}

// has reports whether an intent is open, and still where it was.
func (t *table) has(id uuid.UUID, segment uint32, at int64) (place, bool) {
	p, ok := t.open[id]
	return p, ok && p.segment == segment && int64(p.at) == at
}

// renew notes a sign of life of what was last seen at a time or later. Of what is parked, all of a segment then counts as alive.
func (t *table) renew(id uuid.UUID, since, now time.Duration) (ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p, is := t.open[id]; is {
		if ok = !p.held && p.seen >= since; ok {
			p.seen = max(p.seen, now)
			t.open[id] = p
		}
		return ok
	}
	for _, p := range t.parked {
		if p.within(id) && p.seen >= since {
			p.seen, ok = max(p.seen, now), true
		}
	}
	return ok
}

// found is an open intent and its place.
type found struct {
	id uuid.UUID
	place
}

// quiet returns up to limit intents that were last seen before a time. It goes through the whole table only when there may be one.
func (t *table) quiet(before time.Duration, limit int) (out []found) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.floor >= before {
		return nil
	}
	floor := before
	for id, p := range t.open {
		if p.held || p.seen >= before {
			continue
		}
		if len(out) == limit {
			return out
		}
		floor = min(floor, p.seen)
		out = append(out, found{id, p})
	}
	t.floor = floor
	return out
}

// of returns what is open or held in a segment.
func (t *table) of(segment uint32) (out []found) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, p := range t.open {
		if p.segment == segment {
			out = append(out, found{id, p})
		}
	}
	return out
}

// tally returns what a segment is kept for, and all of them.
func (t *table) tally(segment uint32) (of, all tally) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.inside {
		all = tally{all.open + n.open, all.told + n.told, all.bytes + n.bytes}
	}
	return t.inside[segment], all
}

// len returns how many intents are open, and how many held.
func (t *table) len() (open, held int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lenLocked()
}

func (t *table) lenLocked() (open, held int) { return len(t.open) - t.held + t.resting, t.held }
