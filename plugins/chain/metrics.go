// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/weir-proxy/weir/plugins/abi"
	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/plugins/proxywasm"
)

// Metrics count the calls of plugins, by the plugin's name. Make one for a process.
type Metrics struct {
	calls    *prometheus.CounterVec // by plugin and outcome
	failures *prometheus.CounterVec // by plugin and reason
	cut      *prometheus.CounterVec // by plugin
	seconds  *prometheus.HistogramVec
	fuel     *prometheus.HistogramVec
}

// NewMetrics registers the metrics; it panics if they are registered already.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	return &Metrics{
		calls: f.NewCounterVec(prometheus.CounterOpts{
			Name: "weir_plugin_calls_total",
			Help: "Calls of a plugin's hooks, by what came of them: continue, change, deny, or fail. In shadow mode it is what would have come.",
		}, []string{"plugin", "outcome"}),
		failures: f.NewCounterVec(prometheus.CounterOpts{
			Name: "weir_plugin_failures_total",
			Help: "Calls of a plugin that failed, by reason. The log has the details.",
		}, []string{"plugin", "reason"}),
		cut: f.NewCounterVec(prometheus.CounterOpts{
			Name: "weir_plugin_cut_responses_total",
			Help: "Responses that a plugin ended after a part of them had gone out to the client, or that could not be read any further (plugin is empty). " +
				"Those that were replaced as a whole are in weir_admissions_total.",
		}, []string{"plugin"}),
		seconds: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "weir_plugin_seconds", Help: "Time of one call of a plugin's hook.", Buckets: prometheus.ExponentialBuckets(1e-5, 4, 9),
		}, []string{"plugin"}),
		fuel: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "weir_plugin_fuel", Help: "Fuel that one call of a plugin's hook used.", Buckets: prometheus.ExponentialBuckets(1000, 8, 8),
		}, []string{"plugin"}),
	}
}

// linkMetrics are those of one plugin; the zero value counts nothing.
type linkMetrics struct {
	carryOn, change, deny, fail prometheus.Counter
	cut                         prometheus.Counter
	failures                    *prometheus.CounterVec
	seconds, fuel               prometheus.Observer
}

func (m *Metrics) link(plugin string) linkMetrics {
	if m == nil {
		return linkMetrics{}
	}
	return linkMetrics{
		carryOn:  m.calls.WithLabelValues(plugin, "continue"),
		change:   m.calls.WithLabelValues(plugin, "change"),
		deny:     m.calls.WithLabelValues(plugin, "deny"),
		fail:     m.calls.WithLabelValues(plugin, "fail"),
		cut:      m.cut.WithLabelValues(plugin),
		failures: m.failures.MustCurryWith(prometheus.Labels{"plugin": plugin}),
		seconds:  m.seconds.WithLabelValues(plugin),
		fuel:     m.fuel.WithLabelValues(plugin),
	}
}

// note counts one call.
func (m *linkMetrics) note(r *host.Result) {
	if m.failures == nil {
		return
	}
	m.used(r.Time, r.Fuel)
	v := r.Verdict
	if r.Would != nil {
		v = r.Would
	}
	switch {
	case r.Failure != nil:
		m.failed(r.Failure.Reason)
	case v.Action == abi.Deny:
		m.deny.Inc()
	case v.Empty():
		m.carryOn.Inc()
	default:
		m.change.Inc()
	}
}

// noteFilter counts one step of a filter.
func (m *linkMetrics) noteFilter(r *proxywasm.Report) {
	if m.failures == nil {
		return
	}
	if r.Cut {
		m.cut.Inc()
		return
	}
	m.used(r.Time, r.Fuel)
	switch {
	case r.Failure != nil:
		m.failed(r.Failure.Reason)
	case r.Outcome == proxywasm.Deny:
		m.deny.Inc()
	case r.Outcome == proxywasm.Change:
		m.change.Inc()
	default:
		m.carryOn.Inc()
	}
}

// cutResponse counts a response that ended midway; plugin is who has ended it.
func (m *Metrics) cutResponse(plugin string) {
	if m != nil {
		m.cut.WithLabelValues(plugin).Inc()
	}
}

func (m *linkMetrics) used(t time.Duration, fuel int64) {
	m.seconds.Observe(t.Seconds())
	m.fuel.Observe(float64(fuel))
}

func (m *linkMetrics) failed(why host.Reason) {
	if m.failures != nil {
		m.fail.Inc()
		m.failures.WithLabelValues(string(why)).Inc()
	}
}
