// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/weir-proxy/weir/envoy"
)

const (
	// shedInterval is how often Envoys may be told of another share to refuse.
	shedInterval = 100 * time.Millisecond
	// shedRest is how many times in a row nobody must have come until that is not looked at any more.
	shedRest = 100
	// shedMost bounds what is made up for after a rest: in so long nearly everything is forgotten.
	shedMost = 4 * time.Hour
)

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
	for quiet := 0; ; {
		if quiet++; p.edge.pulse.felt() {
			quiet = 0
		}
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
		if told == 0 && quiet >= shedRest && p.edge.pulse.rest() {
			tick.Stop()
			began := time.Now()
			select {
			case <-ctx.Done():
				return
			case <-p.edge.pulse.wake:
			}
			p.edge.makeUp(began, time.Now())
			tick.Reset(shedInterval)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// makeUp asks for the share as if there had been no rest: what was seen before it is forgotten as time passes.
func (e *edge) makeUp(began, ended time.Time) {
	if least := ended.Add(-shedMost); began.Before(least) {
		began = least
	}
	for at := began.Add(shedInterval); !at.After(ended); at = at.Add(shedInterval) {
		e.shedder.Share(at)
	}
}
