// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"time"

	"github.com/google/uuid"
)

// Hold notes that exchanges were written to the books on the strength of their intents alone, and returns those that are held for the first
// time in the life of this Journal. They are not open any more, but stay on the disk until [Journal.Settle] or [Journal.Release], since the books might
// forget them: nothing else tells of them. What is held is open again for who opens the journal next, and is looked up in the books before anything is
// done about it.
func (j *Journal) Hold(ids ...uuid.UUID) (first []uuid.UUID) {
	now := j.since(time.Now()) //nolint:forbidigo // the clock is read here, at the edge, and handed on
	j.table.mu.Lock()
	defer j.table.mu.Unlock()
	for _, id := range ids {
		if _, fresh := j.table.hold(id, now); fresh {
			first = append(first, id)
		}
	}
	j.countLocked()
	return first
}

// Reopen makes open what is held, as if it had shown no sign of life since the beginning of time, and returns how many intents that are. It
// is for books that have forgotten.
func (j *Journal) Reopen() int {
	j.table.mu.Lock()
	defer j.table.mu.Unlock()
	n := j.table.reopen()
	j.countLocked()
	return n
}

// Release settles what has been held since before a time, and returns how many intents that were.
func (j *Journal) Release(before time.Time) int {
	ids := j.table.heldBefore(j.since(before))
	if len(ids) == 0 {
		return 0
	}
	return j.Settle(ids...)
}

// Held returns how many intents are held.
func (j *Journal) Held() int {
	_, held := j.table.len()
	return held
}

// countLocked tells Prometheus how many intents there are. The table's lock must be held.
func (j *Journal) countLocked() {
	open, held := j.table.lenLocked()
	j.metrics.open.Set(float64(open))
	j.metrics.held.Set(float64(held))
	j.metrics.parked.Set(float64(j.table.resting))
}
