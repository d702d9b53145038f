// SPDX-License-Identifier: Apache-2.0

package extproc

import (
	"sync"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are the server's. Their names are part of the contract with dashboards.
type metrics struct {
	admitted      prometheus.Counter
	answered      prometheus.Counter
	refused       codes
	streams       prometheus.Gauge
	panics        prometheus.Counter
	misconfigured prometheus.Counter
	headers       prometheus.Observer
	body          prometheus.Observer
	response      prometheus.Observer
	other         prometheus.Observer
	wait          prometheus.Observer
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	admissions := f.NewCounterVec(prometheus.CounterOpts{
		Name: "weir_admissions_total",
		Help: "Requests decided on: admitted to a channel, answered by the gateway itself, or refused with the code; _OTHER stands for further codes of plugins.",
	}, []string{"decision", "code"})
	steps := f.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "weir_extproc_step_seconds",
		Help:    "Time to decide on one message of Envoy, without sending and receiving.",
		Buckets: prometheus.ExponentialBuckets(2e-6, 4, 10),
	}, []string{"phase"})
	return &metrics{
		admitted: admissions.WithLabelValues("admitted", ""),
		answered: admissions.WithLabelValues("answered", ""),
		refused: codes{
			of:    admissions.MustCurryWith(prometheus.Labels{"decision": "refused"}),
			known: make(map[string]prometheus.Counter),
		},
		streams: f.NewGauge(prometheus.GaugeOpts{
			Name: "weir_extproc_streams",
			Help: "External-processing streams that are open: requests that wait for a decision, and responses that a policy watches.",
		}),
		panics: f.NewCounter(prometheus.CounterOpts{
			Name: "weir_extproc_panics_total",
			Help: "Requests refused because deciding on them panicked. The log has the stack.",
		}),
		misconfigured: f.NewCounter(prometheus.CounterOpts{
			Name: "weir_extproc_misconfigured_total",
			Help: "Requests refused because Envoy is not configured to bring them as the processor needs them. The log says how.",
		}),
		headers:  steps.WithLabelValues("headers"),
		body:     steps.WithLabelValues("body"),
		response: steps.WithLabelValues("response"),
		other:    steps.WithLabelValues("other"),
		wait: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "weir_decision_wait_seconds",
			Help:    "Time from when an Envoy of this machine received a request until its decision began: what processor.wait bounds.",
			Buckets: prometheus.ExponentialBuckets(250e-6, 2, 12),
		}),
	}
}

// maxCodes is how many codes of refusals are counted by themselves: plugins give codes of their own, which may be without number. Further ones are otherCode.
const (
	maxCodes  = 100
	otherCode = "_OTHER"
)

// codes counts refusals by their codes.
type codes struct {
	of *prometheus.CounterVec

	mu    sync.RWMutex
	known map[string]prometheus.Counter
}

// count counts a refusal.
func (c *codes) count(code string) {
	c.mu.RLock()
	counter := c.known[code]
	c.mu.RUnlock()
	if counter == nil {
		counter = c.learn(code)
	}
	counter.Inc()
}

func (c *codes) learn(code string) prometheus.Counter {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= maxCodes {
		return c.of.WithLabelValues(otherCode)
	}
	counter := c.of.WithLabelValues(code)
	c.known[code] = counter
	return counter
}

// step returns where the duration of a step on the message goes.
func (m *metrics) step(r *extprocv3.ProcessingRequest) prometheus.Observer {
	switch r.GetRequest().(type) {
	case *extprocv3.ProcessingRequest_RequestHeaders:
		return m.headers
	case *extprocv3.ProcessingRequest_RequestBody:
		return m.body
	case *extprocv3.ProcessingRequest_ResponseBody:
		return m.response
	}
	return m.other
}
