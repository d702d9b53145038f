// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/weir-proxy/weir/usage"
)

// Names of the metrics: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/. For Prometheus dots are underscores, and units are in names.
const (
	tokenUsage      = "gen_ai.client.token.usage"
	requestDuration = "gen_ai.server.request.duration"
	timeToFirst     = "gen_ai.server.time_to_first_token"
	timePerToken    = "gen_ai.server.time_per_output_token"
)

// Buckets, as the conventions advise.
var (
	tokenBuckets    = []float64{1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864}
	durationBuckets = []float64{0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92}
	firstBuckets    = []float64{0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}
	perTokenBuckets = []float64{0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5}
)

// maxModels is how many names of models have metrics of their own. Channels that take any model let clients invent names; from then on all further ones are
// otherModel.
const (
	maxModels  = 200
	otherModel = "_OTHER"
)

// series is what tells one series of measurements from others.
type series struct {
	operation, model, upstream, failure string
	server                              server
}

// sinks are where the measurements of a series go.
type sinks struct {
	input, output, duration, first, perToken prometheus.Observer
	plain, failed, in, out                   metric.MeasurementOption
}

// metrics has the measurements of exchanges, for Prometheus and for OTLP.
type metrics struct {
	tokens, duration, first, perToken *prometheus.HistogramVec
	relayed, dropped, failures        prometheus.Counter

	sent instruments

	mu     sync.Mutex
	models map[string]bool
	known  map[series]*sinks
	last   series // the one that was asked for last
	recent *sinks // its sinks; nil: none was
}

// instruments are those of OTLP; without it they are nil.
type instruments struct {
	tokens                    metric.Int64Histogram
	duration, first, perToken metric.Float64Histogram
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	histogram := func(name, help string, buckets []float64, more ...string) *prometheus.HistogramVec {
		return f.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets},
			append([]string{"gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"}, more...))
	}
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return &metrics{
		tokens: histogram("gen_ai_client_token_usage", "Tokens of an exchange, by gen_ai_token_type: input, with what was cached, or output, with reasoning.",
			tokenBuckets, "gen_ai_token_type"),
		duration: histogram("gen_ai_server_request_duration_seconds",
			"Time of an exchange from the first byte of its request to the last of its answer. error_type is empty where it reached its end.",
			durationBuckets, "error_type"),
		first: histogram("gen_ai_server_time_to_first_token_seconds",
			"Time from the first byte of a request to the first of its answer, of streams that reached their end.", firstBuckets),
		perToken: histogram("gen_ai_server_time_per_output_token_seconds",
			"Time for each token of a stream after the first, where the provider counted them.", perTokenBuckets),
		relayed:  counter("weir_telemetry_envoy_spans_total", "Spans that Envoys sent, to be handed on to the collector."),
		dropped:  counter("weir_telemetry_dropped_envoy_spans_total", "Spans of Envoys that were dropped, because the collector did not take them in time."),
		failures: counter("weir_telemetry_failures_total", "Failures to send telemetry by OTLP. The log has the reasons."),
		models:   map[string]bool{}, known: map[series]*sinks{},
	}
}

// send begins to measure for OTLP, too.
func (m *metrics) send(meter metric.Meter) error {
	var err error
	if m.sent.tokens, err = meter.Int64Histogram(tokenUsage, metric.WithUnit("{token}"),
		metric.WithDescription("Number of input and output tokens used."), metric.WithExplicitBucketBoundaries(tokenBuckets...)); err != nil {
		return fmt.Errorf("%s: %w", tokenUsage, err)
	}
	for _, one := range []struct {
		name, about string
		buckets     []float64
		to          *metric.Float64Histogram
	}{
		{requestDuration, "Time of the request, to the last byte of its response.", durationBuckets, &m.sent.duration},
		{timeToFirst, "Time to generate the first token, of streams that reached their end.", firstBuckets, &m.sent.first},
		{timePerToken, "Time per output token after the first, of streams that reached their end.", perTokenBuckets, &m.sent.perToken},
	} {
		if *one.to, err = meter.Float64Histogram(one.name, metric.WithUnit("s"), metric.WithDescription(one.about),
			metric.WithExplicitBucketBoundaries(one.buckets...)); err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
	}
	return nil
}

