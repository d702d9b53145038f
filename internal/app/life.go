// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/internal/prices"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/usage"
	"github.com/weir-proxy/weir/usage/journal"
)

// How long things are waited for at the start.
const (
	takeOver        = time.Minute            // for another processor to let go of the state
	takeOverPoll    = 20 * time.Millisecond  // requests wait meanwhile
	firstLook       = 2 * time.Second        // for a configuration, until requests are refused instead of held
	databaseRetry   = 100 * time.Millisecond // after a first failure to reach the database, doubling
	databaseRetries = 5 * time.Second        // at most
)

// life is how far a processor has come between its start and its end.
type life struct {
	configured chan struct{} // closed when the first configuration is in force
	absent     chan struct{} // closed when the database could not be reached
	closed     chan struct{} // closed when nothing is admitted any more
	conclude   func()        // closes configured
	despair    func()        // closes absent

	connected atomic.Bool           // the database has the schema
	trouble   atomic.Pointer[error] // why it is not, as of the last attempt; nil before the first
}

func newLife() *life {
	l := &life{configured: make(chan struct{}), absent: make(chan struct{}), closed: make(chan struct{})}
	l.conclude = sync.OnceFunc(func() { close(l.configured) })
	l.despair = sync.OnceFunc(func() { close(l.absent) })
	return l
}

// awaitDatabase connects to the database and brings its schema up to date. What waiting may mend is tried again for as long as it takes.
// The log tells of each change, not of each attempt.
func (p *processor) awaitDatabase(ctx context.Context) error {
	began, said, pause := time.Now(), "", databaseRetry
	fallBack := sync.OnceValue(func() error { return p.fallBack(ctx) })
	for {
		err := p.store.Migrate(ctx)
		if err == nil {
			err = p.store.RegisterPrices(ctx, prices.EmbeddedList())
		}
		if err == nil {
			err = p.reseal(ctx)
		}
		if err == nil {
			p.life.connected.Store(true)
			if said != "" {
				p.log.Info("the database is there", "after", time.Since(began).Round(time.Millisecond))
			}
			return nil
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // an end that was asked for is no failure
		}
		err = fmt.Errorf("prepare database: %w", err)
		if hint, yes := store.Permanent(err); yes {
			return hinted{err, hint}
		}
		p.life.trouble.Store(&err)
		if reason := err.Error(); reason != said {
			said = reason
			p.log.Warn("the database cannot be reached", "err", err)
		}
		if err := fallBack(); err != nil {
			return err
		}
		p.life.despair()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause/2 + rand.N(pause/2+1)): // processors must not come back in step
		}
		pause = min(2*pause, databaseRetries)
	}
}

// reseal encrypts credentials with the first key of secret_key that were encrypted with another of them.
func (p *processor) reseal(ctx context.Context) error {
	n, err := p.store.Reseal(ctx)
	if n > 0 {
		p.log.Info("credentials that another key of secret_key had encrypted are encrypted with the first one", "channels", n)
	}
	return err
}

// fallBack does without the database: by what is kept, or by refusing requests.
func (p *processor) fallBack(ctx context.Context) error {
	if p.restore(ctx) {
		return nil
	}
	p.log.Warn("requests are refused until the database can be reached")
	return p.xds.Bare(ctx)
}

