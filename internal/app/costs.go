// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/weir-proxy/weir/internal/config"
	"github.com/weir-proxy/weir/internal/costs"
	"github.com/weir-proxy/weir/internal/store"
)

// newCosts makes what says what requests cost. Nothing has a price until the first configuration is there.
func (p *processor) newCosts() *costs.Book {
	b := costs.NewBook(costs.Options{Source: p.store, Refuse: p.cfg.Limits.Unpriced == config.RefuseUnpriced, Logger: p.log})
	f := promauto.With(p.registry)
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "weir_price_version", Help: "Version of the prices that are in force; 0: none."},
		func() float64 { return float64(b.Version()) })
	f.NewCounterFunc(prometheus.CounterOpts{
		Name: "weir_usage_lost_price_versions_total", Help: "Batches of rows that were priced by the prices in force because those of their admission are lost.",
	}, func() float64 { return float64(b.Lost()) })
	return b
}

// price puts the prices of a configuration in force. Prices that this program cannot read must not keep it from hearing that a key was revoked: those
// before them stay.
func (p *processor) price(ctx context.Context, c store.Configuration) error {
	err := p.books.costs.Set(ctx, c.Prices)
	if errors.Is(err, costs.ErrMalformed) {
		p.log.Error("prices cannot be read, and those before them stay in force", "price_version", c.Prices.ID, "err", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read prices: %w", err)
	}
	return nil
}
