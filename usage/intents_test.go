// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/usage/journal"
)

// resolvingLedger is a ledger that is a Resolver too.
type resolvingLedger struct {
	*ledger
	unresolved map[uuid.UUID]Record
	refuse     func(records []Record) error // nil: nothing
	resolves   int
}

func newResolvingLedger() *resolvingLedger {
	return &resolvingLedger{ledger: newLedger(), unresolved: make(map[uuid.UUID]Record)}
}

func (l *resolvingLedger) Resolve(_ context.Context, b Batch) (rows int, err error) {
	got := l.exchanges()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.resolves++
	if l.refuse != nil {
		if err := l.refuse(b.Records); err != nil {
			return 0, err
		}
	}
	f := l.next()
	if f == faultRefused {
		return 0, errLedger
	}
	if b.To <= b.From || b.Writer == uuid.Nil {
		panic(fmt.Errorf("%w: resolved from %d to %d of %s", errBroken, b.From, b.To, b.Writer))
	}
	if at := l.positions[b.Writer]; at != b.From {
		return 0, fmt.Errorf("%w: at %d", ErrFenced, at)
	}
	l.positions[b.Writer] = b.To
	for _, r := range b.Records {
		if r.Status != StatusUnresolved || !r.Estimated {
			panic(fmt.Errorf("%w: resolved %+v", errBroken, r))
		}
		if _, is := l.unresolved[r.Exchange]; !is && got[r.Exchange] == 0 {
			l.unresolved[r.Exchange] = r
			rows++
		}
	}
	if f == faultLost {
		return 0, errLedger
	}
	return rows, nil
}

// save returns what puts everything back as it is now: a standby that lags takes over.
func (l *resolvingLedger) save() (rollBack func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	positions, unresolved, rows := maps.Clone(l.positions), maps.Clone(l.unresolved), maps.Clone(l.rows)
	for writer := range rows {
		rows[writer] = slices.Clone(rows[writer])
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.positions, l.unresolved, l.rows = maps.Clone(positions), maps.Clone(unresolved), maps.Clone(rows)
	}
}

func (l *resolvingLedger) Post(ctx context.Context, b Batch) error {
	before := l.Snapshot(b.Writer)
	err := l.ledger.Post(ctx, b)
	if l.Snapshot(b.Writer) != before { // whatever the answer says
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, r := range b.Records {
			delete(l.unresolved, r.Exchange)
		}
	}
	return err
}

// Snapshot returns the position of a log.
func (l *resolvingLedger) Snapshot(writer uuid.UUID) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.positions[writer]
}

// replica is a processor with its journal and its Envoy's log.
type replica struct {
	testing.TB
	dir     string // of the log; the journal is in jdir
	jdir    string
	book    *resolvingLedger
	guess   *Estimator
	journal *journal.Journal
	ship    *Shipper
	intents *Intents
	said    *bytes.Buffer
	lease   time.Duration
	heard   *heard // in this life
	pricer  Pricer
	o       journal.Options
	backlog int64 // IntentOptions.parkBacklog
}

func newReplica(t testing.TB, book *resolvingLedger, lease time.Duration) *replica {
	t.Helper()
	dir := t.TempDir()
	r := &replica{TB: t, dir: filepath.Join(dir, "log"), jdir: filepath.Join(dir, "journal-0"), book: book, said: &bytes.Buffer{}, lease: lease}
	r.o.SyncInterval = time.Hour // the disk is synced by a test of the journal's own; here it would only take time
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r.start()
	return r
}

// start begins a life of the processor.
func (r *replica) start() {
	r.Helper()
	j, found, err := journal.Open(r.jdir, r.o)
	if err != nil || len(found.Damage) > 0 {
		r.Fatal(err, found.Damage)
	}
	log := slog.New(slog.NewTextHandler(r.said, nil))
	r.guess, r.journal = NewEstimator(), j
	r.heard = &heard{TB: r.TB, left: make(map[uuid.UUID]bool), ends: make(map[uuid.UUID]How), over: make(map[uuid.UUID]bool)}
	r.intents = NewIntents(IntentOptions{Journal: j, Book: r.book, Reckoning: Reckoning{Estimator: r.guess, Pricer: r.pricer}, Lease: r.lease, Listeners: []Listener{r.heard}, Logger: log, parkBacklog: r.backlog})
	r.ship = NewShipper(Options{Dir: r.dir, Book: r.book, Intents: r.intents, Reckoning: Reckoning{Estimator: r.guess, Pricer: r.pricer}, Logger: log})
}

