// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/usage/journal"
)

// intentsModel is two processors that share a book, and Envoys that may forget to write a line, or write it late, or into the other's log.
type intentsModel struct {
	testing.TB
	rng      *rand.Rand
	book     *resolvingLedger
	replicas []*replica
	admitted []*admittedExchange
	due      map[*admittedExchange]time.Time // when its line is written

	parked int // intents, at most

	rollBack func() // to a state that the book had at a time; nil: none was saved
	saved    time.Time
}

// admittedExchange is what is known of an exchange.
type admittedExchange struct {
	n       int
	at      *replica
	sign    time.Time // of life: the last
	written time.Time // when its line was; zero: never
	to      *replica  // whose log it is in
}

func (m *intentsModel) admit() {
	x := &admittedExchange{n: len(m.admitted), at: m.replicas[m.rng.IntN(2)], sign: time.Now()}
	x.to = x.at
	m.admitted = append(m.admitted, x)
	x.at.admit(x.n)
	wait := time.Duration(m.rng.IntN(60)) * time.Second
	switch m.rng.IntN(10) {
	case 0:
		return // no line ever
	case 1:
		wait += time.Duration(m.rng.IntN(20)) * time.Minute // perhaps after its lease
	case 2:
		x.to = m.replicas[m.rng.IntN(2)]
	}
	m.due[x] = time.Now().Add(wait)
}

// envoys write the lines that are due.
func (m *intentsModel) envoys() {
	now := time.Now()
	for _, x := range m.admitted { // in order, so that a seed is always the same
		at, is := m.due[x]
		switch {
		case !is:
		case !at.After(now):
			m.write(x.to, lines(x.n, x.n+1))
			x.written = now
			delete(m.due, x)
		case now.Sub(x.sign) >= time.Minute && m.rng.IntN(2) == 0:
			m.write(x.to, periodic(x.n))
			if x.to == x.at {
				x.sign = now
			}
		}
	}
}

// write writes a line, with something torn before it at times.
func (m *intentsModel) write(r *replica, line string) {
	if m.rng.IntN(10) == 0 {
		line = `{"kind":"exchange","tick` + line
	}
	r.write(line)
}

// allowed says why an exchange must not be given up; it is the Resolver's view of every call.
func (m *intentsModel) allowed(records []Record) error {
	now := time.Now()
	byID := make(map[uuid.UUID]*admittedExchange)
	for _, x := range m.admitted {
		byID[admission(x.n).Exchange] = x
	}
	for _, r := range records {
		x := byID[r.Exchange]
		if x == nil {
			m.Errorf("an exchange that was never admitted is given up: %+v", r)
			continue
		}
		if d := now.Sub(x.sign); d < x.at.lease {
			m.Errorf("exchange %d is given up %v after a sign of life", x.n, d)
		}
		drained := x.at.ship.DrainedAt()
		rows := 0
		for _, posted := range m.book.rows {
			for i := range posted {
				if posted[i].Exchange == r.Exchange {
					rows++
				}
			}
		}
		if x.to == x.at && !x.written.IsZero() && x.written.Before(drained) && rows == 0 {
			m.Errorf("exchange %d is given up, and its line was written at %v, before %v", x.n, x.written, drained)
		}
	}
	return nil
}

func (m *intentsModel) act() {
	for _, r := range m.replicas {
		m.parked = max(m.parked, r.journal.Parked())
	}
	switch p := m.rng.IntN(100); {
	case p < 40:
		m.admit()
	case p < 60:
		time.Sleep(time.Duration(m.rng.IntN(40)) * time.Second) //nolint:forbidigo // the time of a synctest bubble
		m.envoys()
	case p < 92:
		m.replicas[m.rng.IntN(2)].look()
	case p < 93:
		m.rollBack, m.saved = m.book.save(), time.Now()
	case p < 94:
		if m.rollBack != nil && time.Since(m.saved) < DefaultKeep-time.Minute {
			m.rollBack()
		}
	case p < 97:
		m.replicas[m.rng.IntN(2)].kill()
	case p < 98:
		r := m.replicas[m.rng.IntN(2)]
		r.stop()
		r.start()
	default:
		often := m.rng.IntN(4)
		m.book.fail = func() fault {
			if often == 0 || m.rng.IntN(often) > 0 {
				return faultNone
			}
			return []fault{faultRefused, faultLost}[m.rng.IntN(2)]
		}
	}
}

// check looks at the book when everything has come to rest.
func (m *intentsModel) check() {
	got := m.book.exchanges()
	for _, x := range m.admitted {
		id := admission(x.n).Exchange
		_, unresolved := m.book.unresolved[id]
		switch {
		case !x.written.IsZero() && (got[id] != 1 || unresolved):
			m.Errorf("exchange %d, whose line was written: %d rows, unresolved %v", x.n, got[id], unresolved)
		case x.written.IsZero() && (got[id] != 0 || !unresolved):
			m.Errorf("exchange %d, which has no line: %d rows, unresolved %v", x.n, got[id], unresolved)
		}
		delete(got, id)
	}
	if len(got) > 0 {
		m.Errorf("%d rows of exchanges that were not admitted", len(got))
	}
	for i, r := range m.replicas {
		if n := r.journal.Open(); n > 0 {
			m.Errorf("processor %d has %d open intents", i, n)
		}
	}
}

func TestEveryAdmittedExchangeHasOneRow(t *testing.T) {
	parked := 0
	for seed := range uint64(max(manySeeds()/3, 1)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				book := newResolvingLedger()
				m := &intentsModel{TB: t, rng: rand.New(rand.NewPCG(seed, 9)), book: book, due: make(map[*admittedExchange]time.Time)}
				for range 2 {
					r := newReplica(t, book, 5*time.Minute)
					defer r.stop()
					if seed%2 == 1 { // intents leave memory whenever the book is behind
						r.stop()
						r.o, r.backlog = journal.Options{SyncInterval: time.Second, SegmentBytes: 1500, ParkAbove: 3}, 300
						r.start()
					}
					m.replicas = append(m.replicas, r)
				}
				book.refuse = m.allowed
				for range 300 {
					m.act()
				}
				book.fail = nil
				for range 60 {
					time.Sleep(time.Minute) //nolint:forbidigo // the time of a synctest bubble
					m.envoys()
					for _, r := range m.replicas {
						r.look()
						r.look()
					}
				}
				m.check()
				parked = max(parked, m.parked)
				if t.Failed() {
					for _, r := range m.replicas {
						said := r.said.String()
						t.Logf("seed %d; at last a processor said:\n%s", seed, said[max(0, len(said)-2000):])
					}
				}
			})
		})
	}
	t.Logf("%d intents were parked at most", parked)
	if manySeeds() > 20 && parked == 0 {
		t.Error("intents were never parked")
	}
}
