// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/usage/journal"
)

// Resolver is where exchanges end that no line tells the end of. Calls come from one goroutine.
type Resolver interface {
	// Position returns up to where a writer is in the book, as in [Book]; 0 for one that the book does not know.
	Position(ctx context.Context, writer uuid.UUID) (int64, error)
	// Resolve writes the records, all of [StatusUnresolved], moves the position of the writer, which is that of no log, from b.From to b.To,
	// and returns how many rows that made; all of it or nothing. An exchange that has a row already, whoever wrote it, is left as it is; so
	// Resolve may be called again with the same records after any error. One that wraps [ErrFenced] says that the position is not b.From: the
	// book was set back, or an earlier call succeeded although it returned an error.
	//
	// When a line of such an exchange is posted later after all, the row that it makes takes the place of the unresolved one.
	Resolve(ctx context.Context, b Batch) (rows int, err error)
}

// Defaults of [IntentOptions].
const (
	DefaultLease        = 5 * time.Minute
	defaultResolveBatch = 500
)

// IntentOptions are what [Intents] need.
type IntentOptions struct {
	Journal   *journal.Journal
	Book      Resolver
	Reckoning // the one of the Shipper, whose records teach its Estimator

	// Lease is how long an exchange may show no sign of life until it is given up. It must be longer than Envoy takes between two lines of
	// a stream. Zero means DefaultLease.
	Lease time.Duration
	// Keep is how long an exchange that was given up stays in the journal, in case the book forgets its row: as long as logs stay for that
	// reason. Zero means DefaultKeep.
	Keep time.Duration

	Listeners []Listener // to be told of the ends of exchanges

	parkBacklog int64 // see behind

	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil: no metrics
}

// Intents see to it that an exchange that was admitted gets a row even if no line ever tells its end: because Envoy died, or the disk of
// the log was full.
//
//	admitted ──▶ open ──line posted by the Shipper────────────────────────▶ settled
//	              │ ▲ ──line without a ticket: Envoy was never told───────▶ settled, without a row
//	              │ └── line of a stream that lives: a new lease
//	              └──── lease over, logs read and posted to their end ──▶ Resolver ──▶ held ──Keep over──▶ settled
//	              ▲                                                                      │
//	              └──────────────── the book was set back ───────────────────────────────┘
//
// That a book was set back shows in a position of its own, which each call of the Resolver moves, as it shows to a [Shipper] in those of logs.
//
// While the book is far behind, as in an outage, most intents are on the disk alone: see [journal.Journal.Park].
//
// A lease is measured by the monotonic clock, and begins anew when the process does: then its lines may be waiting in the log. An exchange
// whose line another processor posts is found in the book when its lease ends here.
type Intents struct {
	o       IntentOptions
	log     *slog.Logger
	metrics intentMetrics
	every   time.Duration // between two looks

	watchers []Watcher // of o.Listeners

	mu   sync.Mutex
	gone time.Time // no Envoy of then lives any more; zero: all is well

	ids    []uuid.UUID // of a batch that was posted; owned by the Shipper
	firsts []uuid.UUID // of them, those whose end is to be told; owned by the Shipper

	batch  int // how many to resolve at once; owned by Run, as is the rest
	retry  backoff
	writer uuid.UUID // whose position the calls of the Resolver move; another in each life
	at     int64     // that position
	called bool      // the Resolver was; before, the position is 0
	placed time.Time // when the book was last asked for the position; zero: it must be asked again
}

type intentMetrics struct {
	unresolved prometheus.Counter
	setBack    prometheus.Counter
	failures   prometheus.Counter
	malformed  prometheus.Counter
}

