// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/weir-proxy/weir/internal/config"
	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/usage"
)

// sink is a collector that is spoken to by HTTP.
type sink struct {
	*httptest.Server

	mu    sync.Mutex
	paths map[string]int
	spans []*tracepb.Span
}

func newSink(t *testing.T) *sink {
	t.Helper()
	s := &sink{paths: map[string]int{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.paths[r.URL.Path+" "+r.Header.Get("x-tenant")]++
		var m collectortrace.ExportTraceServiceRequest
		if r.URL.Path == "/v1/traces" && err == nil && proto.Unmarshal(b, &m) == nil {
			for _, one := range m.GetResourceSpans() {
				for _, scope := range one.GetScopeSpans() {
					s.spans = append(s.spans, scope.GetSpans()...)
				}
			}
		}
		w.Header().Set("content-type", "application/x-protobuf")
	}))
	t.Cleanup(s.Close)
	return s
}

func telemetryTo(endpoint string) config.Telemetry {
	c := config.Default().Telemetry
	c.Endpoint, c.Protocol, c.Headers, c.MetricsInterval = endpoint, config.OTLPHTTP, "x-tenant=a%20b", time.Hour
	return c
}

// row is one of a stream that reached its end.
func row(trace string) *usage.Record {
	return &usage.Record{
		Exchange: uuid.Must(uuid.NewV7()), Time: time.UnixMilli(1_700_000_000_000), Tenant: 1, Key: 2, Channel: 3, Model: "m", UpstreamModel: "u",
		Operation: policy.OpResponses, Status: usage.StatusOK, HTTPStatus: 200, Attempts: 1, Stream: true,
		Tokens:    usage.Tokens{Input: 10, Output: 5, CachedInput: 4, Reasoning: 2, Details: usage.Details{CacheWrite: 1}},
		FirstByte: 100 * time.Millisecond, Duration: 500 * time.Millisecond, Cost: usage.Cost{CostNanoUSD: 2_500_000_000, PriceVersion: 1}, Trace: trace,
	}
}

func open(t *testing.T, c config.Telemetry, r prometheus.Registerer) *Telemetry {
	t.Helper()
	tel, err := Open(t.Context(), Options{Config: c, Version: "v0", Registerer: r})
	if err != nil {
		t.Fatal(err)
	}
	tel.SetChannels([]Channel{{ID: 3, Name: "three", Dialect: "openai", BaseURL: "https://api.deepseek.com/v1"}})
	return tel
}

func TestARowIsASpanBelowWhatTheLineSays(t *testing.T) {
	s := newSink(t)
	tel := open(t, telemetryTo(s.URL), nil)
	tel.Ended(usage.Ending{How: usage.Posted, Record: row("1700000000000123 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")})
	tel.Ended(usage.Ending{How: usage.Posted, Record: row("1700000000000123 00-0af7651916cd43dd8448eb211c80319d-b7ad6b7169203331-00")}) // is not sampled
	tel.Ended(usage.Ending{How: usage.Posted, Record: row("1700000000000123 -")})
	tel.Ended(usage.Ending{How: usage.Resolved, Record: row("")}) // nothing is known of its end
	if err := tel.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(s.spans) != 2 {
		t.Fatalf("got %d spans, want that of the trace and one of its own", len(s.spans))
	}
	got := s.spans[0]
	if id := fmt.Sprintf("%x %x", got.GetTraceId(), got.GetParentSpanId()); id != "0af7651916cd43dd8448eb211c80319c b7ad6b7169203331" {
		t.Errorf("the span is at %s", id)
	}
	if from, to := got.GetStartTimeUnixNano(), got.GetEndTimeUnixNano(); from != 1_700_000_000_000_123_000 || to-from != uint64(500*time.Millisecond) {
		t.Errorf("the span is from %d to %d", from, to)
	}
	if parent := s.spans[1].GetParentSpanId(); len(parent) != 0 {
		t.Errorf("without a trace the span has the parent %x", parent)
	}
	attributes := map[string]string{}
	for _, a := range got.GetAttributes() {
		attributes[a.GetKey()] = value(a.GetValue())
	}
	if diff := cmp.Diff(attributes, map[string]string{
		"gen_ai.operation.name": "chat", "openai.api.type": "responses", "gen_ai.provider.name": "deepseek", "gen_ai.request.model": "m",
		"gen_ai.response.model": "u", "gen_ai.request.stream": "true", "gen_ai.usage.input_tokens": "10", "gen_ai.usage.output_tokens": "5",
		"gen_ai.usage.cache_read.input_tokens": "4", "gen_ai.usage.cache_creation.input_tokens": "1", "gen_ai.usage.reasoning.output_tokens": "2",
		"server.address": "api.deepseek.com", "server.port": "443", "http.response.status_code": "200", "weir.channel.name": "three",
		"weir.exchange.id": attributes["weir.exchange.id"], "weir.tenant.id": "1", "weir.key.id": "2", "weir.attempts": "1", "weir.status": "ok",
		"weir.usage.estimated": "false", "weir.cost.usd": "2.5",
	}); diff != "" {
		t.Errorf("attributes (got -, want +):\n%s", diff)
	}
	if s.paths["/v1/traces a b"] == 0 || s.paths["/v1/metrics a b"] == 0 || len(s.paths) != 2 {
		t.Errorf("messages by path and header: %v", s.paths)
	}
}

