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

// way is where a signal goes, as far as the configuration says. What it leaves open is read from the environment by the library.
type way struct {
	http    bool   // OTLP over HTTP, else over gRPC
	url     string // empty: not said
	headers map[string]string
}

// wayOf returns the way of a signal, which the environment calls by its name; over HTTP it goes to a path of its own.
func wayOf(c config.Telemetry, env environment, signal, path string) (way, error) {
	p, err := protocol(c, env, signal)
	if err != nil {
		return way{}, err
	}
	w := way{http: p == config.OTLPHTTP, url: c.Endpoint}
	if w.http && w.url != "" {
		w.url = strings.TrimRight(w.url, "/") + path
	}
	w.headers, err = headers(c.Headers.Reveal())
	return w, err
}

// options says the way in the options of an exporter.
func options[T any](w way, url func(string) T, headers func(map[string]string) T) []T {
	var o []T
	if w.url != "" {
		o = append(o, url(w.url))
	}
	if len(w.headers) > 0 {
		o = append(o, headers(w.headers))
	}
	return o
}

// traceClient makes the way that spans go.
func traceClient(c config.Telemetry, env environment) (otlptrace.Client, error) {
	w, err := wayOf(c, env, "TRACES", "/v1/traces")
	if err != nil {
		return nil, err
	}
	if w.http {
		return otlptracehttp.NewClient(options(w, otlptracehttp.WithEndpointURL, otlptracehttp.WithHeaders)...), nil
	}
	return otlptracegrpc.NewClient(options(w, otlptracegrpc.WithEndpointURL, otlptracegrpc.WithHeaders)...), nil
}

// metricExporter makes the way that metrics go.
func metricExporter(ctx context.Context, c config.Telemetry, env environment) (sdkmetric.Exporter, error) {
	w, err := wayOf(c, env, "METRICS", "/v1/metrics")
	if err != nil {
		return nil, err
	}
	if w.http {
		return otlpmetrichttp.New(ctx, options(w, otlpmetrichttp.WithEndpointURL, otlpmetrichttp.WithHeaders)...)
	}
	return otlpmetricgrpc.New(ctx, options(w, otlpmetricgrpc.WithEndpointURL, otlpmetricgrpc.WithHeaders)...)
}
