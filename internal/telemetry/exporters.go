// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/weir-proxy/weir/internal/config"
)

// traceClient makes the way that spans go. What the configuration leaves open is read from the environment by the library.
func traceClient(c config.Telemetry, env environment) (otlptrace.Client, error) {
	p, err := protocol(c, env, "TRACES")
	if err != nil {
		return nil, err
	}
	h, err := headers(c.Headers.Reveal())
	if err != nil {
		return nil, err
	}
	if p == config.OTLPHTTP {
		var o []otlptracehttp.Option
		if c.Endpoint != "" {
			o = append(o, otlptracehttp.WithEndpointURL(strings.TrimRight(c.Endpoint, "/")+"/v1/traces"))
		}
		if len(h) > 0 {
			o = append(o, otlptracehttp.WithHeaders(h))
		}
		return otlptracehttp.NewClient(o...), nil
	}
	var o []otlptracegrpc.Option
	if c.Endpoint != "" {
		o = append(o, otlptracegrpc.WithEndpointURL(c.Endpoint))
	}
	if len(h) > 0 {
		o = append(o, otlptracegrpc.WithHeaders(h))
	}
	return otlptracegrpc.NewClient(o...), nil
}

// metricExporter makes the way that metrics go.
func metricExporter(ctx context.Context, c config.Telemetry, env environment) (sdkmetric.Exporter, error) {
	p, err := protocol(c, env, "METRICS")
	if err != nil {
		return nil, err
	}
	h, err := headers(c.Headers.Reveal())
	if err != nil {
		return nil, err
	}
	if p == config.OTLPHTTP {
		var o []otlpmetrichttp.Option
		if c.Endpoint != "" {
			o = append(o, otlpmetrichttp.WithEndpointURL(strings.TrimRight(c.Endpoint, "/")+"/v1/metrics"))
		}
		if len(h) > 0 {
			o = append(o, otlpmetrichttp.WithHeaders(h))
		}
		return otlpmetrichttp.New(ctx, o...)
	}
	var o []otlpmetricgrpc.Option
	if c.Endpoint != "" {
		o = append(o, otlpmetricgrpc.WithEndpointURL(c.Endpoint))
	}
	if len(h) > 0 {
		o = append(o, otlpmetricgrpc.WithHeaders(h))
	}
	return otlpmetricgrpc.New(ctx, o...)
}