func (r *replica) stop() {
	r.Helper()
	if err := errors.Join(r.ship.close(), r.journal.Close()); err != nil {
		r.Fatal(err)
	}
}

// kill ends a life as SIGKILL does: the next goes on with what the files hold now.
func (r *replica) kill() {
	r.Helper()
	synctest.Wait() // files that are being written to cannot be copied
	next := r.jdir + "x"
	if err := os.CopyFS(next, os.DirFS(r.jdir)); err != nil {
		r.Fatal(err)
	}
	r.stop()
	r.jdir = next
	r.start()
}

// look lets the processor do what it does all the time.
func (r *replica) look() {
	r.ship.step(r.Context(), time.Now())
	r.intents.resolve(r.Context(), r.ship.DrainedAt())
}

// wait lets time pass, as the processor sees it.
func (r *replica) wait(d time.Duration) {
	for range 20 {
		time.Sleep(d / 20) //nolint:forbidigo // the time of a synctest bubble
		r.look()
	}
}

func (r *replica) write(s string) {
	r.Helper()
	f, err := os.OpenFile(filepath.Join(r.dir, ActiveLog), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(s)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		r.Fatal(err)
	}
}

// admission returns the n-th exchange of a test, as exchangeLine tells of it.
func admission(n int) *policy.Admission {
	ticket := testTicket(false)
	ticket.Exchange, _ = exchangeLine(n)
	return &policy.Admission{Exchange: ticket.Exchange, Ticket: ticket.String()}
}

func (r *replica) admit(n int) {
	r.Helper()
	if err := r.intents.Admitted(admission(n), 400+n); err != nil {
		r.Fatal(err)
	}
}

// want checks which exchanges have an unresolved row, and how many intents are open.
func (r *replica) want(open int, unresolved ...int) {
	r.Helper()
	expect, got := make(map[uuid.UUID]bool), make(map[uuid.UUID]bool)
	for _, n := range unresolved {
		expect[admission(n).Exchange] = true
	}
	for id := range r.book.unresolved {
		got[id] = true
	}
	if d := cmp.Diff(expect, got); d != "" {
		r.Errorf("unresolved (-want +got):\n%s", d)
	}
	if got := r.journal.Open(); got != open {
		r.Errorf("%d intents are open, want %d", got, open)
	}
}

// inTime runs a test with a replica, in a time of its own.
func inTime(t *testing.T, test func(t *testing.T, r *replica)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newReplica(t, newResolvingLedger(), 5*time.Minute)
		t.Cleanup(r.stop)
		test(t, r)
		if t.Failed() {
			t.Logf("the processor said:\n%s", r.said.String())
		}
	})
}

// periodic returns a line that says that the n-th exchange goes on.
func periodic(n int) string {
	_, line := exchangeLine(n)
	return strings.ReplaceAll(line, logTypeEnd, "DownstreamPeriodic")
}

func TestPostedLineSettlesItsIntent(t *testing.T) {
	inTime(t, func(_ *testing.T, r *replica) {
		for n := range 5 {
			r.admit(n)
		}
		r.write(lines(0, 3) + lines(10, 12))
		r.wait(time.Second)
		r.want(2)
		r.kill()
		r.want(2)
		r.wait(10 * time.Minute)
		r.want(0, 3, 4)
	})
}

func TestExchangeWithoutALineIsResolvedOnceItsLeaseIsOver(t *testing.T) {
	inTime(t, func(t *testing.T, r *replica) { //nolint:thelper // the case itself, not a helper of it
		r.admit(7)
		r.wait(5*time.Minute - time.Second)
		r.want(1)
		r.wait(2 * time.Second)
		r.want(0, 7)
		ticket, err := policy.ParseTicket(admission(7).Ticket)
		if err != nil {
			t.Fatal(err)
		}
		want := Record{
			Exchange: ticket.Exchange, Time: ticket.Time(), Tenant: ticket.Tenant, Key: ticket.Key, Channel: ticket.Choices[0].Channel,
			Model: ticket.Model, UpstreamModel: ticket.Choices[0].Upstream, Operation: ticket.Operation, Status: StatusUnresolved,
			Estimated: true, Tokens: Tokens{Input: 102, Output: defaultOutput}, Billed: Billed{102, defaultOutput}, RequestBytes: 407, FirstByte: -1,
		}
		if d := cmp.Diff(want, r.book.unresolved[ticket.Exchange]); d != "" {
			t.Errorf("row (-want +got):\n%s", d)
		}
	})
}

