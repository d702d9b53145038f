// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/weir-proxy/weir/internal/config"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/policy/limit"
	"github.com/weir-proxy/weir/usage"
)

// limits holds exchanges to their rates. It hears of their ends as a [usage.Listener].
type limits struct {
	limiter *limit.Limiter
	path    string        // of what is remembered
	kept    remembered    // as it stands there
	agreed  chan struct{} // closed when the other replicas have left this one its part
	agree   func()        // closes agreed
	failed  prometheus.Counter
}

var (
	_ usage.Listener = (*limits)(nil)
	_ usage.Watcher  = (*limits)(nil)
)

// remembered is what a replica must know of itself after a restart.
type remembered struct {
	Replica uuid.UUID `json:"replica"`
	Part    float64   `json:"part"` // of every limit
}

const (
	boardTimeout = 2 * time.Second // for one visit
	// idleInterval is how often a processor without limits shows that it is there.
	idleInterval = 2 * time.Second
	joinInterval = limit.Interval / 5
)

// openLimits makes the limiter, with what it held in its last life.
func (p *processor) openLimits() error {
	l := &p.books.limits
	l.path = filepath.Join(p.cfg.StateDir, "limits.json")
	b, err := os.ReadFile(l.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l.kept = remembered{Replica: uuid.New()}
	case err != nil:
		return fmt.Errorf("read which limits are held: %w", err)
	default:
		if err := json.Unmarshal(b, &l.kept); err != nil || l.kept.Replica == uuid.Nil {
			p.log.Warn("what this processor held of limits cannot be read, and it begins anew", "path", l.path, "err", err)
			l.kept = remembered{Replica: uuid.New()}
		}
	}
	l.limiter = limit.New(limit.Options{Replica: l.kept.Replica, Part: l.kept.Part, Strict: p.cfg.Limits.CutOff == config.Refuse})
	l.agreed = make(chan struct{})
	l.agree = sync.OnceFunc(func() { close(l.agreed) })
	l.register(p.registry)
	return l.keep()
}

// keep writes down what is held, if that has changed.
func (l *limits) keep() error {
	now := remembered{Replica: l.kept.Replica, Part: l.limiter.Part()}
	if now == l.kept {
		return nil
	}
	b, err := json.Marshal(now)
	if err != nil {
		return fmt.Errorf("write which limits are held: %w", err)
	}
	if err := os.WriteFile(l.path+".new", b, 0o600); err != nil {
		return fmt.Errorf("write which limits are held: %w", err)
	}
	if err := os.Rename(l.path+".new", l.path); err != nil {
		return fmt.Errorf("write which limits are held: %w", err)
	}
	l.kept = now
	return nil
}

// register exposes the limiter's state as metrics.
func (l *limits) register(r prometheus.Registerer) {
	f := promauto.With(r)
	l.failed = f.NewCounter(prometheus.CounterOpts{
		Name: "weir_limit_board_failures_total", Help: "Failures to agree with other processors on shares of limits. Each goes on with its equal part meanwhile.",
	})
	gauge := func(name, help string, value func(limit.Stats) float64) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return value(l.limiter.Stats()) })
	}
	gauge("weir_limit_buckets", "Limits of keys, tenants and models that are in use, in memory.", func(s limit.Stats) float64 { return float64(s.Buckets) })
	gauge("weir_limit_exchanges", "Exchanges under limits that are not settled yet.", func(s limit.Stats) float64 { return float64(s.Exchanges) })
	gauge("weir_limit_part", "Part of every limit that this processor holds unless it agrees on another with the others.", func(s limit.Stats) float64 { return s.Part })
	gauge("weir_limit_shared", "Limits of which this processor holds another share than an equal part.", func(s limit.Stats) float64 { return float64(s.Claims) })
	gauge("weir_limit_unheard_seconds", "Time since this processor agreed with others on limits.", func(s limit.Stats) float64 { return s.Unheard.Seconds() })
	for _, meter := range []string{"requests", "input_tokens", "output_tokens", "tokens", "concurrency"} {
		f.NewCounterFunc(prometheus.CounterOpts{
			Name: "weir_limit_refusals_total", Help: "Requests refused by a limit, by what ran out.", ConstLabels: prometheus.Labels{"meter": meter},
		}, func() float64 { return float64(l.limiter.Stats().Refused[meter]) })
	}
}

// hold puts a change of budgets and limits in force.
func (p *processor) hold(c store.TermsChange) error {
	if err := p.books.limits.limiter.Change(c.Limits); err != nil {
		return err
	}
	return p.books.budgets.book.Change(c.Budgets)
}

// terms returns the budgets and limits that are in force.
func (p *processor) terms() store.Terms {
	return store.Terms{Budgets: p.books.budgets.book.Budgets(), Limits: p.books.limits.limiter.Table().Limits()}
}

// shareLimits agrees with the other processors on who has which share of the limits, again and again until ctx ends.
func (p *processor) shareLimits(ctx context.Context) error {
	failures := 0
	for {
		visit, cancel := context.WithTimeout(ctx, boardTimeout)
		err := p.books.limits.limiter.Round(visit, p.store)
		cancel()
		if err == nil {
			err = p.books.limits.keep()
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // an end that was asked for is no failure
		}
		switch {
		case err != nil:
			p.books.limits.failed.Inc()
			if failures++; failures&(failures-1) == 0 { // an outage of hours is told of less and less often
				p.log.Warn("no agreement on shares of limits: an equal part of each is held meanwhile", "failures", failures, "part", p.books.limits.limiter.Part(), "err", err)
			}
		case failures > 0:
			p.log.Info("shares of limits are agreed on again", "failures", failures)
			failures = 0
		}
		pause := limit.Interval
		switch {
		case !p.books.limits.limiter.Joined():
			pause = joinInterval
		case p.books.limits.limiter.Limits() == 0:
			pause = idleInterval
		}
		if p.books.limits.limiter.Joined() {
			p.books.limits.agree()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause*9/10 + rand.N(pause/5)): //nolint:gosec // jitter: replicas must not come in step
		}
	}
}

// Left implements [usage.Listener].
func (l *limits) Left(t *policy.Ticket) {
	l.limiter.Restore(&policy.Demand{
		Exchange: t.Exchange, Time: t.Time(), Tenant: &policy.Tenant{ID: t.Tenant}, Key: &policy.Key{ID: t.Key, Tenant: t.Tenant}, Model: t.Model,
	})
}

// Finished implements [usage.Watcher]: while the database is away nothing else tells that an exchange is over.
func (l *limits) Finished(r *usage.Record) { l.limiter.Settle(r.Exchange, r.Input, r.Output) }

// Ended implements [usage.Listener].
func (l *limits) Ended(e usage.Ending) {
	switch {
	case e.How == usage.Undelivered:
		l.limiter.Cancel(e.Exchange)
	case e.Record != nil:
		l.limiter.Settle(e.Exchange, e.Record.Input, e.Record.Output)
	default:
		l.limiter.End(e.Exchange)
	}
}
