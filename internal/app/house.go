// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

const (
	// houseInterval is how often the tables are looked after. Partitions are made for days ahead, so one failure is no harm.
	houseInterval = time.Hour
	// forgetLogs is how long the position of a log that no longer grows is remembered: longer than any log can come back after.
	forgetLogs = 90 * 24 * time.Hour
)

// keepHouse makes the partitions of the days to come, drops those that are older than usage.retention, and forgets logs of long ago. The
// hourly sums and the balances stay.
func (p *processor) keepHouse(ctx context.Context) error {
	letters := promauto.With(p.registry).NewGauge(prometheus.GaugeOpts{
		Name: "weir_usage_dead_letters", Help: "Rows in weir.dead_letter: exchanges whose row Postgres refused for what is in it.",
	})
	tick := time.NewTicker(houseInterval)
	defer tick.Stop()
	for {
		p.tidy(ctx, letters)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// tidy does each piece of work whether or not the others succeed. What fails is tried again in an hour.
func (p *processor) tidy(ctx context.Context, letters prometheus.Gauge) {
	now := time.Now()
	if p.cfg.Clock != nil {
		now = p.cfg.Clock()
	}
	failed := func(what string, err error) {
		if err != nil && ctx.Err() == nil {
			p.log.Warn("could not look after the tables", "what", what, "err", err)
		}
	}
	failed("make partitions of weir.usage", p.store.EnsurePartitions(ctx, now))
	if keep := p.cfg.Usage.Retention; keep > 0 {
		n, err := p.store.Retain(ctx, now, keep)
		failed("drop old partitions of weir.usage", err)
		if n > 0 {
			p.log.Info("dropped old days of weir.usage", "days", n)
		}
	}
	failed("forget keys that were deleted", p.store.PruneKeys(ctx))
	if keep := p.cfg.Admin.AuditRetention; keep > 0 {
		_, err := p.store.PruneAudit(ctx, keep)
		failed("delete old entries of the audit", err)
	}
	_, err := p.store.PruneWriters(ctx, forgetLogs)
	failed("forget logs of long ago", err)
	n, err := p.store.DeadLetters(ctx)
	failed("count dead letters", err)
	if err == nil {
		letters.Set(float64(n))
	}
}
