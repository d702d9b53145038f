// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/weir-proxy/weir/internal/config"
	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/usage"
)

// Options are what [Open] needs.
type Options struct {
	Config     config.Telemetry
	Getenv     func(string) string // nil: an empty environment, as far as this package reads it
	Version    string
	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil: the metrics are not exposed to Prometheus
}

// Telemetry tells of exchanges as their rows reach the database. All methods may be called from any goroutine.
type Telemetry struct {
	log     *slog.Logger
	servers atomic.Pointer[map[policy.ChannelID]server]
	metrics *metrics

	tracer trace.Tracer // nil: no spans are made
	ratio  float64
	relay  *relay // nil: as above
	close  []func(context.Context) error

	complaint struct {
		sync.Mutex
		said string
		at   time.Time
	}
}

var _ usage.Listener = (*Telemetry)(nil)

// Open begins what the configuration wants. A collector that does not answer is no error: what it does not take is dropped in the end.
func Open(ctx context.Context, o Options) (*Telemetry, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	t := &Telemetry{log: o.Logger, metrics: newMetrics(o.Registerer), ratio: o.Config.SampleRatio}
	t.SetChannels(nil)
	wanted := SignalsOf(o.Config, o.Getenv)
	if !wanted.Metrics && !wanted.Traces {
		return t, nil
	}
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(
		attribute.String("service.name", o.Config.Service), attribute.String("service.version", o.Version),
	), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(t.failed))
	if wanted.Metrics {
		err = t.sendMetrics(ctx, o, about)
	}
	if err == nil && wanted.Traces {
		err = t.sendTraces(ctx, o, about)
	}
	if err != nil {
		return nil, errors.Join(err, t.Close(ctx))
	}
	o.Logger.Info("telemetry is sent by OTLP", "endpoint", endpointOf(o), "metrics", wanted.Metrics, "traces", wanted.Traces)
	return t, nil
}

func endpointOf(o Options) string {
	if o.Config.Endpoint != "" {
		return o.Config.Endpoint
	}
	return "as OTEL_EXPORTER_OTLP_ENDPOINT says"
}

func (t *Telemetry) sendMetrics(ctx context.Context, o Options, about *resource.Resource) error {
	exporter, err := metricExporter(ctx, o.Config, o.Getenv)
	if err != nil {
		return fmt.Errorf("send metrics: %w", err)
	}
	provider := sdkmetric.NewMeterProvider(
		sdkmetric.WithResource(about),
		sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exporter, sdkmetric.WithInterval(o.Config.MetricsInterval))),
	)
	t.close = append(t.close, provider.Shutdown)
	return t.metrics.send(provider.Meter(scope))
}

// Rows come in batches, and so do spans: the queue has room for what some thousand exchanges a second leave behind in a batch. What has no room is
// dropped.
const (
	spanQueue = 16384
	spanBatch = 2048 // in one message, of at most 4 MiB
)

func (t *Telemetry) sendTraces(ctx context.Context, o Options, about *resource.Resource) error {
	client, err := traceClient(o.Config, o.Getenv)
	if err != nil {
		return fmt.Errorf("send traces: %w", err)
	}
	exporter, err := otlptrace.New(ctx, client)
	if err != nil {
		return fmt.Errorf("send traces: %w", err)
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithResource(about),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(o.Config.SampleRatio))),
		sdktrace.WithBatcher(exporter, sdktrace.WithMaxQueueSize(spanQueue), sdktrace.WithMaxExportBatchSize(spanBatch)),
	)
	t.relay = newRelay(client, t.metrics, t.failed)
	t.close = append(t.close, t.relay.close, provider.Shutdown)
	t.tracer = provider.Tracer(scope, trace.WithInstrumentationVersion(o.Version))
	return nil
}

// scope is the name of what made a metric or span.
const scope = "github.com/weir-proxy/weir"

// SetChannels says what is told of channels. Rows of others are told without it.
func (t *Telemetry) SetChannels(channels []Channel) {
	servers := make(map[policy.ChannelID]server, len(channels))
	for _, c := range channels {
		servers[c.ID] = serverOf(c)
	}
	t.servers.Store(&servers)
}

// Left implements [usage.Listener].
func (t *Telemetry) Left(*policy.Ticket) {}

// Ended implements [usage.Listener]: it tells of an exchange whose row is in the database. An exchange of whose end nothing is known is not told of.
func (t *Telemetry) Ended(e usage.Ending) {
	if e.How != usage.Posted {
		return
	}
	s, known := (*t.servers.Load())[e.Record.Channel]
	if !known {
		s.provider = otherProvider
	}
	t.metrics.record(e.Record, s)
	if t.tracer != nil {
		t.span(e.Record, s)
	}
}

// Close sends what is not sent yet, until ctx ends.
func (t *Telemetry) Close(ctx context.Context) error {
	var errs []error
	for _, f := range t.close {
		errs = append(errs, f(ctx))
	}
	return errors.Join(errs...)
}

// complain is how often the same failure is logged.
const complain = 5 * time.Minute

// failed counts what could not be sent, and logs it now and then.
func (t *Telemetry) failed(err error) {
	t.metrics.failures.Inc()
	t.complaint.Lock()
	defer t.complaint.Unlock()
	if now := time.Now(); err.Error() != t.complaint.said || now.Sub(t.complaint.at) > complain {
		t.complaint.said, t.complaint.at = err.Error(), now
		t.log.Warn("telemetry could not be sent", "err", err)
	}
}
