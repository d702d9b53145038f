// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
	_ "time/tzdata" // every processor must know the same zones, or it would begin periods at other times

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/policy/budget"
	"github.com/weir-proxy/weir/usage"
)

const (
	leaseLook     = 100 * time.Millisecond // between two looks at whether the bank is to be asked, as long as anything happens
	leaseTimeout  = 10 * time.Second       // for one call of the bank
	leaseRetries  = 2 * time.Second        // between two attempts at most, while it does not answer
	leasePatience = time.Second            // for which a request waits for the lease that it needs
	lastReturn    = 2 * time.Second        // for giving back what is not needed any more, at the end
)

// budgets keeps the leases of this processor: it tells the book of the ends of exchanges, and asks the bank what the book wants to ask.
type budgets struct {
	book     *budget.Book
	bank     budget.Bank
	log      *slog.Logger
	wake     chan struct{}
	failures atomic.Int64
}

func newBudgets(bank budget.Bank, o budget.Options, log *slog.Logger) *budgets {
	b := &budgets{bank: bank, log: log, wake: make(chan struct{}, 1)}
	o.Wake = func() {
		select {
		case b.wake <- struct{}{}:
		default:
		}
	}
	o.Patience = leasePatience
	b.book = budget.New(o)
	return b
}

// Left implements [usage.Listener].
func (b *budgets) Left(t *policy.Ticket) { b.book.Leave(t.Exchange, t.Charges) }

// Ended implements [usage.Listener].
func (b *budgets) Ended(e usage.Ending) {
	switch e.How {
	case usage.Posted:
		b.book.Settle(e.Exchange, e.Record.Charged())
	case usage.Undelivered:
		b.book.Cancel(e.Exchange)
	case usage.Resolved:
		b.book.SettleAny(e.Exchange)
	case usage.Lost:
		b.book.Lose(e.Exchange)
	}
}

// setTenants puts the tree of tenants in force, with the zones in which the periods of budgets begin.
func (b *budgets) setTenants(all []store.Tenant) error {
	zones := make(map[string]*time.Location)
	tenants := make([]budget.Tenant, 0, len(all))
	for i := range all {
		t := &all[i]
		zone := zones[t.Zone]
		if zone == nil {
			var err error
			if zone, err = budget.ParseZone(t.Zone); err != nil {
				return fmt.Errorf("tenant %q: %w", t.Name, err)
			}
			zones[t.Zone] = zone
		}
		tenants = append(tenants, budget.Tenant{ID: t.ID, Parent: t.Parent, Name: t.Name, Zone: zone})
	}
	return b.book.SetTenants(tenants)
}

// run asks the bank until ctx ends; after closed, when nothing is admitted any more, what is not needed goes back. Drained returns as of when all logs are
// posted to their ends, zero while that is not so.
func (b *budgets) run(ctx context.Context, drained func() time.Time, closed <-chan struct{}) {
	if !b.join(ctx) {
		return
	}
	look := time.NewTimer(leaseLook)
	defer look.Stop()
	for ctx.Err() == nil {
		if !drained().IsZero() {
			b.book.Drained()
		}
		r, due := b.book.Next()
		if due && !b.ask(ctx, r) && !b.pause(ctx) {
			break
		}
		if r.More {
			continue
		}
		look.Reset(max(b.book.Rest(), leaseLook))
		select {
		case <-ctx.Done():
		case <-look.C:
		case <-b.wake:
		}
	}
	<-closed
	b.retire(context.WithoutCancel(ctx))
}

// join begins this life of the holder. It reports false when ctx ended before.
func (b *budgets) join(ctx context.Context) bool {
	for ctx.Err() == nil {
		call, cancel := context.WithTimeout(ctx, leaseTimeout)
		j, err := b.bank.Join(call, b.book.Holder())
		cancel()
		if err == nil {
			b.book.Joined(j)
			b.failures.Store(0)
			return true
		}
		b.failed(ctx, budget.Request{}, err)
		if !b.pause(ctx) {
			break
		}
	}
	return false
}

// ask asks the bank once, and reports whether it answered.
func (b *budgets) ask(ctx context.Context, r budget.Request) bool {
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	reply, err := b.bank.Sync(ctx, r)
	if err != nil {
		b.failed(ctx, r, err)
		return false
	}
	if b.failures.Swap(0) > 0 {
		b.log.Info("budgets can be leased from again")
	}
	if reply.SetBack {
		b.log.Warn("the database has forgotten leases; what this processor holds is stated to it again")
	}
	b.book.Granted(r, reply)
	return true
}

func (b *budgets) failed(ctx context.Context, r budget.Request, err error) {
	b.book.Failed(r, err)
	switch n := b.failures.Add(1); {
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
	case errors.Is(err, budget.ErrFenced):
		b.log.Error("requests with a budget are refused: another processor has joined with the journal of this one, or its leases were released", "err", err)
	case n == 1:
		b.log.Warn("budgets cannot be leased from; what is leased is served", "err", err)
	}
}

// pause waits before the bank is asked again. It reports false when ctx ended.
func (b *budgets) pause(ctx context.Context) bool {
	wait := min(leaseLook<<min(b.failures.Load(), 10), leaseRetries)
	select {
	case <-ctx.Done():
		return false
	case <-time.After(wait):
		return true
	}
}

// retire gives back what is neither used nor reserved. If that fails it stays leased until the next life.
func (b *budgets) retire(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lastReturn)
	defer cancel()
	if r, due := b.book.Retire(); due {
		b.ask(ctx, r)
	}
}

// expose shows what the book counts as metrics.
func (b *budgets) expose(r prometheus.Registerer) {
	f := promauto.With(r)
	for reason, value := range map[string]func(budget.Stats) int64{
		"exhausted": func(s budget.Stats) int64 { return s.Exhausted },
		"reserved":  func(s budget.Stats) int64 { return s.Short },
		"pending":   func(s budget.Stats) int64 { return s.Pending },
		"outage":    func(s budget.Stats) int64 { return s.Outage },
		"unpriced":  func(s budget.Stats) int64 { return s.Unpriced },
	} {
		f.NewCounterFunc(prometheus.CounterOpts{
			Name: "weir_budget_refusals_total", ConstLabels: prometheus.Labels{"reason": reason},
			Help: "Requests that were refused for a budget: since it is exhausted, since what is left is reserved by others, before it was leased from, " +
				"since the database could not be asked, since no price was known.",
		}, func() float64 { return float64(value(b.book.Stats())) })
	}
	f.NewCounterFunc(prometheus.CounterOpts{
		Name: "weir_budget_set_backs_total", Help: "Leases that the database had forgotten, and was told of again.",
	}, func() float64 { return float64(b.book.Stats().SetBacks) })
	for _, g := range []struct {
		name, help string
		value      func(budget.Stats) float64
	}{
		{"weir_budget_accounts", "Budgets, each in one period, that this processor has or asks for a lease of.", func(s budget.Stats) float64 { return float64(s.Accounts) }},
		{"weir_budget_leased_usd", "Dollars that this processor has leased and not used.", func(s budget.Stats) float64 { return float64(s.Granted-s.Used) / budget.NanoUSD }},
		{"weir_budget_reserved_usd", "Dollars, of those that are leased, that exchanges in flight may cost at most.", func(s budget.Stats) float64 { return float64(s.Reserved) / budget.NanoUSD }},
	} {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: g.name, Help: g.help}, func() float64 { return g.value(b.book.Stats()) })
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "weir_budget_ask_failures", Help: "How often in a row the database did not answer when it was asked for leases; 0 when it did.",
	}, func() float64 { return float64(b.failures.Load()) })
}