// NewIntents returns intents, after the listeners were told of what an earlier life has left. Until Run is called none is resolved.
func NewIntents(o IntentOptions) *Intents {
	o.parkBacklog = cmp.Or(o.parkBacklog, defaultParkBacklog)
	o.Lease, o.Keep = cmp.Or(o.Lease, DefaultLease), cmp.Or(o.Keep, DefaultKeep)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Estimator == nil {
		o.Estimator = NewEstimator()
	}
	f := promauto.With(o.Registerer)
	in := &Intents{
		o: o, log: o.Logger, batch: defaultResolveBatch, writer: uuid.New(),
		every: min(max(o.Lease/20, 50*time.Millisecond), 5*time.Second),
		metrics: intentMetrics{
			unresolved: f.NewCounter(prometheus.CounterOpts{
				Name: "weir_usage_unresolved_total", Help: "Rows that were written of exchanges because no line of the access log told their end in time.",
			}),
			setBack: f.NewCounter(prometheus.CounterOpts{
				Name: "weir_usage_unresolved_set_back_total", Help: "How often the database had forgotten rows of exchanges that were given up, which were written again.",
			}),
			failures: f.NewCounter(prometheus.CounterOpts{
				Name: "weir_usage_resolve_failures_total", Help: "Failures to write rows of exchanges that were given up, each followed by another attempt.",
			}),
			malformed: f.NewCounter(prometheus.CounterOpts{
				Name: "weir_usage_malformed_intents_total", Help: "Intents without a ticket that can be read. They make no row; the log names each.",
			}),
		},
	}
	for _, l := range o.Listeners {
		if w, is := l.(Watcher); is {
			in.watchers = append(in.watchers, w)
		}
	}
	in.recover()
	return in
}

// Admitted notes an exchange before Envoy is told to let it through. With an error it must be refused, since its usage could be lost. It may
// be called by many goroutines at once; it waits for the disk only if the journal is to.
func (in *Intents) Admitted(a *policy.Admission, bodyBytes int) error {
	return in.o.Journal.Append(journal.Intent{Exchange: a.Exchange, Ticket: a.Ticket, Bytes: int64(bodyBytes)})
}

// EnvoyGone tells that no Envoy to which anything was admitted until now lives any more, and that none has a log open: there can be no other
// lines of these exchanges than those that are written already. So their leases end as soon as the logs are read and posted, instead of
// minutes later. [Spool.Abandoned] knows.
func (in *Intents) EnvoyGone() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.gone = time.Now() //nolint:forbidigo // the clock is read here, at the edge, and handed on
}

func (in *Intents) goneAt() time.Time {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.gone
}

// swept forgets that Envoy was gone, unless it was once more.
func (in *Intents) swept(gone time.Time) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.gone.Equal(gone) {
		in.gone = time.Time{}
	}
}

// posted settles the exchanges of records that are in the book. The methods that the Shipper calls do nothing without intents.
func (in *Intents) posted(records []Record) {
	if in == nil || len(records) == 0 {
		return
	}
	in.endPosted(records)
}

// undelivered settles an exchange whose decision did not reach Envoy, because the client or the processor was gone. It went to no channel, so
// that it is no admitted one, and makes no row.
func (in *Intents) undelivered(exchange string) {
	if in == nil {
		return
	}
	if id, err := uuid.Parse(exchange); err == nil {
		in.endWithout(id, Undelivered)
	}
}

// alive renews the lease of an exchange, unless its Envoy is dead: its last words may be read only now.
func (in *Intents) alive(exchange uuid.UUID) {
	if in != nil {
		in.o.Journal.Renew(exchange, in.goneAt())
	}
}

// defaultParkBacklog is some 25,000 lines. A book that takes them is hardly ever so far behind, however many exchanges are under way.
const defaultParkBacklog = 16 << 20

// behind is told by the Shipper, at each look, how many bytes of lines are not in the book. If these are many the intents of most of them leave memory,
// until they are few again.
func (in *Intents) behind(backlog int64) {
	switch {
	case in == nil:
	case backlog > in.o.parkBacklog:
		in.o.Journal.Park(true)
	case backlog < in.o.parkBacklog/4:
		in.o.Journal.Park(false)
	}
}

// Run resolves the exchanges whose lease is over, until ctx ends. Drained returns as of when everything in the logs was read and is in the
// book, zero while that is not so: [Shipper.DrainedAt], or the earliest of several. Call it once.
func (in *Intents) Run(ctx context.Context, drained func() time.Time) error {
	tick := time.NewTicker(in.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			in.resolve(ctx, drained())
		}
	}
}

