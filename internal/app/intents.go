// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/weir-proxy/weir/internal/costs"
	"github.com/weir-proxy/weir/internal/telemetry"
	"github.com/weir-proxy/weir/usage"
	"github.com/weir-proxy/weir/usage/journal"
)

// books is what follows an exchange from its admission to its row.
type books struct {
	journal *journal.Journal
	intents *usage.Intents
	shipper *usage.Shipper
	limits  limits
	budgets *budgets
	costs   *costs.Book

	telemetry *telemetry.Telemetry
}

// openBooks opens the journal and goes on with what an earlier processor left in it.
func (p *processor) openBooks(ctx context.Context) error {
	j, recovered, err := p.openJournal(ctx, filepath.Join(p.cfg.StateDir, "journal"), journal.Options{
		Durability:   journal.Durability(p.cfg.Journal.Durability),
		SyncInterval: p.cfg.Journal.SyncInterval,
		Logger:       p.log,
		Registerer:   p.registry,
	})
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	p.log.Info("journal opened", "open_intents", recovered.Open, "damage", len(recovered.Damage))
	holder, err := journal.Identity(filepath.Join(p.cfg.StateDir, "journal"))
	if err != nil {
		return errors.Join(err, j.Close())
	}
	p.books.budgets.book.SetHolder(holder)
	reckoning := usage.Reckoning{Estimator: usage.NewEstimator(), Pricer: p.books.costs}
	p.books.journal = j
	p.books.intents = usage.NewIntents(usage.IntentOptions{
		Journal: j, Book: p.store, Reckoning: reckoning, Lease: p.cfg.Usage.Lease, Keep: p.cfg.Usage.Log.Keep,
		Listeners: []usage.Listener{p.books.budgets, &p.books.limits, p.books.telemetry},
		Logger:    p.log, Registerer: p.registry,
	})
	p.books.shipper = usage.NewShipper(usage.Options{
		Dir:           p.cfg.Envoy.LogDir,
		Book:          book{p.store, p.life},
		DrainTimeout:  shipDrain,
		BatchRows:     p.cfg.Usage.BatchRows,
		BatchInterval: p.cfg.Usage.BatchInterval,
		OnAttempt:     p.attempt,
		Spool:         p.spool,
		Intents:       p.books.intents,
		Reckoning:     reckoning,
		Logger:        p.log,
		Registerer:    p.registry,
		Clock:         p.cfg.Clock,
	})
	return nil
}

// logInterval returns how often Envoy writes a line of an exchange that still lives, for a lease that such a line renews: often enough
// that a few may be late.
func logInterval(lease time.Duration) time.Duration {
	return min(time.Minute, lease/4)
}

// resolve gives rows to exchanges that no line tells the end of.
func (p *processor) resolve(ctx context.Context) error {
	return p.books.intents.Run(ctx, p.books.shipper.DrainedAt)
}
