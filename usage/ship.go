// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-proxy/weir/policy"
)

// Options say how a [Shipper] works. Zero values mean the defaults; only Dir and Book have none.
type Options struct {
	Dir  string // where Envoy writes its log
	Book Book

	Poll          time.Duration // how often to look for more, unless nothing changes; 100 ms
	BatchRows     int           // records in a batch at most; 50,000
	BatchBytes    int64         // bytes of the log in a batch, or a little more; 64 MiB
	BatchInterval time.Duration // how long a record waits for a batch to fill; 250 ms
	Retries
	DrainTimeout time.Duration // how long [Shipper.Run] goes on after its context ended; 10 s

	// OnAttempt is told of failed attempts, in the order of the log, at most once each in the life of a Shipper; after a restart those
	// behind the book's position come again. It must return quickly. May be nil.
	OnAttempt func(Attempt)

	Spool   *Spool   // says which logs may be deleted; nil: none
	Intents *Intents // told what becomes of exchanges; nil: nobody
	Reckoning

	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil: no metrics
	Clock      func() time.Time      // nil means time.Now
}

// Retries say when a call of the book has failed, when it is tried again, and how far its answers are trusted. Zero values mean the defaults.
type Retries struct {
	PostTimeout time.Duration // for one call of the book; 30 s
	RetryMin    time.Duration // wait after a first failure; 100 ms
	RetryMax    time.Duration // longest wait between two attempts; 5 s

	CheckInterval time.Duration // how often the book is asked for the position of a log with nothing to ship; 10 s
}

func (o *Options) setDefaults() {
	duration := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	duration(&o.Poll, 100*time.Millisecond)
	duration(&o.BatchInterval, 250*time.Millisecond)
	duration(&o.PostTimeout, 30*time.Second)
	duration(&o.RetryMin, 100*time.Millisecond)
	duration(&o.RetryMax, 5*time.Second)
	duration(&o.DrainTimeout, 10*time.Second)
	duration(&o.CheckInterval, 10*time.Second)
	if o.BatchRows <= 0 {
		o.BatchRows = 50_000
	}
	if o.BatchBytes <= 0 {
		o.BatchBytes = 64 << 20
	}
	if o.OnAttempt == nil {
		o.OnAttempt = func(Attempt) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Estimator == nil {
		o.Estimator = NewEstimator()
	}
	o.Clock = clockOr(o.Clock)
}

// clockOr returns the clock, or the system's when there is none.
func clockOr(clock func() time.Time) func() time.Time {
	if clock == nil {
		return time.Now //nolint:forbidigo // the one place where the clock's default is named
	}
	return clock
}

// Shipper follows the logs in a directory and posts what they tell to a [Book]: every exchange once, in the order of its log.
//
// It keeps no state of its own. The book says up to where each log is posted, and moves that position in the transaction that writes the
// rows; so it does not matter when this process, Envoy or the database dies. What has not been posted stays on the disk, and is limited by
// it alone: at any time little more is held in memory than a batch and a chunk of each log, however long the book does not answer. What is new in
// the logs is told of all the same, to who is to be told of attempts, and to a [Watcher].
//
// A book that was set back, as by a fail-over to a standby that lagged, shows in its positions, which are read again from time to time: what
// it lost is shipped again from the logs that are still there. See [Spool] for how long that is.
//
// A log that the book will not take does not hold up the others; it is tried again and again, and nothing of it is skipped. That shows in
// weir_usage_ship_failures_total, weir_usage_unshipped_bytes and an error in the journal.
type Shipper struct {
	o       Options
	log     *slog.Logger
	metrics *metrics
	guess   *Estimator

	files  []*logFile        // owned by Run
	live   map[string]bool   // the stems of logs of which the directory has the one that Envoy writes to
	warned map[string]string // the last complaint about a path that cannot be opened
	spare  []Record          // room for the next batch
	intake
	draining bool
	blind    bool    // the last look did not see everything
	checking backoff // spaces out reading positions that nobody waits for, while the book does not answer

	logs    atomic.Pointer[[]Log]
	drained atomic.Pointer[time.Time]
}

// intake is what lines are taken in with.
type intake struct {
	found   Line   // the one that is being taken in
	peeking bool   // only to tell of it
	peeked  Record // of it, then
	tickets policy.TicketReader
	stirred bool                              // the last look found something new
	watch   func(dir string) (*wakeup, error) // tells of changes
}

// Log is the state of a log that a [Shipper] follows.
type Log struct {
	Path     string
	Writer   uuid.UUID // nil while there is no whole line
	Size     int64
	Position int64 // in the book; what is behind it is not
	Lag      int64 // bytes of whole lines behind it; never more than Size - Position
	Gone     bool  // deleted or cut short, and still held open for the lag

	Whole  time.Time // since when the book is known to have all of it; zero: it is not, or not yet
	Oldest time.Time // about when the first of the lines behind Position was written; zero without a lag
}

// NewShipper returns a shipper. It does nothing until Run is called.
func NewShipper(o Options) *Shipper {
	o.setDefaults()
	return &Shipper{
		o: o, log: o.Logger.With("dir", o.Dir), metrics: newMetrics(o.Registerer), guess: o.Estimator, warned: make(map[string]string),
		live: make(map[string]bool), intake: intake{watch: openWakeup},
	}
}

// ErrBacklog is wrapped by the error of [Shipper.Run] when it could not ship everything before it had to end. Nothing is lost: the rest is
// in the logs.
var ErrBacklog = errors.New("usage log is not in the database as a whole")

// Run ships until ctx ends, then ships what is on the disk by then, for DrainTimeout at most. If that did not suffice, the error wraps
// [ErrBacklog], and the rest is shipped after the next start. Without Dir or Book it returns an error at once. Call it once.
func (s *Shipper) Run(ctx context.Context) error {
	if s.o.Dir == "" || s.o.Book == nil {
		return errors.New("ship usage: no directory or no book")
	}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		deadline := time.AfterFunc(s.o.DrainTimeout, cancel)
		context.AfterFunc(work, func() { deadline.Stop() })
	})()
	p := s.newPace()
	for ctx.Err() == nil {
		s.stirred = false
		now := s.o.Clock()
		if s.step(work, now) {
			continue
		}
		if err := p.wait(ctx, s.stirred, s.rest(now)); err != nil {
			s.log.Warn("usage logs are no longer watched", "err", err)
		}
	}
	return errors.Join(p.close(), s.drain(work), s.close())
}

