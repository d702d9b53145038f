// SPDX-License-Identifier: Apache-2.0

package store

import (
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestPruneWritersForgetsOnlyWhatHasNotMoved(t *testing.T) {
	s := migrated(t)
	old, idle, busy := uuid.New(), uuid.New(), uuid.New()
	for _, w := range []uuid.UUID{old, idle, busy} {
		mustPost(t, s, batch(w, 0, record(t, noon())))
	}
	exec(t, s, `update weir.writer set updated = now() - interval '41 days' where id in ($1, $2)`, old, busy)
	exec(t, s, `update weir.writer set updated = now() - interval '39 days' where id = $1`, idle)
	mustPost(t, s, batch(busy, 1, record(t, noon())))
	if n, err := s.PruneWriters(t.Context(), 40*24*time.Hour); n != 1 || err != nil {
		t.Errorf("pruned %d, %v", n, err)
	}
	wantPosition(t, s, old, 0)
	wantPosition(t, s, idle, 1)
	wantPosition(t, s, busy, 2)
	_, err := s.PruneWriters(t.Context(), 30*24*time.Hour-1)
	wantError(t, err, ErrInvalid, "at least 720h")
	wantPosition(t, s, idle, 1)
}

// TestALogThatComesBackAfterItsPositionWasForgottenIsCountedOnce: and what it has new, and what it tells of unresolved exchanges, counts.
func TestALogThatComesBackAfterItsPositionWasForgottenIsCountedOnce(t *testing.T) {
	s := migrated(t)
	writer, long := uuid.New(), noon().AddDate(0, 0, -45)
	first, second, lost, fresh := record(t, long), record(t, long), record(t, long), record(t, noon())
	mustPost(t, s, batch(writer, 0, first, second))
	mustResolve(t, s, unresolved(lost))
	exec(t, s, `update weir.writer set updated = now() - interval '41 days'`)
	if n, err := s.PruneWriters(t.Context(), 40*24*time.Hour); n != 2 || err != nil { // a resolution has a position too
		t.Fatalf("pruned %d, %v", n, err)
	}
	mustPost(t, s, batch(writer, 0, first, second, lost, fresh))
	wantPosition(t, s, writer, 4)
	wantStatuses(t, s, map[string]int64{"ok": 4})
	wantSums(t, s, numbers{Requests: 4, Tokens: 480})
	again := uuid.New()
	mustPost(t, s, batch(again, 0, first, second, lost)) // nothing is left of the batch
	wantPosition(t, s, again, 3)
	wantStatuses(t, s, map[string]int64{"ok": 4})
}