// resolve gives up what showed no sign of life in all that was written until the time at.
func (in *Intents) resolve(ctx context.Context, at time.Time) {
	now := time.Now() //nolint:forbidigo // the clock is read here, at the edge, and handed on
	if at.IsZero() || now.Before(in.retry.at) || !in.check(ctx, now) {
		return
	}
	before := at.Add(-in.o.Lease)
	gone := in.goneAt()
	sweep := !gone.IsZero() && at.After(gone)
	if sweep && gone.After(before) {
		before = gone
	}
	for ctx.Err() == nil {
		quiet := in.o.Journal.Quiet(before, in.batch)
		in.lost()
		if len(quiet) == 0 {
			in.retry = backoff{}
			if sweep {
				in.swept(gone)
			}
			return
		}
		if !in.giveUp(ctx, quiet) {
			return
		}
	}
}

const (
	// resolveTimeout bounds one call of the book.
	resolveTimeout = 30 * time.Second
	// checkInterval is how often the book is asked whether it still has what was given up, as long as it might forget it.
	checkInterval = 10 * time.Second
)

// check sees to it that the book's position is known, and that it has not forgotten what was given up. Nothing can be resolved before.
func (in *Intents) check(ctx context.Context, now time.Time) bool {
	if !in.called || !in.placed.IsZero() && (now.Sub(in.placed) < checkInterval || in.o.Journal.Held() == 0) {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	at, err := in.o.Book.Position(ctx, in.writer)
	if err != nil {
		in.failed(now, 0, fmt.Errorf("read position: %w", err))
		return false
	}
	if at < in.at { // or nothing was given up for so long that the position was forgotten on purpose: then nothing is held
		if n := in.o.Journal.Reopen(); n > 0 {
			in.metrics.setBack.Inc()
			in.log.Warn("the database has forgotten exchanges that were given up; they are written again", "exchanges", n)
		}
	}
	in.at, in.placed = at, now
	in.o.Journal.Release(now.Add(-in.o.Keep))
	return true
}

// failed notes that the book did not answer, or refused, and when it is tried again.
func (in *Intents) failed(now time.Time, exchanges int, err error) {
	in.metrics.failures.Inc()
	in.placed = time.Time{}
	wait := in.retry.fail(now, 100*time.Millisecond, 5*time.Second)
	if n := in.retry.failures; n&(n-1) == 0 { // an outage of hours is told of less and less often
		in.log.Error("exchanges without a line cannot be resolved yet", "exchanges", exchanges, "failures", n, "retry_in", wait, "err", err)
	}
}

// giveUp resolves intents, and reports whether that succeeded.
func (in *Intents) giveUp(ctx context.Context, quiet []journal.Intent) bool {
	records := make([]Record, 0, len(quiet))
	for _, q := range quiet {
		t, err := policy.ParseTicket(q.Ticket)
		if err != nil || t.Exchange != q.Exchange {
			in.metrics.malformed.Inc()
			in.log.Error("intent has no ticket that can be read, and makes no row", "exchange_id", q.Exchange, "ticket", q.Ticket, "err", err)
			in.endWithout(q.Exchange, Lost)
			continue
		}
		records = append(records, NewUnresolved(t, q.Bytes, in.o.Estimator))
	}
	if len(records) == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	if err := price(ctx, in.o.Pricer, records); err != nil {
		in.failed(time.Now(), len(records), fmt.Errorf("price usage: %w", err)) //nolint:forbidigo // the clock is read here, at the edge, and handed on
		return false
	}
	b := Batch{Writer: in.writer, From: in.at, To: in.at + 1, Records: records}
	in.called = true
	rows, err := in.o.Book.Resolve(ctx, b)
	if err != nil {
		in.batch = max(len(quiet)/2, 1)          // one that the book refuses must not hold up the others for good
		in.failed(time.Now(), len(records), err) //nolint:forbidigo // the clock is read here, at the edge, and handed on
		return false
	}
	if in.placed.IsZero() {
		in.placed = time.Now() //nolint:forbidigo // the clock is read here, at the edge, and handed on
	}
	in.at = b.To
	in.retry, in.batch = backoff{}, min(2*in.batch, defaultResolveBatch)
	ids := make([]uuid.UUID, 0, len(records))
	for i := range records {
		ids = append(ids, records[i].Exchange)
	}
	in.endResolved(records, ids)
	in.metrics.unresolved.Add(float64(rows))
	if rows > 0 {
		in.log.Warn("exchanges were given up: no line told their end", "exchanges", len(records), "rows", rows, "first_exchange_id", ids[0])
	}
	return true
}