// awaitConfiguration returns when requests may come: Envoy holds them until then. It reports false when there is no need any more.
//
// Normally that is when the first configuration is in force, which may be the one that is kept for times when the database is away, and other replicas have left a part of
// every limit to this one. Without a configuration requests are refused, which is better than to let everybody wait who comes.
func (p *processor) awaitConfiguration(ctx context.Context) bool {
	look := time.After(firstLook)
	for _, there := range []<-chan struct{}{p.life.configured, p.books.limits.agreed} {
		select {
		case <-there:
		case <-p.life.absent:
		case <-look:
			return true
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// databaseState says whether the database answers, and had everything that it must have.
func (p *processor) databaseState(ctx context.Context) error {
	if p.life.connected.Load() {
		return p.store.Ping(ctx)
	}
	if err := p.life.trouble.Load(); err != nil {
		return *err
	}
	return errors.New("not connected yet")
}

// book is the store, as soon as it has the schema that rows are written by.
type book struct {
	*store.Store
	life *life
}

var errNotConnected = errors.New("the database has not been reached since the processor started")

// Position implements [usage.Book]. At the start it waits until the database was asked for once: that it takes a moment to answer is no failure.
func (b book) Position(ctx context.Context, writer uuid.UUID) (int64, error) {
	if !b.life.connected.Load() {
		select {
		case <-b.life.configured:
		case <-b.life.absent:
		case <-ctx.Done():
		}
		if !b.life.connected.Load() {
			return 0, errNotConnected
		}
	}
	return b.Store.Position(ctx, writer)
}

// openJournal opens the journal. Another processor of the same folder may have been told to stop, and is waited for.
func (p *processor) openJournal(ctx context.Context, dir string, o journal.Options) (*journal.Journal, journal.Recovered, error) {
	deadline, told := time.Now().Add(takeOver), false
	for {
		j, recovered, err := journal.Open(dir, o)
		if !errors.Is(err, journal.ErrLocked) {
			return j, recovered, err
		}
		if time.Now().After(deadline) {
			return nil, recovered, hinted{err, "stop the other processor, or give this one a state_dir of its own"}
		}
		if !told {
			told = true
			p.log.Info("waiting for another processor to stop", "journal", dir, "at_most", takeOver)
		}
		select {
		case <-ctx.Done():
			return nil, recovered, ctx.Err()
		case <-time.After(takeOverPoll):
		}
	}
}

// lastLines is how long after the last decision its line may take to reach the disk, when the exchange itself was short: so long is waited
// whatever processor.drain says.
const lastLines = 3 * envoy.LogFlush

// awaitLines waits until every admitted exchange is in the books, for as long as processor.drain says.
func (p *processor) awaitLines() {
	deadline := time.NewTimer(max(p.cfg.Processor.Drain, lastLines))
	defer deadline.Stop()
	tick := time.NewTicker(takeOverPoll)
	defer tick.Stop()
	for p.books.journal.Open() > 0 {
		select {
		case <-deadline.C:
			return
		case <-tick.C:
		}
	}
}

// lastTelemetry is how long a collector may take for what is left, when the processor is told to stop.
const lastTelemetry = 2 * time.Second

// closeBooks closes the journal and the log of lines that were sent, and says what is left on the disk for the next processor.
func (p *processor) closeBooks() {
	if err := p.sent.Close(); err != nil {
		p.log.Error("usage log was not closed", "err", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastTelemetry)
	defer cancel()
	if err := p.books.telemetry.Close(ctx); err != nil {
		p.log.Warn("the last telemetry was not sent", "err", err)
	}
	open, unshipped := p.books.journal.Open(), int64(0)
	for _, l := range p.books.shipper.Logs() {
		unshipped += l.Lag
	}
	if err := p.books.journal.Close(); err != nil {
		p.log.Error("journal was not closed", "err", err)
	}
	p.log.Info("processor stopped", "open_intents", open, "unshipped_bytes", unshipped, "state_dir", p.cfg.StateDir, "log_dir", p.cfg.Envoy.LogDir)
}

// shipDrain is how long the last lines may take to reach the database, when the processor is told to stop. The next one ships the rest.
const shipDrain = 2 * time.Second

// account reads Envoy's access log and ships it; after parent has ended, until nothing is admitted any more and its lines are there, or have
// been waited for. What ends later stays in the log for the next processor.
func (p *processor) account(parent context.Context) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(parent))
	defer cancel()
	shipped := make(chan error, 1)
	go func() { shipped <- p.books.shipper.Run(ctx) }()
	select {
	case err := <-shipped:
		return err
	case <-p.life.closed:
		p.awaitLines()
	}
	cancel()
	if err := <-shipped; !errors.Is(err, usage.ErrBacklog) {
		return err
	}
	return nil
}
