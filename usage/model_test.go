// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
)

var seeds = flag.Int("seeds", 300, "how many seeds TestEveryExchangeIsInTheBookOnce runs")

// manySeeds is how many: fewer with -short, as for the race detector.
func manySeeds() int {
	if testing.Short() {
		return min(*seeds, 90)
	}
	return *seeds
}

// model is an Envoy that writes, is killed and has its log rotated, beside a shipper that is killed, and a book that fails.
type model struct {
	*harness
	rng     *rand.Rand
	log     *os.File // what Envoy has open
	queued  string   // what Envoy has not flushed of its buffer
	written int      // exchanges whose lines Envoy has begun
	rotated int
	holding bool              // the shipper holds a deleted log open: killing it would lose what is in there
	whole   map[uuid.UUID]int // the exchanges whose whole object is on the disk, by number
}

func (m *model) open() {
	f, err := os.OpenFile(m.path(ActiveLog), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	m.must(err)
	m.log = f
}

// flush writes n bytes of what is queued.
func (m *model) flush(n int) {
	_, err := m.log.WriteString(m.queued[:n])
	m.must(err)
	m.queued = m.queued[n:]
}

// kill ends Envoy: what it had not flushed is lost, up to a random point of it. The next Envoy appends to the same file.
func (m *model) kill() {
	if len(m.queued) > 0 {
		m.flush(m.rng.IntN(len(m.queued) + 1))
	}
	m.queued = ""
	m.must(m.log.Close())
	m.open()
}

// rotate renames the log under Envoy, which may write to it still before it opens another.
func (m *model) rotate() {
	m.rotated++
	name := fmt.Sprintf("%s.%d", ActiveLog, m.rotated)
	if m.rotated%3 == 0 {
		name = fmt.Sprintf("exchanges-%d.jsonl", m.rotated)
	}
	m.must(os.Rename(m.path(ActiveLog), m.path(name)))
	if m.rng.IntN(2) == 0 {
		m.look()
	}
	switch m.rng.IntN(3) {
	case 0:
		m.flush(len(m.queued)) // reopened in order
	case 1:
		m.kill() // it never got to
		return
	}
	m.must(m.log.Close())
	m.queued = ""
	m.open()
}

// renumber renames an old log once more, as logrotate does, or deletes it, whether it is in the book or not.
func (m *model) renumber() {
	logs := slices.DeleteFunc(slices.Clone(m.ship.Logs()), func(l Log) bool {
		_, err := os.Stat(l.Path)
		return l.Gone || err != nil || l.Path == m.path(ActiveLog)
	})
	if len(logs) == 0 {
		return
	}
	l := logs[m.rng.IntN(len(logs))]
	if l.Writer != uuid.Nil && m.rng.IntN(2) == 0 {
		m.note()
		m.must(os.Remove(l.Path))
		m.holding = true
		return
	}
	m.rotated++
	m.must(os.Rename(l.Path, m.path(fmt.Sprintf("%s.old-%d", ActiveLog, m.rotated))))
}

// look makes the shipper look.
func (m *model) look() {
	m.step(time.Duration(m.rng.IntN(400)) * time.Millisecond)
	m.holding = slices.ContainsFunc(m.ship.Logs(), func(l Log) bool { return l.Gone })
}

func (m *model) act() {
	switch p := m.rng.IntN(100); {
	case p < 35:
		if m.rng.IntN(4) == 0 {
			m.queued += attemptLine(m.written)
		}
		_, line := exchangeLine(m.written)
		m.queued += line
		m.written++
	case p < 65:
		m.flush(m.rng.IntN(len(m.queued) + 1))
	case p < 90:
		m.look()
	case p < 92:
		m.kill()
	case p < 94:
		m.rotate()
	case p < 97:
		m.renumber()
	case !m.holding:
		m.restart()
	}
}

// note remembers which exchanges are whole in the directory, in the simplest way that can be. A log without any newline has no identity yet,
// and is left out.
func (m *model) note() {
	entries, err := os.ReadDir(m.dir)
	m.must(err)
	for _, e := range entries {
		b, err := os.ReadFile(m.path(e.Name()))
		m.must(err)
		if !bytes.ContainsRune(b, '\n') {
			continue
		}
		for n := range m.written {
			id, line := exchangeLine(n)
			if bytes.Contains(b, []byte(line[:len(line)-1])) {
				m.whole[id] = n
			}
		}
	}
}

func (m *model) check() {
	m.Helper()
	got := m.book.exchanges()
	for id, n := range m.whole {
		if got[id] != 1 {
			m.Errorf("exchange %d is in the book %d times", n, got[id])
		}
		delete(got, id)
	}
	for id := range got {
		m.Errorf("%s is in the book, and was never whole in a log", id)
	}
	for writer, rows := range m.book.rows {
		last := int64(0)
		for _, r := range rows {
			if want := r.Output; r.Seq <= last || r.Estimated || r.Exchange != uuid.NewSHA1(uuid.Nil, fmt.Append(nil, want)) {
				m.Errorf("writer %s: record at %d behind %d: %+v", writer, r.Seq, last, r)
			}
			last = r.Seq
		}
	}
}

func TestEveryExchangeIsInTheBookOnce(t *testing.T) {
	for seed := range uint64(manySeeds()) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := &model{harness: newHarness(t), rng: rand.New(rand.NewPCG(seed, 1)), whole: make(map[uuid.UUID]int)}
			m.o.BatchRows, m.o.RetryMax = 1+m.rng.IntN(8), 200*time.Millisecond
			m.restart()
			m.open()
			m.book.fail = func() fault { return []fault{faultNone, faultNone, faultNone, faultRefused, faultLost}[m.rng.IntN(5)] }
			for range 300 {
				m.act()
			}
			m.flush(len(m.queued))
			m.must(m.log.Close())
			m.note()
			m.book.fail = nil
			m.settle()
			m.check()
			if !m.ship.Drained() {
				t.Errorf("not drained: %+v", m.ship.Logs())
			}
			if t.Failed() {
				said := m.said.String()
				t.Logf("seed %d; at last the shipper said:\n%s", seed, said[max(0, len(said)-2000):])
			}
		})
	}
}
