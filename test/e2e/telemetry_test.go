// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/test/rig"
)

// collector takes what is sent by OTLP.
type collector struct {
	collectortrace.UnimplementedTraceServiceServer
	collectormetrics.UnimplementedMetricsServiceServer

	endpoint string

	mu      sync.Mutex
	spans   []span
	metrics map[string]*metricspb.Metric // as they came last
	raw     bytes.Buffer                 // everything that came
	tokens  map[string]bool              // authorization of each message
}

// span is one, with the service that it is of.
type span struct {
	*tracepb.Span
	service string
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{endpoint: "http://" + l.Addr().String(), metrics: map[string]*metricspb.Metric{}, tokens: map[string]bool{}}
	s := grpc.NewServer()
	collectortrace.RegisterTraceServiceServer(s, c)
	collectormetrics.RegisterMetricsServiceServer(s, metricsService{c: c})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c
}

// took notes a message. The caller holds the lock.
func (c *collector) took(ctx context.Context, m proto.Message) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	c.raw.Write(b)
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		c.tokens[strings.Join(md.Get("authorization"), ",")] = true
	}
	return nil
}

func (c *collector) Export(ctx context.Context, m *collectortrace.ExportTraceServiceRequest) (*collectortrace.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range m.GetResourceSpans() {
		service, _ := attributeOf(r.GetResource().GetAttributes(), "service.name").(string)
		for _, s := range r.GetScopeSpans() {
			for _, one := range s.GetSpans() {
				c.spans = append(c.spans, span{one, service})
			}
		}
	}
	return &collectortrace.ExportTraceServiceResponse{}, c.took(ctx, m)
}

// metricsService is the other service of a [collector]: both have a method of one name.
type metricsService struct {
	collectormetrics.UnimplementedMetricsServiceServer

	c *collector
}

func (s metricsService) Export(ctx context.Context, m *collectormetrics.ExportMetricsServiceRequest) (*collectormetrics.ExportMetricsServiceResponse, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	for _, r := range m.GetResourceMetrics() {
		for _, scope := range r.GetScopeMetrics() {
			for _, one := range scope.GetMetrics() {
				s.c.metrics[one.GetName()] = one
			}
		}
	}
	return &collectormetrics.ExportMetricsServiceResponse{}, s.c.took(ctx, m)
}

// attributeOf returns the value of an attribute, nil if there is none.
func attributeOf(list []*commonpb.KeyValue, key string) any {
	for _, a := range list {
		if a.GetKey() != key {
			continue
		}
		switch v := a.GetValue().GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			return v.StringValue
		case *commonpb.AnyValue_IntValue:
			return v.IntValue
		case *commonpb.AnyValue_BoolValue:
			return v.BoolValue
		case *commonpb.AnyValue_DoubleValue:
			return v.DoubleValue
		}
	}
	return nil
}

// of returns the spans of an exchange by service.
func (c *collector) of(exchange string) (envoy, model *tracepb.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if attributeOf(s.GetAttributes(), "weir.exchange.id") != exchange {
			continue
		}
		if s.service == "tested-envoy" {
			envoy = s.Span
		} else {
			model = s.Span
		}
	}
	return envoy, model
}

// both waits until the collector has both spans of an exchange.
func (c *collector) both(w *world, exchange string) (envoy, model *tracepb.Span) {
	w.Eventually("spans of "+exchange, func() error {
		if envoy, model = c.of(exchange); envoy == nil || model == nil {
			return fmt.Errorf("envoy's %v, the model's %v", envoy, model)
		}
		return nil
	})
	return envoy, model
}

// points sums what a histogram has, by a label.
func (c *collector) points(name, label string) (count map[any]uint64, sum map[any]float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	count, sum = map[any]uint64{}, map[any]float64{}
	for _, p := range c.metrics[name].GetHistogram().GetDataPoints() {
		key := attributeOf(p.GetAttributes(), label)
		count[key] += p.GetCount()
		sum[key] += p.GetSum()
	}
	return count, sum
}

