// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/version"
)

// healthTimeout bounds the checks of one scrape, which ask Postgres and Envoy. What has not answered by then is not healthy.
const healthTimeout = 2 * time.Second

// health shows what /readyz says as metrics, so that an alert and a load balancer cannot disagree. It asks anew for each scrape.
type health struct {
	ready  func(context.Context) []admin.Check
	envoys func() int

	readyDesc, checkDesc, envoysDesc, buildDesc *prometheus.Desc
}

func newHealth(ready func(context.Context) []admin.Check, envoys func() int) *health {
	return &health{
		ready: ready, envoys: envoys,
		readyDesc:  prometheus.NewDesc("weir_ready", "1 while /readyz answers 200: a request to the gateway would be served.", nil, nil),
		checkDesc:  prometheus.NewDesc("weir_healthy", "1 while a check of /readyz finds nothing, 0 while it warns or fails.", []string{"check"}, nil),
		envoysDesc: prometheus.NewDesc("weir_envoys", "Envoys that are connected to this processor.", nil, nil),
		buildDesc:  prometheus.NewDesc("weir_build_info", "Always 1; the labels say what runs.", []string{"version", "go"}, nil),
	}
}

// Describe implements [prometheus.Collector].
func (h *health) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{h.readyDesc, h.checkDesc, h.envoysDesc, h.buildDesc} {
		to <- d
	}
}

// Collect implements [prometheus.Collector].
func (h *health) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), healthTimeout) // a collector is given none
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	ready := 1.0
	for _, c := range h.ready(ctx) {
		healthy := 1.0
		if c.Verdict != admin.OK {
			healthy = 0
		}
		if c.Verdict == admin.Fail {
			ready = 0
		}
		gauge(h.checkDesc, healthy, c.Name)
	}
	gauge(h.readyDesc, ready)
	gauge(h.envoysDesc, float64(h.envoys()))
	gauge(h.buildDesc, 1, version.String(), runtime.Version())
}
