// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/weir-proxy/weir/envoy"
)

// shedInterval is how often Envoys may be told of another share to refuse.
const shedInterval = 100 * time.Millisecond

// shed tells the Envoys of this machine until ctx ends which share of new requests to refuse by themselves. An Envoy goes by what was written last, so what
// an earlier processor wrote is taken back first.
func (p *processor) shed(ctx context.Context) {
	share := promauto.With(p.registry).NewGauge(prometheus.GaugeOpts{
		Name: "weir_shed_share",
		Help: "Share of new requests that Envoys of this machine are told to refuse as overloaded, without asking. What is refused here is in weir_admissions_total.",
	})
	if p.edge.shedder == nil {
		return
	}
	file := envoy.SharePath(p.cfg.Processor.Socket)
	told, failed := -1.0, false
	tick := time.NewTicker(shedInterval)
	defer tick.Stop()
	for {
		now := p.edge.shedder.Share(time.Now())
		if now != told {
			err := envoy.WriteShare(file, now)
			switch {
			case err == nil:
				if (told <= 0) != (now == 0) {
					p.log.Warn("the share of requests that envoy refuses has changed", "share", now)
				}
				told, failed = now, false
				share.Set(now)
			case !failed: // and again with each tick
				p.log.Error("envoy cannot be told how much to refuse", "err", err)
				failed = true
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