const (
	clientTrace = "0af7651916cd43dd8448eb211c80319c"
	clientSpan  = "b7ad6b7169203331"
)

// An exchange is two spans: Envoy's, below what the client began if it began anything, and below that one of what was asked of a model. Metrics and
// rows say the same. What is said is nobody's secret.
func TestExchangesAreToldByOTLPAsTheirRowsHaveThem(t *testing.T) {
	c := newCollector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20of-the-collector")
	w := newWorld(t, rig.Options{Production: true, Config: fmt.Sprintf(
		"telemetry: {endpoint: %q, service: tested, metrics_interval: 1s, headers: \"${OTEL_EXPORTER_OTLP_HEADERS}\"}\n", c.endpoint)})
	chat := func(body string, headers ...string) answer {
		return w.post(t, "/v1/chat/completions", body, headers...)
	}

	streamed := chat(helloStream, "traceparent", "00-"+clientTrace+"-"+clientSpan+"-01", "user-agent", "strange \xff agent")
	alone := w.post(t, "/v1/chat/completions?key=sk-in-the-query", hello)
	unsampled := chat(hello, "traceparent", "00-"+clientTrace+"-"+clientSpan+"-00")
	chat(hello, "authorization", "Bearer sk-weir-of-nobody")
	w.provider.Force(fake.Behavior{Status: 500})
	failed := chat(hello)
	if streamed.status != 200 || alone.status != 200 || unsampled.status != 200 || failed.status != 500 {
		t.Fatalf("got %d, %d, %d, %d", streamed.status, alone.status, unsampled.status, failed.status)
	}
	rows := w.Rows(4)

	envoy, model := c.both(w, streamed.exchange)
	if got := hex.EncodeToString(envoy.GetTraceId()) + " " + hex.EncodeToString(envoy.GetParentSpanId()); got != clientTrace+" "+clientSpan {
		t.Errorf("envoy's span is in %s, want %s %s", got, clientTrace, clientSpan)
	}
	if !bytes.Equal(model.GetTraceId(), envoy.GetTraceId()) || !bytes.Equal(model.GetParentSpanId(), envoy.GetSpanId()) {
		t.Errorf("the model's span is in %x below %x, want %x below %x", model.GetTraceId(), model.GetParentSpanId(), envoy.GetTraceId(), envoy.GetSpanId())
	}
	sameAsRow(t, model, w.Row(streamed.exchange), w)
	if events := model.GetEvents(); len(events) != 1 || events[0].GetName() != "weir.first_byte" ||
		events[0].GetTimeUnixNano() < model.GetStartTimeUnixNano() || events[0].GetTimeUnixNano() > model.GetEndTimeUnixNano() {
		t.Errorf("events %v", events)
	}
	const apart = 2_000_000 // a millisecond is what lines tell, and each of two may be cut off
	if model.GetStartTimeUnixNano()+apart < envoy.GetStartTimeUnixNano() || model.GetEndTimeUnixNano() > envoy.GetEndTimeUnixNano()+apart {
		t.Errorf("the model's span is from %d to %d, envoy's from %d to %d", model.GetStartTimeUnixNano(), model.GetEndTimeUnixNano(),
			envoy.GetStartTimeUnixNano(), envoy.GetEndTimeUnixNano())
	}

	envoy, model = c.both(w, alone.exchange)
	if len(envoy.GetParentSpanId()) != 0 || !bytes.Equal(model.GetParentSpanId(), envoy.GetSpanId()) || !bytes.Equal(model.GetTraceId(), envoy.GetTraceId()) {
		t.Errorf("without a trace of the client: envoy's span %x below %x, the model's below %x", envoy.GetSpanId(), envoy.GetParentSpanId(), model.GetParentSpanId())
	}
	sameAsRow(t, model, w.Row(alone.exchange), w)
	_, model = c.both(w, failed.exchange)
	if got := attributeOf(model.GetAttributes(), "error.type"); got != "500" || model.GetStatus().GetCode() != tracepb.Status_STATUS_CODE_ERROR {
		t.Errorf("of a failure: error.type %v, status %v", got, model.GetStatus())
	}
	if envoy, model = c.of(unsampled.exchange); envoy != nil || model != nil {
		t.Errorf("a client that wants no trace gets %v, %v", envoy, model)
	}
	c.agreesWith(w, rows)
	c.keepsSecrets(t, w.key, "Hello there", "sk-in-the-query", "sk-weir-of-nobody", "sk-one", rig.AdminToken, "of-the-collector")
}