func TestLineThatComesLateCorrects(t *testing.T) {
	inTime(t, func(t *testing.T, r *replica) { //nolint:thelper // the case itself, not a helper of it
		r.admit(1)
		r.wait(6 * time.Minute)
		r.want(0, 1)
		r.write(lines(1, 2))
		r.wait(time.Second)
		r.want(0)
		if got := r.book.exchanges()[admission(1).Exchange]; got != 1 {
			t.Errorf("%d rows", got)
		}
	})
}

func TestLongStreamKeepsItsLease(t *testing.T) {
	inTime(t, func(_ *testing.T, r *replica) {
		r.admit(1)
		r.admit(2)
		for range 20 {
			r.write(periodic(1))
			r.wait(time.Minute)
		}
		r.want(1, 2)
		r.write(lines(1, 2))
		r.wait(time.Second)
		r.want(0, 2)
	})
}

func TestFailedAttemptIsASignOfLife(t *testing.T) {
	inTime(t, func(_ *testing.T, r *replica) {
		r.admit(1)
		r.wait(4 * time.Minute)
		r.write(fmt.Sprintf(`{"attempt":1,"cluster":"channel-1","kind":"attempt","status":429,"exchange":"%s"}`+"\n", admission(1).Exchange))
		r.wait(4 * time.Minute)
		r.want(1)
	})
}

func TestExchangeWhoseAdmissionEnvoyNeverHeardOfMakesNoRow(t *testing.T) {
	inTime(t, func(_ *testing.T, r *replica) {
		r.admit(1)
		r.admit(2)
		r.kill()
		line := fmt.Sprintf(`{"kind":"exchange","exchange":"%s","ticket":null,"status":503,"log_type":"DownstreamEnd"}`+"\n", admission(1).Exchange)
		r.write(strings.ReplaceAll(line, logTypeEnd, "DownstreamPeriodic"))
		r.write(`{"kind":"exchange","exchange":"x","status":0}` + "\n")
		r.wait(time.Second)
		r.want(2)
		r.write(line)
		r.wait(time.Second)
		r.want(1)
		r.wait(time.Hour)
		r.want(0, 2)
	})
}

func TestLeaseDoesNotEndWhileLinesWaitToBePosted(t *testing.T) {
	inTime(t, func(_ *testing.T, r *replica) {
		r.admit(1)
		r.book.fail = func() fault { return faultRefused }
		r.write(lines(1, 3))
		r.wait(time.Hour)
		r.want(1)
		r.book.fail = nil
		r.wait(time.Minute)
		r.want(0)
	})
}

func TestLeaseDoesNotEndWhileTheLogsCannotBeRead(t *testing.T) {
	inTime(t, func(_ *testing.T, r *replica) {
		r.admit(1)
		r.wait(time.Second)
		hidden := r.dir + "-hidden"
		if err := os.Rename(r.dir, hidden); err != nil {
			r.Fatal(err)
		}
		r.wait(time.Hour)
		r.want(1)
		if err := os.Rename(hidden, r.dir); err != nil {
			r.Fatal(err)
		}
		r.wait(time.Second)
		r.want(0, 1)
	})
}

func TestLeaseBeginsAnewWithTheProcess(t *testing.T) {
	inTime(t, func(_ *testing.T, r *replica) {
		r.admit(1)
		r.wait(4 * time.Minute)
		r.kill()
		r.wait(4 * time.Minute)
		r.want(1)
		r.wait(2 * time.Minute)
		r.want(0, 1)
	})
}

func TestEndOfEnvoyEndsTheLeasesOfItsExchanges(t *testing.T) {
	inTime(t, func(_ *testing.T, r *replica) {
		r.admit(1)
		r.admit(2)
		r.wait(time.Second)
		r.write(periodic(1) + lines(2, 3)) // the last that it wrote
		r.intents.EnvoyGone()
		time.Sleep(100 * time.Millisecond) //nolint:forbidigo // the time of a synctest bubble
		r.admit(3)                         // to the next Envoy
		r.look()                           // only now what it wrote is read, and it is not posted yet
		r.want(3)
		r.wait(time.Second)
		r.want(1, 1)
		if !r.intents.goneAt().IsZero() {
			r.Error("Envoy is still held to be gone")
		}
		r.write(periodic(3))
		r.wait(4 * time.Minute)
		r.want(1, 1)
	})
}

