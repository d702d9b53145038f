// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

// watching is a listener that counts how often it was told that an exchange is over.
type watching struct {
	*heard
	finished map[uuid.UUID]int
}

func (w *watching) Finished(r *Record) { w.finished[r.Exchange]++ }

// wantFinished checks that exactly the exchanges from one number up to another were told of, once each.
func (w *watching) wantFinished(from, to int) {
	w.Helper()
	want := make(map[uuid.UUID]int)
	for n := from; n < to; n++ {
		want[admission(n).Exchange] = 1
	}
	if d := cmp.Diff(w.finished, want); d != "" {
		w.Errorf("finished (-got +want):\n%s", d)
	}
}

func TestExchangesAreToldToBeOverWhileTheBookIsAway(t *testing.T) {
	inTime(t, func(_ *testing.T, r *replica) {
		w := &watching{heard: r.heard, finished: make(map[uuid.UUID]int)}
		r.intents.watchers = []Watcher{w}
		for n := range 6 {
			r.admit(n)
		}
		r.write(lines(0, 1))
		r.wait(time.Second)
		w.wantFinished(0, 1)
		r.wantEnds(map[int]How{0: Posted})

		r.book.fail = func() fault { return faultRefused }
		r.write(lines(1, 3))
		r.wait(time.Second)
		r.write(lines(3, 4) + lines(4, 5)[:50]) // the rest of the line is not written yet
		r.wait(time.Minute)
		w.wantFinished(0, 4)
		r.wantEnds(map[int]How{0: Posted})
		r.want(5)

		r.book.fail = nil
		r.write(lines(4, 5)[50:] + lines(5, 6))
		r.wait(time.Minute)
		w.wantFinished(0, 6)
		r.want(0)
	})
}

func TestFailedAttemptsAreToldOnceWhileTheBookIsAway(t *testing.T) {
	h := newHarness(t)
	var got []int
	h.o.OnAttempt = func(a Attempt) { got = append(got, a.Status) }
	h.restart()
	attempt := func(status int) string {
		return fmt.Sprintf(`{"attempt":1,"cluster":"channel-1","kind":"attempt","status":%d,"exchange":"%s"}`+"\n", status, uuid.New())
	}
	h.write(ActiveLog, attempt(429))
	h.book.fail = func() fault { return faultRefused }
	h.step(time.Second)
	h.write(ActiveLog, attempt(500))
	for range 10 {
		h.step(10 * time.Second)
	}
	if want := []int{429, 500}; !slices.Equal(got, want) {
		t.Errorf("told of %v, want %v", got, want)
	}
	h.book.fail = nil
	h.write(ActiveLog, attempt(503)+lines(0, 1))
	h.settle()
	if want := []int{429, 500, 503}; !slices.Equal(got, want) {
		t.Errorf("told of %v, want %v", got, want)
	}
	h.wantExchanges(0, 1)
}

func TestWhatTheBookDoesNotTakeOfManyLogsIsBoundedInMemory(t *testing.T) {
	const logs, rows = 20, 128
	h := newHarness(t)
	h.o.BatchRows = rows
	h.restart()
	for i := range logs {
		h.write(fmt.Sprintf("%s.%d", ActiveLog, i+1), lines(i*2*rows, (i+1)*2*rows))
	}
	h.ship.look()
	for _, f := range h.ship.files {
		if _, err := f.identify(); err != nil {
			t.Fatal(err)
		}
		h.must(h.ship.place(t.Context(), f))
	}
	h.book.fail = func() fault { return faultRefused } // now that all positions are known
	for range 50 {
		h.step(10 * time.Second)
	}
	waiting := 0
	for _, f := range h.ship.files {
		waiting += len(f.batch.Records)
	}
	if most := rows + logs*rows/64; waiting == 0 || waiting > most {
		t.Errorf("%d records wait in memory, want at most %d", waiting, most)
	}
	h.book.fail = nil
	h.settle()
	h.wantExchanges(0, logs*2*rows)
	for _, f := range h.ship.files {
		if f.batch.Records != nil || f.early != nil {
			t.Errorf("%s keeps room for %d records, and a reader %v", f.path, cap(f.batch.Records), f.early != nil)
		}
	}
}

func TestPostedRecordsDoNotKeepWhatWasRead(t *testing.T) {
	h := newHarness(t)
	h.write(ActiveLog, lines(0, 10))
	h.settle()
	if n := cap(h.ship.spare); n < 10 {
		t.Fatalf("room for %d records is kept", n)
	}
	for _, r := range h.ship.spare[:10] {
		if r.Model != "" {
			t.Errorf("a record is left: %+v", r)
		}
	}
}
