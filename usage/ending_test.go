// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/weir-proxy/weir/policy"
)

// heard is a [Listener] that fails the test if it is told of an exchange twice. It listens to every test of intents.
type heard struct {
	testing.TB
	left map[uuid.UUID]bool
	ends map[uuid.UUID]How
	over map[uuid.UUID]bool
}

func (h *heard) Finished(r *Record) {
	if h.over[r.Exchange] {
		h.Errorf("exchange %s is told twice to be over", r.Exchange)
	}
	h.over[r.Exchange] = true
}

func (h *heard) Left(t *policy.Ticket) {
	if h.left[t.Exchange] || len(h.ends) > 0 {
		h.Errorf("exchange %s was left twice, or after the end of another", t.Exchange)
	}
	h.left[t.Exchange] = true
}

func (h *heard) Ended(e Ending) {
	if how, twice := h.ends[e.Exchange]; twice {
		h.Errorf("the end of exchange %s is told twice, as %d and as %d", e.Exchange, how, e.How)
	}
	h.ends[e.Exchange] = e.How
	if told := e.Record != nil; told != (e.How == Posted || e.How == Resolved) || told && e.Record.Exchange != e.Exchange {
		h.Errorf("end of exchange %s: %+v with the record %+v", e.Exchange, e.How, e.Record)
	}
}

// wantEnds checks how exchanges ended in this life.
func (r *replica) wantEnds(want map[int]How) {
	r.Helper()
	ends := make(map[uuid.UUID]How)
	for n, how := range want {
		ends[admission(n).Exchange] = how
	}
	if d := cmp.Diff(r.heard.ends, ends); d != "" {
		r.Errorf("ends (-got +want):\n%s", d)
	}
}

func TestEndOfEachExchangeIsToldOnce(t *testing.T) {
	inTime(t, func(_ *testing.T, r *replica) {
		for n := range 4 {
			r.admit(n)
		}
		r.write(lines(0, 2) + lines(10, 11)) // the last was admitted elsewhere
		r.wait(time.Second)
		r.wantEnds(map[int]How{0: Posted, 1: Posted})
		r.intents.undelivered(admission(2).Exchange.String())
		r.intents.undelivered(admission(2).Exchange.String())
		r.wait(10 * time.Minute)
		r.wantEnds(map[int]How{0: Posted, 1: Posted, 2: Undelivered, 3: Resolved})
		r.write(lines(3, 4)) // its line comes after all
		r.wait(time.Minute)
		r.want(0)
		r.wantEnds(map[int]How{0: Posted, 1: Posted, 2: Undelivered, 3: Resolved})
	})
}

func TestWhatTheBookForgotIsNotToldAgain(t *testing.T) {
	inTime(t, func(_ *testing.T, r *replica) {
		r.admit(0)
		r.admit(1)
		rollBack := r.book.save()
		r.write(lines(0, 1))
		r.wait(10 * time.Minute)
		r.wantEnds(map[int]How{0: Posted, 1: Resolved})
		rollBack()
		r.wait(10 * time.Minute)
		r.want(0, 1)
		r.wantEnds(map[int]How{0: Posted, 1: Resolved})
	})
}

func TestNextLifeIsToldWhatTheLastOneLeft(t *testing.T) {
	inTime(t, func(_ *testing.T, r *replica) {
		for n := range 3 {
			r.admit(n)
		}
		r.write(lines(0, 1))
		r.wait(time.Second)
		r.kill()
		if d := cmp.Diff(r.heard.left, map[uuid.UUID]bool{admission(1).Exchange: true, admission(2).Exchange: true}); d != "" {
			r.Errorf("left (-got +want):\n%s", d)
		}
		r.write(lines(1, 2))
		r.wait(10 * time.Minute)
		r.wantEnds(map[int]How{1: Posted, 2: Resolved})
	})
}

func TestIntentThatCannotBeReadIsToldAsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReplica(t, newResolvingLedger(), 5*time.Minute)
		t.Cleanup(func() { _ = errors.Join(r.ship.close(), r.journal.Close()) }) // the journal is damaged on purpose
		r.admit(0)
		segments, err := filepath.Glob(filepath.Join(r.jdir, "*.seg"))
		if err != nil || len(segments) == 0 {
			t.Fatal(segments, err)
		}
		for _, s := range segments {
			if err := os.Truncate(s, 48); err != nil {
				t.Fatal(err)
			}
		}
		r.wait(10 * time.Minute)
		r.wantEnds(map[int]How{0: Lost})
	})
}
