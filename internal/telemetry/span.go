// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"context"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/usage"
)

// nanoUSD are in a dollar.
const nanoUSD = 1e9

// place reads [usage.Record].Trace: when the exchange began, and below what its span is.
func place(r *usage.Record) (began time.Time, parent trace.SpanContext) {
	micros, traceparent, _ := strings.Cut(r.Trace, " ")
	began = r.Time
	if n, err := strconv.ParseInt(micros, 10, 64); err == nil {
		began = time.UnixMicro(n)
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": traceparent})
	return began, trace.SpanContextFromContext(ctx)
}

// unsampled says whether a record belongs to a trace that is not sampled, without making anything of it: of all that is traced most is not. It is false of what
// it is not sure of.
func unsampled(r *usage.Record) bool {
	const version, trace, parent, whole = "00-", len("00-") + 32, len("00-") + 32 + 1 + 16, len("00-") + 32 + 1 + 16 + len("-00")
	_, p, _ := strings.Cut(r.Trace, " ")
	if len(p) != whole || !strings.HasPrefix(p, version) || strings.Trim(p[len(version):trace], "0") == "" || strings.Trim(p[trace+1:parent], "0") == "" {
		return false
	}
	return p[parent:] == "-00"
}

// span makes the span of an exchange, if it belongs to a trace that is sampled, or to none.
func (t *Telemetry) span(r *usage.Record, s server) {
	if unsampled(r) {
		return
	}
	began, parent := place(r)
	if parent.IsValid() && !parent.IsSampled() {
		return
	}
	ctx := trace.ContextWithRemoteSpanContext(context.Background(), parent)
	name := operation(r.Operation) + " " + r.Model
	_, span := t.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(began))
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(describe(r, s)...)
	if r.FirstByte >= 0 {
		span.AddEvent("weir.first_byte", trace.WithTimestamp(began.Add(r.FirstByte)))
	}
	if kind := errorType(r); kind != "" {
		span.SetAttributes(attribute.String("error.type", kind))
		span.SetStatus(codes.Error, string(r.Status))
	}
	span.End(trace.WithTimestamp(began.Add(r.Duration)))
}

// describe returns the attributes of a span: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/. Those that begin with weir are our own.
func describe(r *usage.Record, s server) []attribute.KeyValue {
	out := []attribute.KeyValue{
		attribute.String("gen_ai.operation.name", operation(r.Operation)),
		attribute.String("gen_ai.provider.name", s.provider),
		attribute.String("gen_ai.request.model", r.Model),
		attribute.Bool("gen_ai.request.stream", r.Stream),
		attribute.Int64("gen_ai.usage.input_tokens", r.Input),
		attribute.Int64("gen_ai.usage.output_tokens", r.Output),
		attribute.String("weir.exchange.id", r.Exchange.String()),
		attribute.Int64("weir.tenant.id", int64(r.Tenant)),
		attribute.Int64("weir.key.id", int64(r.Key)),
		attribute.Int("weir.attempts", r.Attempts),
		attribute.String("weir.status", string(r.Status)),
		attribute.Bool("weir.usage.estimated", r.Estimated),
	}
	add := func(there bool, a attribute.KeyValue) {
		if there {
			out = append(out, a)
		}
	}
	add(r.UpstreamModel != "", attribute.String("gen_ai.response.model", r.UpstreamModel))
	add(s.address != "", attribute.String("server.address", s.address))
	add(s.port != 0, attribute.Int("server.port", s.port))
	add(s.channel != "", attribute.String("weir.channel.name", s.channel))
	add(r.HTTPStatus != 0, attribute.Int("http.response.status_code", r.HTTPStatus))
	add(r.CachedInput > 0, attribute.Int64("gen_ai.usage.cache_read.input_tokens", r.CachedInput))
	add(r.CacheWrite > 0, attribute.Int64("gen_ai.usage.cache_creation.input_tokens", r.CacheWrite))
	add(r.Reasoning > 0, attribute.Int64("gen_ai.usage.reasoning.output_tokens", r.Reasoning))
	add(r.Operation == policy.OpResponses, attribute.String("openai.api.type", "responses"))
	add(r.Operation == policy.OpChat, attribute.String("openai.api.type", "chat_completions"))
	add(r.Priced(), attribute.Float64("weir.cost.usd", float64(r.CostNanoUSD)/nanoUSD))
	return out
}
