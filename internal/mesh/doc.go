// SPDX-License-Identifier: Apache-2.0

// Package mesh says to the control plane of a service mesh what Weir says to its own Envoy.
//
// In a mesh an Envoy is configured by istiod or by Envoy Gateway. What Weir needs of it is cut out of the configuration that [envoy.Resources]
// makes, and written as the objects which those control planes take: [Istio] makes EnvoyFilters, [EnvoyGateway] EnvoyPatchPolicies. So there
// is one source, and a filter that changes in package envoy changes here too.
//
//	bootstrap   a static cluster to the processor: decisions, lines, and credentials (SDS) go over it
//	filters     on every listener of the workload, and disabled: only the route enables them, so other traffic is untouched
//	route       one that the mesh has already, known by its name: it gets the order of channels, retries, limits, and the filters
//	log         one line per exchange, sent to the processor; attempts of channels that failed
//	channels    a cluster each; rendered anew when channels change. With them the route, for Envoys that must know channels by name: envoy.Lacks
//
// Three things differ from Weir's own Envoy: what a client may not say is removed by a filter of the route instead of before everything, replies
// of Envoy get the shape of an OpenAI error on that route only, and credentials come by SDS instead of ADS.
package mesh
