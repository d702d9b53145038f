// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-proxy/weir/plugins/proxywasm"
)

// own collects the metrics that plugins of proxy-wasm keep themselves. There may be a thousand of each plugin and tenant, with names of the plugin's choice, so they are not among
// those of the process.
type own struct {
	loader   *Loader
	value    *prometheus.Desc
	observed *prometheus.Desc
}

// Own returns what collects the metrics that plugins themselves keep, for a registry of its own.
func (l *Loader) Own() prometheus.Collector {
	labels := []string{"plugin", "tenant", "metric"}
	return &own{
		l,
		prometheus.NewDesc("weir_plugin_own", "A metric that a plugin keeps for a tenant, by the tenant's id and the plugin's name for it; of a histogram, the sum.", labels, nil),
		prometheus.NewDesc("weir_plugin_own_observations", "How many values a histogram of a plugin has.", labels, nil),
	}
}

// Describe implements [prometheus.Collector].
func (o *own) Describe(to chan<- *prometheus.Desc) {
	to <- o.value
	to <- o.observed
}

// ownKey names a metric. Attachments of one plugin with different configurations count together.
type ownKey struct {
	plugin string
	tenant int64
	metric string
}

// Collect implements [prometheus.Collector].
func (o *own) Collect(to chan<- prometheus.Metric) {
	sums := map[ownKey]proxywasm.Metric{}
	for name, filters := range o.loader.filtersInForce() {
		for _, f := range filters {
			for tenant, all := range f.AllMetrics() {
				for _, m := range all {
					k := ownKey{name, tenant, strings.ToValidUTF8(m.Name, "?")} // as labels must be
					m.Value += sums[k].Value
					m.Count += sums[k].Count
					sums[k] = m
				}
			}
		}
	}
	for k, m := range sums {
		labels := []string{k.plugin, strconv.FormatInt(k.tenant, 10), k.metric}
		kind := prometheus.GaugeValue
		if m.Kind == proxywasm.Counter {
			kind = prometheus.CounterValue
		}
		to <- prometheus.MustNewConstMetric(o.value, kind, float64(m.Value), labels...)
		if m.Kind == proxywasm.Histogram {
			to <- prometheus.MustNewConstMetric(o.observed, prometheus.CounterValue, float64(m.Count), labels...)
		}
	}
}

// filtersInForce returns the plugins of proxy-wasm that judge exchanges now, by name.
func (l *Loader) filtersInForce() map[string][]*proxywasm.Plugin {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := map[*proxywasm.Plugin]bool{}
	out := map[string][]*proxywasm.Plugin{}
	for _, in := range l.inForce {
		if in.handle != nil && in.handle.filter != nil && !seen[in.handle.filter] {
			seen[in.handle.filter] = true
			out[in.Plugin] = append(out[in.Plugin], in.handle.filter)
		}
	}
	return out
}
