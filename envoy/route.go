// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Headers that never leave the gateway. A client's key is its own; the organisation and project in which it asks are the
// channel's, and a client that names others would have the provider refuse the channel's key; cookies and addresses concern
// nobody upstream.
var (
	requestHeadersRemoved = []string{
		"authorization", "api-key", "x-api-key", "openai-organization", "openai-project", "cookie",
		"x-envoy-internal", "x-envoy-external-address", "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip", "x-request-id",
	}
	// What a provider says of the channel's account is not the client's to know; its limits are not the client's limits.
	responseHeadersRemoved = []string{
		"set-cookie", "openai-organization", "openai-project",
		"x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests",
		"x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens",
	}
)

// retried are the answers of a channel after which the next may be tried: it is overloaded, its account is at fault, or it failed.
// Any other error is the request's own, and the same everywhere.
var retried = []uint32{401, 403, 408, 429, 500, 502, 503, 504, 529}

// altSvcAge is how long a client may remember that there is HTTP/3, see https://www.rfc-editor.org/rfc/rfc7838#section-3.1.
const altSvcAge = 24 * time.Hour

// routeConfiguration has one route: what the processor admitted goes where the processor said, everything else nowhere.
func routeConfiguration(g Gateway, channels []Channel) (*routev3.RouteConfiguration, error) {
	cluster, err := specifier(g, channels)
	if err != nil {
		return nil, err
	}
	action := &routev3.RouteAction{
		ClusterSpecifier: &routev3.RouteAction_InlineClusterSpecifierPlugin{
			InlineClusterSpecifierPlugin: cluster,
		},
		HostRewriteSpecifier: &routev3.RouteAction_AutoHostRewrite{AutoHostRewrite: wrapperspb.Bool(true)},
		Timeout:              durationpb.New(g.Total),
		IdleTimeout:          durationpb.New(g.Idle),
		RetryPolicy: g.Lacks.retries(&routev3.RetryPolicy{
			RetryOn:               "connect-failure,refused-stream,reset,retriable-status-codes",
			RetriableStatusCodes:  retried,
			NumRetries:            wrapperspb.UInt32(0), // the processor allows one for each channel that it named after the first
			RefreshClusterOnRetry: true,
			PerTryTimeout:         durationpb.New(g.FirstByte),
			RetryBackOff: &routev3.RetryPolicy_RetryBackOff{ // another channel need not be waited for
				BaseInterval: durationpb.New(minBackOff), MaxInterval: durationpb.New(minBackOff),
			},
		}),
	}
	return &routev3.RouteConfiguration{
		Name: ListenerName,
		VirtualHosts: []*routev3.VirtualHost{{
			Name:                   ListenerName,
			Domains:                []string{"*"},
			RequestBodyBufferLimit: wrapperspb.UInt64(uint64(g.MaxBodyBytes)),
			Routes: []*routev3.Route{{
				Name:   "admitted",
				Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routev3.Route_Route{Route: action},
			}},
		}},
		RequestHeadersToRemove:  removed(g),
		ResponseHeadersToRemove: responseHeadersRemoved,
		ResponseHeadersToAdd:    alternative(g),
		RequestHeadersToAdd: []*corev3.HeaderValueOption{
			header("accept-encoding", "identity"),      // the tap reads plain text
			header("content-type", "application/json"), // the processor has read it as such: so must the provider
		},
	}, nil
}

func removed(g Gateway) []string {
	list := slices.Clone(requestHeadersRemoved)
	if g.Stamped {
		list = append(list, ReceivedHeader)
	}
	if g.Lacks.PriorityGroups { // the cluster was chosen by then
		list = append(list, ChannelHeader)
	}
	return list
}

// alternative tells clients of HTTP/3, which is on the same port.
func alternative(g Gateway) []*corev3.HeaderValueOption {
	_, port, err := g.address()
	if err != nil || !g.Edge.HTTP3 { // the listener reports an address that is none
		return nil
	}
	return []*corev3.HeaderValueOption{header("alt-svc", fmt.Sprintf(`h3=":%d"; ma=%d`, port, int(altSvcAge.Seconds())))}
}

func header(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}