func TestExchangeThatTheBookRefusesDoesNotHoldUpTheOthers(t *testing.T) {
	inTime(t, func(_ *testing.T, r *replica) {
		for n := range 40 {
			r.admit(n)
		}
		poison := admission(13).Exchange
		r.book.refuse = func(records []Record) error {
			for _, one := range records {
				if one.Exchange == poison {
					return errLedger
				}
			}
			return nil
		}
		for range 30 {
			r.wait(time.Minute)
		}
		if got := r.journal.Open(); got != 1 || len(r.book.unresolved) != 39 {
			r.Errorf("%d are open, %d resolved", got, len(r.book.unresolved))
		}
		r.book.refuse = nil
		r.wait(time.Minute)
		if len(r.book.unresolved) != 40 {
			r.Errorf("%d are resolved", len(r.book.unresolved))
		}
	})
}

func TestIntentWithoutATicketIsNamedAndDropped(t *testing.T) {
	inTime(t, func(_ *testing.T, r *replica) {
		a := admission(1)
		a.Ticket = "not a ticket"
		if err := r.intents.Admitted(a, 1); err != nil {
			r.Fatal(err)
		}
		other := admission(2)
		other.Exchange = uuid.Max
		if err := r.intents.Admitted(other, 1); err != nil {
			r.Fatal(err)
		}
		r.wait(time.Hour)
		r.want(0)
		for _, what := range []string{a.Exchange.String(), uuid.Max.String()} {
			if !strings.Contains(r.said.String(), "exchange_id="+what) {
				r.Errorf("%s is not named in:\n%s", what, r.said.String())
			}
		}
	})
}

func TestRunResolvesUntilItsContextEnds(t *testing.T) {
	inTime(t, func(t *testing.T, r *replica) { //nolint:thelper // the case itself, not a helper of it
		r.admit(1)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.intents.Run(ctx, time.Now) }()
		time.Sleep(6 * time.Minute) //nolint:forbidigo // the time of a synctest bubble
		synctest.Wait()
		r.want(0, 1)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestMeanOutputIsLearnedByModelAndOperation(t *testing.T) {
	e := NewEstimator()
	like := Record{Model: "m", Operation: policy.OpChat, Status: StatusOK}
	if got := e.MeanOutput(&like); got != defaultOutput {
		t.Errorf("got %d, want the default", got)
	}
	answer := like
	answer.Output, answer.ResponseBytes = 80, 400
	e.Learn(&answer)
	answer.Output = 180
	e.Learn(&answer)
	if got := e.MeanOutput(&like); got != 90 {
		t.Errorf("got %d, want 90: the average moves by a tenth", got)
	}
	like.Stream = true
	if got := e.MeanOutput(&like); got != 90 {
		t.Errorf("as a stream: got %d, want 90", got)
	}
	for _, other := range []Record{{Model: "n", Operation: policy.OpChat}, {Model: "m", Operation: policy.OpResponses}} {
		if got := e.MeanOutput(&other); got != defaultOutput {
			t.Errorf("%+v: got %d, want the default", other, got)
		}
	}
	embeddings := Record{Model: "m", Operation: policy.OpEmbeddings}
	if got := e.MeanOutput(&embeddings); got != 0 {
		t.Errorf("embeddings: got %d", got)
	}
	silent := Record{Model: "s", Operation: policy.OpChat, Status: StatusOK}
	e.Learn(&silent)
	if got := e.MeanOutput(&silent); got != 0 {
		t.Errorf("a model that answers nothing: got %d", got)
	}
}

func BenchmarkAdmitted(b *testing.B) {
	j, _, err := journal.Open(b.TempDir(), journal.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = j.Close() }()
	in := NewIntents(IntentOptions{Journal: j})
	a := admission(0)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		a.Exchange[0], a.Exchange[1], a.Exchange[2], a.Exchange[3] = byte(n), byte(n>>8), byte(n>>16), byte(n>>24)
		if err := in.Admitted(a, 1000); err != nil {
			b.Fatal(err)
		}
		j.Settle(a.Exchange)
	}
}
