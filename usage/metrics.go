// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Reasons of weir_usage_ship_failures_total.
const (
	failFenced   = "fenced"   // the position was moved by another
	failPost     = "post"     // the book did not take a batch
	failPosition = "position" // the book did not give the position, or it does not fit the log
	failRead     = "read"     // the log cannot be read
	failPrice    = "price"    // prices that rows rest on could not be read
)

// metrics are what the shipper tells Prometheus.
type metrics struct {
	rows        *prometheus.CounterVec
	estimated   prometheus.Counter
	badLines    prometheus.Counter
	unadmitted  prometheus.Counter
	failures    *prometheus.CounterVec
	overwritten prometheus.Counter
	setBack     prometheus.Counter
	deleted     prometheus.Counter
	lag         prometheus.Gauge
	logs        prometheus.Gauge
	batchRows   prometheus.Histogram
	postSeconds prometheus.Histogram
}

// newMetrics registers the metrics with reg, which may be nil. It panics when reg has them already.
func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	m := &metrics{
		rows: f.NewCounterVec(prometheus.CounterOpts{
			Name: "weir_usage_rows_total", Help: "Usage rows that this process wrote to the database, by how the exchange ended.",
		}, []string{"status"}),
		estimated: f.NewCounter(prometheus.CounterOpts{
			Name: "weir_usage_estimated_rows_total", Help: "Usage rows whose tokens rest on an estimate.",
		}),
		badLines: f.NewCounter(prometheus.CounterOpts{
			Name: "weir_usage_bad_lines_total", Help: "Pieces of the access log that are no line of Weir's: torn, overlong, or with a malformed ticket.",
		}),
		unadmitted: f.NewCounter(prometheus.CounterOpts{
			Name: "weir_usage_unadmitted_lines_total", Help: "Lines of the access log without a ticket: of requests that were refused or whose decision did " +
				"not reach Envoy, which make no row.",
		}),
		failures: f.NewCounterVec(prometheus.CounterOpts{
			Name: "weir_usage_ship_failures_total", Help: "Failures to ship a part of the access log, each followed by another attempt.",
		}, []string{"reason"}),
		overwritten: f.NewCounter(prometheus.CounterOpts{
			Name: "weir_usage_overwritten_logs_total", Help: "Access logs that were cut short or overwritten in place instead of being renamed.",
		}),
		setBack: f.NewCounter(prometheus.CounterOpts{
			Name: "weir_usage_logs_set_back_total", Help: "Access logs that are shipped again in part, because the database had forgotten what it took.",
		}),
		deleted: f.NewCounter(prometheus.CounterOpts{
			Name: "weir_usage_logs_deleted_total", Help: "Access logs that were deleted, all of their lines being in the database.",
		}),
		lag: f.NewGauge(prometheus.GaugeOpts{
			Name: "weir_usage_unshipped_bytes", Help: "Bytes of whole lines in the access logs that are not in the database.",
		}),
		logs: f.NewGauge(prometheus.GaugeOpts{
			Name: "weir_usage_logs", Help: "Access logs that are being followed.",
		}),
		batchRows: f.NewHistogram(prometheus.HistogramOpts{
			Name: "weir_usage_batch_rows", Help: "Rows in a batch.", Buckets: prometheus.ExponentialBuckets(1, 4, 8),
		}),
		postSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Name: "weir_usage_post_seconds", Help: "Time that the database took for a batch.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
	}
	for _, s := range []Status{StatusOK, StatusClientClosed, StatusUpstreamError, StatusTimeout} {
		m.rows.WithLabelValues(string(s))
	}
	for _, r := range []string{failFenced, failPost, failPosition, failRead, failPrice} {
		m.failures.WithLabelValues(r)
	}
	return m
}

// posted counts a batch that the book took.
func (m *metrics) posted(records []Record) {
	m.batchRows.Observe(float64(len(records)))
	estimated, before := 0, 0 // rows before this one that were counted
	for i := range records {
		if records[i].Estimated {
			estimated++
		}
		if i+1 == len(records) || records[i+1].Status != records[i].Status { // most end in the same way
			m.rows.WithLabelValues(string(records[i].Status)).Add(float64(i + 1 - before))
			before = i + 1
		}
	}
	m.estimated.Add(float64(estimated))
}