// value writes a value as a text.
func value(v *commonpb.AnyValue) string {
	switch v := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return v.StringValue
	case *commonpb.AnyValue_IntValue:
		return fmt.Sprint(v.IntValue)
	case *commonpb.AnyValue_BoolValue:
		return fmt.Sprint(v.BoolValue)
	case *commonpb.AnyValue_DoubleValue:
		return fmt.Sprint(v.DoubleValue)
	}
	return fmt.Sprintf("%T", v.GetValue())
}

func TestNothingIsSentUnlessThereIsAnEndpoint(t *testing.T) {
	set := func(pairs ...string) func(string) string {
		return func(name string) string {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i] == name {
					return pairs[i+1]
				}
			}
			return ""
		}
	}
	file := config.Default().Telemetry
	told := file
	told.Endpoint = "http://127.0.0.1:4317"
	quiet := told
	quiet.Traces = false
	for name, c := range map[string]struct {
		file   config.Telemetry
		getenv func(string) string
		want   Signals
	}{
		"nothing":          {file, nil, Signals{}},
		"the file":         {told, nil, Signals{true, true}},
		"no traces":        {quiet, nil, Signals{Metrics: true}},
		"the environment":  {file, set("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"), Signals{true, true}},
		"traces alone":     {file, set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4317"), Signals{Traces: true}},
		"another exporter": {told, set("OTEL_METRICS_EXPORTER", "none"), Signals{Traces: true}},
		"switched off":     {told, set("OTEL_SDK_DISABLED", "true"), Signals{}},
	} {
		if got := SignalsOf(c.file, c.getenv); got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

func TestWhatCannotBeSentIsAnErrorAtTheStart(t *testing.T) {
	bad := telemetryTo("http://127.0.0.1:1")
	bad.Headers = "authorization hunter2"
	_, err := Open(t.Context(), Options{Config: bad})
	if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "telemetry.headers") {
		t.Errorf("headers that are none: got %v", err)
	}
	odd := telemetryTo("http://127.0.0.1:1")
	odd.Protocol, odd.Headers = "", ""
	_, err = Open(t.Context(), Options{Config: odd, Getenv: func(name string) string {
		if name == "OTEL_EXPORTER_OTLP_PROTOCOL" {
			return "http/json"
		}
		return ""
	}})
	if err == nil || !strings.Contains(err.Error(), "http/json") {
		t.Errorf("a protocol that is not spoken: got %v", err)
	}
}

// A collector that is away costs no more than what is not sent.
func TestACollectorThatIsAwayIsCountedAndWaitedForBriefly(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	r := prometheus.NewRegistry()
	tel := open(t, telemetryTo(gone.URL), r)
	tel.Ended(usage.Ending{How: usage.Posted, Record: row("")})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := tel.Close(ctx); err == nil {
		t.Error("what was not sent is not told of")
	}
	if got := gathered(t, r, "gen_ai_server_request_duration_seconds"); got != 1 {
		t.Errorf("Prometheus has %d series of durations, want 1", got)
	}
}

func TestClientsInventNoSeries(t *testing.T) {
	r := prometheus.NewRegistry()
	tel := open(t, config.Default().Telemetry, r)
	for i := range 3 * maxModels {
		one := row("")
		one.Model = fmt.Sprint("invented-", i)
		tel.Ended(usage.Ending{How: usage.Posted, Record: one})
	}
	if got := gathered(t, r, "gen_ai_server_request_duration_seconds"); got != maxModels+1 {
		t.Errorf("%d models make %d series, want %d", 3*maxModels, got, maxModels+1)
	}
}

// gathered returns how many series a metric has.
func gathered(t *testing.T, r *prometheus.Registry, name string) int {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return len(f.GetMetric())
		}
	}
	return 0
}

func TestARelayThatIsFullDropsAndCounts(t *testing.T) {
	stuck := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stuck }))
	defer s.Close()
	defer close(stuck)
	r := prometheus.NewRegistry()
	tel := open(t, telemetryTo(s.URL), r)
	one := &collectortrace.ExportTraceServiceRequest{ResourceSpans: []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{{Name: "x"}}}}}}}
	for range relayQueue + 10 {
		tel.relay.take(one)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if n := f.GetMetric()[0].GetCounter().GetValue(); f.GetName() == "weir_telemetry_dropped_envoy_spans_total" && (n < 9 || n > 10) {
			t.Errorf("%v were dropped, want all but those that wait and the one that is being sent", n)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tel.Close(ctx); err == nil {
		t.Error("what was not handed on is not told of")
	}
}

func BenchmarkARow(b *testing.B) {
	tel, err := Open(b.Context(), Options{Config: config.Default().Telemetry})
	if err != nil {
		b.Fatal(err)
	}
	tel.SetChannels([]Channel{{ID: 3, Name: "three", Dialect: "openai", BaseURL: "https://api.deepseek.com/v1"}})
	r := row("")
	b.ReportAllocs()
	for b.Loop() {
		tel.Ended(usage.Ending{How: usage.Posted, Record: r})
	}
}
