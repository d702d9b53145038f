// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/google/uuid"
)

// spoolModel is Envoys that write, are killed, go deaf and are started anew, beside a processor that is killed and a book that fails and is
// set back.
type spoolModel struct {
	*spoolHarness
	rng     *rand.Rand
	written int
	backups map[uuid.UUID]bookPage // a standby of the book that lags
	since   time.Time              // when the backup was made
}

type bookPage struct {
	position int64
	rows     int
}

func (m *spoolModel) pick() *fakeEnvoy { return m.envoys[m.rng.IntN(len(m.envoys))] }

// backup remembers the book as it is.
func (m *spoolModel) backup() {
	m.backups, m.since = make(map[uuid.UUID]bookPage), m.now
	for w, p := range m.book.positions {
		m.backups[w] = bookPage{p, len(m.book.rows[w])}
	}
}

// setBack makes the book what it was when it was remembered, unless that is longer ago than logs are kept.
func (m *spoolModel) setBack() {
	if m.now.Sub(m.since) >= m.so.Keep {
		return
	}
	for w := range m.book.positions {
		p := m.backups[w] // the zero page for a log that came later
		m.book.positions[w], m.book.rows[w] = p.position, m.book.rows[w][:p.rows]
	}
}

// die ends an Envoy in the middle of a line, and starts another in its place.
func (m *spoolModel) die(e *fakeEnvoy) {
	_, line := exchangeLine(1 << 20) // whose exchange is never whole
	_, err := e.file.WriteString(line[:m.rng.IntN(len(line)-2)])
	m.must(err)
	e.close()
	e.pending, e.failures = false, 0
	e.open()
}

func (m *spoolModel) act() {
	e := m.pick()
	switch p := m.rng.IntN(100); {
	case p < 40:
		n := 1 + m.rng.IntN(8)
		e.write(lines(m.written, m.written+n))
		m.written += n
	case p < 80:
		m.pass(time.Duration(m.rng.IntN(90)) * time.Second)
	case p < 84:
		m.die(e)
	case p < 88:
		e.away = !e.away
	case p < 91:
		e.deaf = !e.deaf
	case p < 93:
		e.idle = !e.idle
	case p < 95:
		m.restart()
	case p < 96:
		m.vol.free = m.rng.Int64N(4 * m.so.MinFree)
	case p < 97:
		e.failures++
	case p < 99:
		m.backup()
	default:
		m.setBack()
	}
}

func TestNothingIsLostBetweenRotatingReopeningDeletingAndSettingBack(t *testing.T) {
	for seed := range uint64(manySeeds()) / 10 {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := &spoolModel{spoolHarness: newSpoolHarness(t), rng: rand.New(rand.NewPCG(seed, 2))}
			m.now = time.Now() // by which files have their age
			m.so.RotateBytes, m.so.RotateAge = 1500, 5*time.Minute
			m.so.Keep, m.so.MaxBytes, m.so.MinFree = time.Hour, 1<<40, 1<<30
			if m.rng.IntN(2) == 0 {
				// Where it cannot be seen who has a log open, an Envoy that says that it has opened the next has closed it.
				m.so.held = func(string) held { return heldUnknown }
			}
			m.o.BatchRows, m.o.RetryMax = 1+m.rng.IntN(20), 5*time.Second
			m.envoy("exchanges.second.jsonl")
			m.restart()
			m.book.fail = func() fault {
				return []fault{faultNone, faultNone, faultNone, faultNone, faultRefused, faultLost}[m.rng.IntN(6)]
			}
			m.backup()
			for range 250 {
				m.act()
				if m.vol.free < 2*m.so.MinFree { // whole logs go early then: those cannot be read again
					m.backup()
				}
			}
			for _, e := range m.envoys {
				e.away, e.deaf, e.idle = false, false, false
				e.write("\n") // behind a torn line
			}
			m.vol.free = 10 << 30
			m.book.fail = nil
			m.pass(5 * time.Minute)
			m.settle()
			m.wantExchanges(0, m.written)
			m.pass(3 * time.Hour)
			m.wantExchanges(0, m.written)
			if m.spool.Denial() != nil {
				t.Error("the gate is closed")
			}
			for _, name := range m.logs() {
				if name != ActiveLog && name != "exchanges.second.jsonl" {
					t.Errorf("%s is left", name)
				}
			}
			for _, e := range m.envoys {
				if info, err := os.Stat(m.path(e.name)); err != nil || info.Size() > 0 {
					t.Errorf("%s: %v, want an empty log", e.name, err)
				}
			}
			if t.Failed() {
				said := m.said.String()
				t.Logf("seed %d; at last was said:\n%s", seed, said[max(0, len(said)-3000):])
			}
		})
	}
}
