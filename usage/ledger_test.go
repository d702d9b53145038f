// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
)

// ledger is a Book in memory, which holds to the rules of a real one and can be made to fail.
type ledger struct {
	mu        sync.Mutex
	positions map[uuid.UUID]int64
	rows      map[uuid.UUID][]Record
	fail      func() fault // nil: never
	posts     int
}

// fault is how a call fails.
type fault int

const (
	faultNone    fault = iota
	faultRefused       // nothing was written
	faultLost          // it was written, and the answer lost
)

var (
	errLedger = errors.New("the database is away")
	errBroken = errors.New("a rule of Book was broken")
)

func newLedger() *ledger {
	return &ledger{positions: make(map[uuid.UUID]int64), rows: make(map[uuid.UUID][]Record)}
}

func (l *ledger) next() fault {
	if l.fail == nil {
		return faultNone
	}
	return l.fail()
}

func (l *ledger) Position(_ context.Context, writer uuid.UUID) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next() != faultNone {
		return 0, errLedger
	}
	return l.positions[writer], nil
}

func (l *ledger) Post(ctx context.Context, b Batch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.posts++
	if err := ctx.Err(); err != nil {
		return err
	}
	at := b.From
	for _, r := range b.Records {
		if r.Seq <= at || r.Seq > b.To {
			panic(fmt.Errorf("%w: record at %d behind %d in a batch from %d to %d", errBroken, r.Seq, at, b.From, b.To))
		}
		at = r.Seq
	}
	if b.To <= b.From || b.Writer == uuid.Nil {
		panic(fmt.Errorf("%w: batch from %d to %d of %s", errBroken, b.From, b.To, b.Writer))
	}
	f := l.next()
	if f == faultRefused {
		return errLedger
	}
	if l.positions[b.Writer] != b.From {
		return fmt.Errorf("%w: at %d", ErrFenced, l.positions[b.Writer])
	}
	l.positions[b.Writer] = b.To
	l.rows[b.Writer] = append(l.rows[b.Writer], b.Records...)
	if f == faultLost {
		return errLedger
	}
	return nil
}

// exchanges returns how often each exchange is in the book.
func (l *ledger) exchanges() map[uuid.UUID]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := make(map[uuid.UUID]int)
	for _, rows := range l.rows {
		for _, r := range rows {
			n[r.Exchange]++
		}
	}
	return n
}

// exchangeLine returns the line of the n-th exchange of a test, with its newline. Its output tokens are n.
func exchangeLine(n int) (uuid.UUID, string) {
	ticket := testTicket(false)
	ticket.Exchange = uuid.NewSHA1(uuid.Nil, fmt.Append(nil, n))
	usage := fmt.Sprintf(`{\"prompt_tokens\":1,\"completion_tokens\":%d,\"note\":\"{\"}`, n)
	return ticket.Exchange, fmt.Sprintf(`{"attempts":1,"cluster":"channel-1","details":"via_upstream","duration":1,"first_byte":1,"flags":"-",`+
		`"kind":"exchange","log_type":"DownstreamEnd","rx":10,"start":"1795362624.103","status":200,"ticket":"%s","tx":2,"usage":"%s"}`+"\n",
		ticket, usage)
}

func attemptLine(n int) string {
	return fmt.Sprintf(`{"attempt":%d,"cluster":"channel-1","exchange":"%s","kind":"attempt","status":429}`+"\n", n, testTicket(false).Exchange)
}

// harness drives a Shipper step by step, with a clock of its own.
type harness struct {
	testing.TB
	dir  string
	book *ledger
	ship *Shipper
	now  time.Time
	said bytes.Buffer
	o    Options
}

func newHarness(t *testing.T) *harness { //nolint:thelper // the case itself, not a helper of it
	h := &harness{TB: t, dir: t.TempDir(), book: newLedger(), now: time.Unix(1_000_000, 0)}
	h.o = Options{Dir: h.dir, Book: h.book, Logger: slog.New(slog.NewTextHandler(&h.said, nil))}
	h.restart()
	t.Cleanup(func() { _ = h.ship.close() })
	return h
}

// restart puts a new shipper in the place of the old, as after SIGKILL.
func (h *harness) restart() {
	h.Helper()
	if h.ship != nil {
		if err := h.ship.close(); err != nil {
			h.Fatal(err)
		}
	}
	h.ship = NewShipper(h.o)
	h.ship.watch = func(string) (*wakeup, error) { return nil, errLedger } // the clock of a test stands still while somebody waits for the kernel
}

// step lets so much time pass and makes the shipper look.
func (h *harness) step(d time.Duration) {
	h.now = h.now.Add(d)
	h.ship.step(h.Context(), h.now)
}

// settle steps until nothing is left to ship, or for long enough to know that it will not be.
func (h *harness) settle() {
	for range 1000 {
		h.step(10 * time.Second)
		if h.ship.Drained() {
			break
		}
	}
	h.step(10 * time.Second) // lets go of logs that are gone
	h.step(10 * time.Second)
}

func (h *harness) path(name string) string { return filepath.Join(h.dir, name) }

func (h *harness) write(name, s string) {
	h.Helper()
	f, err := os.OpenFile(h.path(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(s)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		h.Fatal(err)
	}
}

// must fails the test on an error of the file system.
func (h *harness) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// wantExchanges checks that the book has the exchanges from..to-1, each once, and no other.
func (h *harness) wantExchanges(from, to int) {
	h.Helper()
	got := h.book.exchanges()
	for n := from; n < to; n++ {
		id, _ := exchangeLine(n)
		if got[id] != 1 {
			h.Errorf("exchange %d is in the book %d times", n, got[id])
		}
		delete(got, id)
	}
	if len(got) > 0 {
		h.Errorf("the book has %d other exchanges", len(got))
	}
	if h.Failed() {
		h.Fatalf("the shipper said:\n%s", h.said.String())
	}
}

// lines returns the lines of the exchanges from..to-1.
func lines(from, to int) (s string) {
	for n := from; n < to; n++ {
		_, l := exchangeLine(n)
		s += l
	}
	return s
}