// drain ships what is on the disk now.
func (s *Shipper) drain(ctx context.Context) error {
	s.draining = true
	s.look()
	for _, f := range s.files {
		f.target, f.retry = f.info.Size(), backoff{}
	}
	poll := time.NewTicker(min(s.o.Poll, s.o.RetryMin))
	defer poll.Stop()
	for {
		busy := s.step(ctx, s.o.Clock())
		left := int64(0)
		for _, f := range s.files {
			left += f.lag(f.target)
		}
		if left == 0 {
			return nil
		}
		if busy && ctx.Err() == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %d bytes are left", ErrBacklog, left)
		case <-poll.C:
		}
	}
}

func (s *Shipper) close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.file.Close())
	}
	s.files = nil
	return errors.Join(errs...)
}

// Logs returns the logs that are followed, as of the last look. It may be called from any goroutine.
func (s *Shipper) Logs() []Log {
	if l := s.logs.Load(); l != nil {
		return *l
	}
	return nil
}

// Drained reports whether every whole line that the last look found is in the book. It may be called from any goroutine.
func (s *Shipper) Drained() bool {
	l := s.logs.Load()
	if l == nil {
		return false
	}
	for _, f := range *l {
		if f.Lag > 0 {
			return false
		}
	}
	return true
}

// DrainedAt returns the time of the last look if everything that was whole in the logs by then is in the book, else zero. It may be called
// from any goroutine.
func (s *Shipper) DrainedAt() time.Time {
	if at := s.drained.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

// noteDrained lets others see whether everything that a look at the time now found is in the book.
func (s *Shipper) noteDrained(now time.Time) {
	if s.blind || !s.Drained() {
		now = time.Time{}
	}
	s.drained.Store(&now)
}

// publish lets others see the state of the logs.
func (s *Shipper) publish() {
	logs := make([]Log, 0, len(s.files))
	total := int64(0)
	for _, f := range s.files {
		size := f.info.Size()
		l := Log{Path: f.path, Writer: f.batch.Writer, Size: size, Position: f.batch.From, Lag: f.lag(size), Gone: f.gone()}
		l.Whole, l.Oldest = f.audit.whole, f.oldest()
		total += l.Lag
		logs = append(logs, l)
	}
	s.logs.Store(&logs)
	s.o.Intents.behind(total)
	if s.o.Spool != nil {
		s.o.Spool.logs.Store(&logs)
	}
	s.metrics.lag.Set(float64(total))
	s.metrics.logs.Set(float64(len(logs)))
}
