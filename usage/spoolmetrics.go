// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// spoolMetrics are what the spool tells Prometheus.
type spoolMetrics struct {
	bytes         prometheus.Gauge
	free          prometheus.Gauge
	oldest        prometheus.Gauge
	closed        prometheus.Gauge
	waiting       prometheus.Gauge
	closings      *prometheus.CounterVec
	rotations     prometheus.Counter
	early         prometheus.Counter
	writeFailures prometheus.Counter
}

// newSpoolMetrics registers the metrics with reg, which may be nil. It panics when reg has them already.
func newSpoolMetrics(reg prometheus.Registerer) *spoolMetrics {
	f := promauto.With(reg)
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &spoolMetrics{
		bytes:   gauge("weir_usage_log_bytes", "Bytes of all access logs on the disk, shipped or not."),
		free:    gauge("weir_usage_log_free_bytes", "Free bytes of the volume that the access logs are on."),
		oldest:  gauge("weir_usage_oldest_unshipped_seconds", "Age of the oldest exchange in the access logs that is not in the database; 0 without one."),
		closed:  gauge("weir_usage_gate_closed", "1 while new requests are refused, because there might be no room for their lines in the access log."),
		waiting: gauge("weir_usage_log_reopens_pending", "Envoys that were told to open their access log anew and have not done so yet."),
		closings: f.NewCounterVec(prometheus.CounterOpts{
			Name: "weir_usage_gate_closings_total", Help: "How often new requests began to be refused for the access log's sake, by reason.",
		}, []string{"reason"}),
		rotations: counter("weir_usage_log_rotations_total", "Access logs that were rotated."),
		early: counter("weir_usage_logs_deleted_early_total",
			"Access logs that were deleted before usage.log.keep was over, because room was short. All of their lines are in the database."),
		writeFailures: counter("weir_usage_log_write_failures_total",
			"Writes to access logs that failed in Envoy. Lines were lost; their exchanges become unresolved rows."),
	}
	for _, r := range []string{closedSpace, closedBacklog, closedWrite} {
		m.closings.WithLabelValues(r)
	}
	return m
}
