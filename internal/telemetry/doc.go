// SPDX-License-Identifier: Apache-2.0

// Package telemetry tells others what models did: metrics and spans by the semantic conventions of OpenTelemetry for generative AI
// (https://opentelemetry.io/docs/specs/semconv/gen-ai/), by OTLP, and the same metrics for Prometheus.
//
// Everything is made of rows of usage, in the background, once they are in the database: no request waits for it, and what it says agrees with the
// books. No text of a request or a response and no key is known here, so none can be told.
//
//	row ──▶ Telemetry.Ended ──▶ Prometheus, always
//	                        ├─▶ metrics by OTLP ──▶ collector
//	                        └─▶ span by OTLP ─────▶    ▲
//	Envoy's own spans ──▶ Telemetry.Export ────────────┘
//
// The span of an exchange is a child of Envoy's, whose traceparent stands in the line of the log that the row was made of.
package telemetry
