// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/usage"
	"github.com/weir-proxy/weir/usage/journal"
)

// books is what follows an exchange from its admission to its row.
type books struct {
	journal *journal.Journal
	intents *usage.Intents
	shipper *usage.Shipper
}

// openBooks opens the journal and goes on with what an earlier processor left in it.
func (p *processor) openBooks() error {
	j, recovered, err := journal.Open(filepath.Join(p.cfg.StateDir, "journal"), journal.Options{
		Durability:   journal.Durability(p.cfg.Journal.Durability),
		SyncInterval: p.cfg.Journal.SyncInterval,
		Logger:       p.log,
		Registerer:   p.registry,
	})
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	p.log.Info("journal opened", "open_intents", recovered.Open, "damage", len(recovered.Damage))
	guess := usage.NewEstimator()
	p.books.journal = j
	p.books.intents = usage.NewIntents(usage.IntentOptions{
		Journal: j, Book: p.store, Estimator: guess, Lease: p.cfg.Usage.Lease, Logger: p.log, Registerer: p.registry,
	})
	p.books.shipper = usage.NewShipper(usage.Options{
		Dir:           p.cfg.Envoy.LogDir,
		Book:          p.store,
		BatchRows:     p.cfg.Usage.BatchRows,
		BatchInterval: p.cfg.Usage.BatchInterval,
		OnAttempt:     p.attempt,
		Spool:         p.spool,
		Intents:       p.books.intents,
		Estimator:     guess,
		Logger:        p.log,
		Registerer:    p.registry,
	})
	return nil
}

// closeBooks closes the journal and the log of lines that were sent, when nothing is admitted or shipped any more.
func (p *processor) closeBooks() {
	if err := p.sent.Close(); err != nil {
		p.log.Error("usage log was not closed", "err", err)
	}
	open := p.books.journal.Open()
	if err := p.books.journal.Close(); err != nil {
		p.log.Error("journal was not closed", "err", err)
	}
	p.log.Info("journal closed", "open_intents", open)
}

// lastLines is how long after the last decision its line may take to reach the disk, when the exchange itself was short.
const lastLines = 3 * envoy.LogFlush

// account reads Envoy's access log and ships it, also for a moment after ctx has ended. What ends later stays in the log for the next
// processor.
func (p *processor) account(parent context.Context) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(parent))
	defer cancel()
	defer context.AfterFunc(parent, func() { time.AfterFunc(lastLines, cancel) })()
	return p.books.shipper.Run(ctx)
}

// resolve gives rows to exchanges that no line tells the end of.
func (p *processor) resolve(ctx context.Context) error {
	return p.books.intents.Run(ctx, p.books.shipper.DrainedAt)
}
