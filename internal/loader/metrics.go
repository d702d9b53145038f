// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"cmp"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	loads       *prometheus.CounterVec // by outcome
	attachments *prometheus.GaugeVec   // by state
	rollBacks   prometheus.Counter
	revision    prometheus.Gauge
}

func newMetrics(r prometheus.Registerer, l *Loader) *metrics {
	f := promauto.With(r)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "weir_plugins_loaded", Help: "Plugins in memory, those included that only exchanges under way still use.",
	}, func() float64 {
		l.mu.Lock()
		defer l.mu.Unlock()
		return float64(l.open)
	})
	return &metrics{
		loads: f.NewCounterVec(prometheus.CounterOpts{
			Name: "weir_plugin_loads_total", Help: "Modules that were compiled and configured, by outcome: ok or failed. The log has the reasons.",
		}, []string{"outcome"}),
		attachments: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "weir_plugin_attachments",
			Help: "Attachments that are not disabled, by state: in_force; pending, until it is loaded: closed ones refuse their exchanges after a quarter of a second; stale, when an earlier version judges in its place; " +
				"denying, when it cannot be loaded and its exchanges are denied; or left_out, when it cannot be loaded and they are not.",
		}, []string{"state"}),
		rollBacks: f.NewCounter(prometheus.CounterOpts{
			Name: "weir_plugin_rollbacks_total", Help: "Versions of plugins that failed often, and that this processor took back.",
		}),
		revision: f.NewGauge(prometheus.GaugeOpts{
			Name: "weir_plugins_revision", Help: "Revision of the configuration whose attachments are all in force, or known not to load.",
		}),
	}
}

func (m *metrics) load(err error) {
	outcome := "ok"
	if err != nil {
		outcome = "failed"
	}
	m.loads.WithLabelValues(outcome).Inc()
}

// count sets the states of all attachments. The caller holds the lock of l.
func (m *metrics) count(l *Loader) {
	n := map[string]int{"in_force": 0, "pending": 0, "stale": 0, "denying": 0, "left_out": 0}
	for _, a := range l.wanted {
		p, failed := l.problems[a.ID]
		in, placed := l.inForce[a.ID]
		switch {
		case placed && l.identify(&a) == l.identify(&in.Attachment):
			n["in_force"]++
		case placed:
			n["stale"]++
		case !failed:
			n["pending"]++
		case p.Denies:
			n["denying"]++
		default:
			n["left_out"]++
		}
	}
	for state, v := range n {
		m.attachments.WithLabelValues(state).Set(float64(v))
	}
}

// Problems returns the attachments that are not in force as they should be, by id.
func (l *Loader) Problems() []Problem {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Problem
	for id, p := range l.problems {
		got := p.Problem
		if _, placed := l.inForce[id]; placed {
			got.Stale, got.Denies = true, false
		}
		out = append(out, got)
	}
	slices.SortFunc(out, func(a, b Problem) int { return cmp.Compare(a.Attachment, b.Attachment) })
	return out
}
