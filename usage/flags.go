// SPDX-License-Identifier: Apache-2.0

package usage

import "strings"

// cause is why Envoy ended an exchange, as a response flag tells it. A greater one outweighs a smaller one.
type cause int

const (
	causeNone     cause = iota // the flag says nothing of the end
	causeUpstream              // no channel answered, or one broke off
	causeClient                // the client left, or could not be understood
	causeTimeout               // a limit on time
)

// meaning is what a response flag means for a record.
type meaning struct {
	cause       cause
	unsent      bool // Envoy gave the request to no channel, unless a channel's answer shows that it did
	unconnected bool // Envoy called a channel, but got no connection
}

// flags are the response flags of Envoy 1.40, and what they mean. One that is not here (extensions may add some) means nothing. The list is
// https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/advanced/substitution_formatter#config-access-log-format-response-flags.
var flags = map[string]meaning{
	"DC":  {cause: causeClient}, // DownstreamConnectionTermination
	"DR":  {cause: causeClient}, // DownstreamRemoteReset: an HTTP/2 or HTTP/3 client reset the stream
	"DPE": {cause: causeClient}, // DownstreamProtocolError: the client broke HTTP

	"UT":    {cause: causeTimeout}, // UpstreamRequestTimeout: of the request or of one attempt
	"SI":    {cause: causeTimeout}, // StreamIdleTimeout
	"UMSDR": {cause: causeTimeout}, // UpstreamMaxStreamDurationReached
	"DT":    {cause: causeTimeout}, // DurationTimeout: of the client's connection

	"UF":  {cause: causeUpstream, unconnected: true}, // UpstreamConnectionFailure
	"UC":  {cause: causeUpstream},                    // UpstreamConnectionTermination
	"UR":  {cause: causeUpstream},                    // UpstreamRemoteReset
	"LR":  {cause: causeUpstream},                    // LocalReset: of the stream to the channel
	"UPE": {cause: causeUpstream},                    // UpstreamProtocolError; also a chunked answer over HTTP/1 that was cut
	"URX": {cause: causeUpstream},                    // UpstreamRetryLimitExceeded

	"UH":   {cause: causeUpstream, unsent: true}, // NoHealthyUpstream
	"UO":   {cause: causeUpstream, unsent: true}, // UpstreamOverflow: a circuit breaker; also when only the retry was refused, and the channel's answer stands
	"NR":   {cause: causeUpstream, unsent: true}, // NoRouteFound
	"NC":   {cause: causeUpstream, unsent: true}, // NoClusterFound
	"DF":   {cause: causeUpstream, unsent: true}, // DnsResolutionFailed
	"DO":   {cause: causeUpstream, unsent: true}, // DropOverload
	"UDO":  {cause: causeUpstream, unsent: true}, // UnconditionalDropOverload
	"OM":   {cause: causeUpstream, unsent: true}, // OverloadManagerTerminated
	"LH":   {cause: causeUpstream, unsent: true}, // FailedLocalHealthCheck
	"FI":   {cause: causeUpstream, unsent: true}, // FaultInjected
	"RL":   {cause: causeUpstream, unsent: true}, // RateLimited
	"RLSE": {cause: causeUpstream, unsent: true}, // RateLimitServiceError
	"UAEX": {cause: causeUpstream, unsent: true}, // UnauthorizedExternalService
	"IH":   {cause: causeUpstream, unsent: true}, // InvalidEnvoyRequestHeaders
	"NFCF": {cause: causeUpstream, unsent: true}, // NoFilterConfigFound

	"DI":   {}, // DelayInjected
	"RFCF": {}, // ResponseFromCacheFilter
}

// meanings returns what a comma-separated list of response flags means together.
func meanings(list string) meaning {
	var all meaning
	for len(list) > 0 {
		var one string
		one, list, _ = strings.Cut(list, ",")
		m := flags[one]
		all.cause = max(all.cause, m.cause)
		all.unsent = all.unsent || m.unsent
		all.unconnected = all.unconnected || m.unconnected
	}
	return all
}