// sameAsRow holds a span of a model to the row of its exchange.
func sameAsRow(t *testing.T, s *tracepb.Span, row store.UsageRow, w *world) {
	t.Helper()
	got, want := map[string]any{}, map[string]any{
		"gen_ai.operation.name": "chat", "gen_ai.provider.name": "fake", "gen_ai.request.model": "gpt-4o-mini", "gen_ai.response.model": "gpt-4o-mini",
		"gen_ai.request.stream": row.Stream, "gen_ai.usage.input_tokens": row.Input, "gen_ai.usage.output_tokens": row.Output,
		"server.address": "127.0.0.1", "http.response.status_code": int64(200), "weir.attempts": int64(1), "weir.channel.name": w.channel.Name,
		"weir.status": "ok", "weir.tenant.id": int64(row.TenantID), "error.type": nil,
	}
	for key := range want {
		got[key] = attributeOf(s.GetAttributes(), key)
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("attributes (got -, want +):\n%s", diff)
	}
	if s.GetName() != "chat gpt-4o-mini" || s.GetKind() != tracepb.Span_SPAN_KIND_CLIENT {
		t.Errorf("a span %q of kind %v", s.GetName(), s.GetKind())
	}
	if cost, _ := attributeOf(s.GetAttributes(), "weir.cost.usd").(float64); cost <= 0 {
		t.Errorf("the span says no cost: %v", s.GetAttributes())
	}
}

// agreesWith waits until metrics have what rows have.
func (c *collector) agreesWith(w *world, rows []store.UsageRow) {
	input, output, failures, streams := 0.0, 0.0, map[any]uint64{}, uint64(0)
	for _, r := range rows {
		input += float64(r.Input)
		output += float64(r.Output)
		if r.HTTPStatus == 500 {
			failures["500"]++
		} else {
			failures[nil]++
		}
		if r.Stream {
			streams++
		}
	}
	w.Eventually("metrics agree with rows", func() error {
		_, sum := c.points("gen_ai.client.token.usage", "gen_ai.token.type")
		durations, _ := c.points("gen_ai.server.request.duration", "error.type")
		first, _ := c.points("gen_ai.server.time_to_first_token", "none")
		each, _ := c.points("gen_ai.server.time_per_output_token", "none")
		return errors.Join(
			differ("tokens", sum, map[any]float64{"input": input, "output": output}),
			differ("durations", durations, failures),
			differ("first tokens", first, map[any]uint64{nil: streams}),
			differ("tokens after the first", each, map[any]uint64{nil: streams}),
		)
	})
	w.Eventually("Prometheus agrees", func() error {
		const about = `{gen_ai_operation_name="chat",gen_ai_provider_name="fake",gen_ai_request_model="gpt-4o-mini",gen_ai_token_type="input"}`
		n, err := w.Metric("gen_ai_client_token_usage_sum" + about)
		return errors.Join(err, differ("input", n, input))
	})
}

func differ[T any](what string, got, want T) error {
	if diff := cmp.Diff(got, want); diff != "" {
		return fmt.Errorf("%s (got -, want +):\n%s", what, diff)
	}
	return nil
}

// keepsSecrets looks through everything that came.
func (c *collector) keepsSecrets(t *testing.T, secrets ...string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.raw.Len() == 0 {
		t.Error("nothing came")
	}
	for _, s := range secrets {
		if bytes.Contains(c.raw.Bytes(), []byte(s)) {
			t.Errorf("%q was told", s)
		}
	}
	if diff := cmp.Diff(c.tokens, map[string]bool{"Bearer of-the-collector": true}); diff != "" {
		t.Errorf("authorization of messages (got -, want +):\n%s", diff)
	}
}