// record measures an exchange.
func (m *metrics) record(r *usage.Record, s server) {
	to := m.sinksOf(r, s)
	ctx := context.Background()
	seconds := r.Duration.Seconds()
	to.duration.Observe(seconds)
	if m.sent.duration != nil {
		m.sent.duration.Record(ctx, seconds, to.failed)
	}
	count := func(n int64, o prometheus.Observer, with metric.MeasurementOption) {
		if n == 0 {
			return // what was not used is no measurement
		}
		o.Observe(float64(n))
		if m.sent.tokens != nil {
			m.sent.tokens.Record(ctx, n, with)
		}
	}
	count(r.Input, to.input, to.in)
	count(r.Output, to.output, to.out)
	if !r.Stream || r.Status != usage.StatusOK || r.FirstByte < 0 {
		return
	}
	first := r.FirstByte.Seconds()
	to.first.Observe(first)
	if m.sent.first != nil {
		m.sent.first.Record(ctx, first, to.plain)
	}
	if r.Estimated || r.Output < 2 {
		return
	}
	each := (seconds - first) / float64(r.Output-1)
	to.perToken.Observe(each)
	if m.sent.perToken != nil {
		m.sent.perToken.Record(ctx, each, to.plain)
	}
}

// sinksOf returns where the measurements of an exchange go. There is one for each series that has occurred.
func (m *metrics) sinksOf(r *usage.Record, s server) *sinks {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := series{operation: operation(r.Operation), model: r.Model, upstream: r.UpstreamModel, failure: errorType(r), server: s}
	if m.recent == nil || m.last != key { // exchanges of one series often end one behind the other
		m.last, m.recent = key, m.sinksLocked(key)
	}
	return m.recent
}

func (m *metrics) sinksLocked(key series) *sinks {
	if to, ok := m.known[key]; ok {
		return to
	}
	if !m.models[key.model] {
		if len(m.models) < maxModels {
			m.models[key.model] = true
		} else if key.model, key.upstream = otherModel, otherModel; m.known[key] != nil {
			return m.known[key]
		}
	}
	labels := []string{key.operation, key.server.provider, key.model}
	with := func(more ...string) []string { return append(slices.Clip(labels), more...) }
	to := &sinks{
		input: m.tokens.WithLabelValues(with("input")...), output: m.tokens.WithLabelValues(with("output")...),
		duration: m.duration.WithLabelValues(with(key.failure)...), first: m.first.WithLabelValues(labels...), perToken: m.perToken.WithLabelValues(labels...),
	}
	to.options(key)
	m.known[key] = to
	return to
}

// options sets the attributes for OTLP.
func (to *sinks) options(key series) {
	about := []attribute.KeyValue{
		attribute.String("gen_ai.operation.name", key.operation),
		attribute.String("gen_ai.provider.name", key.server.provider),
		attribute.String("gen_ai.request.model", key.model),
	}
	if key.upstream != "" {
		about = append(about, attribute.String("gen_ai.response.model", key.upstream))
	}
	if key.server.address != "" {
		about = append(about, attribute.String("server.address", key.server.address), attribute.Int("server.port", key.server.port))
	}
	set := func(more ...attribute.KeyValue) metric.MeasurementOption {
		return metric.WithAttributeSet(attribute.NewSet(append(slices.Clip(about), more...)...))
	}
	to.plain, to.failed = set(), set()
	if key.failure != "" {
		to.failed = set(attribute.String("error.type", key.failure))
	}
	to.in, to.out = set(attribute.String("gen_ai.token.type", "input")), set(attribute.String("gen_ai.token.type", "output"))
}
