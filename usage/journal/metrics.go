// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Operations of weir_journal_failures_total.
const (
	opAppend  = "append"
	opSettle  = "settle"
	opSync    = "sync"
	opCompact = "compact"
	opDelete  = "delete"
	opRead    = "read"
)

// metrics are what a journal tells Prometheus.
type metrics struct {
	open     prometheus.Gauge
	held     prometheus.Gauge
	parked   prometheus.Gauge
	bytes    prometheus.Gauge
	appends  prometheus.Counter
	sync     prometheus.Histogram
	failures *prometheus.CounterVec
	damage   prometheus.Counter
}

// newMetrics registers the metrics with reg, which may be nil. It panics when reg has them already.
func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	m := &metrics{
		open: f.NewGauge(prometheus.GaugeOpts{
			Name: "weir_journal_open_intents", Help: "Exchanges that were admitted here and are not known to be in the database.",
		}),
		held: f.NewGauge(prometheus.GaugeOpts{
			Name: "weir_journal_held_intents", Help: "Exchanges that were written as unresolved, and are kept for a while in case the database forgets them.",
		}),
		parked: f.NewGauge(prometheus.GaugeOpts{
			Name: "weir_journal_parked_intents", Help: "Open intents that are on the disk alone, since many wait for the database.",
		}),
		bytes: f.NewGauge(prometheus.GaugeOpts{
			Name: "weir_journal_bytes", Help: "Bytes of the journal's segments on the disk.",
		}),
		appends: f.NewCounter(prometheus.CounterOpts{
			Name: "weir_journal_appends_total", Help: "Intents written to the journal.",
		}),
		sync: f.NewHistogram(prometheus.HistogramOpts{
			Name: "weir_journal_sync_seconds", Help: "Time that the disk took to make a group of intents durable.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
		}),
		failures: f.NewCounterVec(prometheus.CounterOpts{
			Name: "weir_journal_failures_total",
			Help: "Failures of the journal: append refuses requests, sync leads to a new segment, the others are tried again.",
		}, []string{"op"}),
		damage: f.NewCounter(prometheus.CounterOpts{
			Name: "weir_journal_damage_total", Help: "Damaged or missing parts that were found in the journal. The log names each.",
		}),
	}
	for _, op := range []string{opAppend, opSettle, opSync, opCompact, opDelete, opRead} {
		m.failures.WithLabelValues(op)
	}
	return m
}

func (m *metrics) failed(op string) { m.failures.WithLabelValues(op).Inc() }
