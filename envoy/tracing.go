// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"math"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tracev3 "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	uuidv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3"
	samplersv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/tracers/opentelemetry/samplers/v3"
	tracingv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Tracing says whether exchanges are traced. With the zero value nothing of it is in Envoy's configuration.
type Tracing struct {
	// Lines has the access log say when an exchange began and which traceparent it has. That is all where somebody else configures Envoy's tracer,
	// as in a mesh.
	Lines bool
	// Service is the service.name of the spans of Envoy's own tracer, which go to the processor by OTLP, so that whoever collects them need not
	// be told to Envoy, with the credentials for it. Empty: Envoy makes no spans.
	Service string
	// Ratio of the exchanges without a traceparent that are traced, from 0 to 1. Those with one are traced if it says so.
	Ratio float64
	// Distrust takes traceparent and tracestate off the requests of clients, so that they decide nothing.
	Distrust bool
}

const (
	spanName   = "gateway %REQ(:METHOD)%" // few values, whatever clients ask for
	maxPathTag = 256                      // bytes
)

// apply gives a connection manager the tracer, if Envoy is to make spans, and keeps x-request-id out of it: without such a header, and Weir takes it
// off, Envoy would trace nothing.
func (t Tracing) apply(m *hcmv3.HttpConnectionManager) error {
	if t.Service == "" {
		return nil
	}
	sampler, err := t.sampler()
	if err != nil {
		return fmt.Errorf("tracing: %w", err)
	}
	tracer, err := anypb.New(&tracev3.OpenTelemetryConfig{
		ServiceName: t.Service,
		Sampler:     sampler,
		GrpcService: &corev3.GrpcService{
			TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: processorCluster}},
			Timeout:         durationpb.New(sendAgainMost),
		},
	})
	if err != nil {
		return fmt.Errorf("tracing: %w", err)
	}
	id, err := anypb.New(&uuidv3.UuidRequestIdConfig{
		PackTraceReason: wrapperspb.Bool(false), UseRequestIdForTraceSampling: wrapperspb.Bool(false),
	})
	if err != nil {
		return fmt.Errorf("tracing: %w", err)
	}
	m.RequestIdExtension = &hcmv3.RequestIDExtension{TypedConfig: id}
	m.Tracing = &hcmv3.HttpConnectionManager_Tracing{
		Provider: &tracev3.Tracing_Http{
			Name: "envoy.tracers.opentelemetry", ConfigType: &tracev3.Tracing_Http_TypedConfig{TypedConfig: tracer},
		},
		Operation:        spanName,
		MaxPathTagLength: wrapperspb.UInt32(maxPathTag),
		CustomTags: []*tracingv3.CustomTag{
			spanTag("weir.exchange.id", "%DYNAMIC_METADATA(weir:exchange)%"),
			spanTag("http.url", "%PATH(NQ)%"), // in place of Envoy's own, which has the query: some put their key there
		},
	}
	return nil
}

func spanTag(name, value string) *tracingv3.CustomTag {
	return &tracingv3.CustomTag{Tag: name, Type: &tracingv3.CustomTag_Value{Value: value}}
}

// sampler follows the client's decision, and makes one where there is none.
func (t Tracing) sampler() (*corev3.TypedExtensionConfig, error) {
	const million = 1_000_000
	ratio, err := extension("envoy.tracers.opentelemetry.samplers.trace_id_ratio_based", &samplersv3.TraceIdRatioBasedSamplerConfig{
		SamplingPercentage: &typev3.FractionalPercent{
			Numerator: uint32(math.Round(t.Ratio * million)), Denominator: typev3.FractionalPercent_MILLION,
		},
	})
	if err != nil {
		return nil, err
	}
	return extension("envoy.tracers.opentelemetry.samplers.parent_based", &samplersv3.ParentBasedSamplerConfig{WrappedSampler: ratio})
}

func extension(name string, m proto.Message) (*corev3.TypedExtensionConfig, error) {
	packed, err := anypb.New(m)
	return &corev3.TypedExtensionConfig{Name: name, TypedConfig: packed}, err
}

// distrusted are the headers that clients may not send.
func (t Tracing) distrusted() []string {
	if !t.Distrust {
		return nil
	}
	return []string{"traceparent", "tracestate"}
}
