// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"net"
	"strconv"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Names of the gateway's listeners.
const (
	ListenerName     = "weir"      // by TCP
	QuicListenerName = "weir-quic" // by UDP, where there is HTTP/3
)

// Limits that are no option: nobody has asked for others.
const (
	quicStreams     = 100              // the same on one of HTTP/3: Envoy has no more than 100
	maxStreams      = 1024             // concurrent streams on one HTTP/2 connection of a client
	headersTimeout  = 10 * time.Second // for a client to send its request's headers
	bodyTimeout     = 5 * time.Minute  // for a client to send its whole request
	clientIdle      = time.Hour        // a client's connection without a request
	decisionTimeout = 5 * time.Second  // for the processor to answer one message
	readBuffer      = 1 << 20          // bytes buffered per connection before the other side is made to wait
	minBackOff      = time.Millisecond // between attempts
)

// While no processor serves its socket, as in a restart, a request waits for one: its decision is tried again, with pauses of anything up to
// four times decisionPause. These add up to 3.5 to 4.5 s, and so end before decisionTimeout. A processor that has begun to answer is not
// asked a second time.
const (
	decisionRetries = 80
	decisionPause   = 25 * time.Millisecond
)

// ForwardedHeaders are the headers that the processor sees, of requests and of those responses that a policy watches. Each costs CPU per request,
// so there are no others, but for [Gateway].PolicyHeaders.
func ForwardedHeaders() []string {
	return []string{
		":method", ":path", ":status", "authorization", "api-key", "x-api-key",
		"content-encoding", "content-length", "content-type", "transfer-encoding", externalAddress, "x-forwarded-for",
	}
}

// ReceivedHeader is where the processor is told when a request was received, in microseconds since 1970, by the clock of Envoy's machine.
const ReceivedHeader = "x-weir-received"

// externalAddress is where Envoy writes the address of the client: the one that it saw connect, or that the first of the trusted proxies saw. It does so for every request,
// since no address is an internal one (see InternalAddressConfig below), and what a client writes there is removed before.
const externalAddress = "x-envoy-external-address"

// listeners are the one of TCP and, for HTTP/3, that of UDP.
func listeners(g Gateway, channels []Channel) ([]types.Resource, error) {
	l, err := listener(g, channels)
	if err != nil || !g.Edge.HTTP3 {
		return []types.Resource{l}, err
	}
	quic, err := quicListener(g, channels)
	return []types.Resource{l, quic}, err
}

// address takes the address that clients connect to apart.
func (g Gateway) address() (host string, port uint32, err error) {
	host, text, err := net.SplitHostPort(g.Listen)
	if err != nil {
		return "", 0, fmt.Errorf("listen address: %w", err)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("listen address: port %q", text)
	}
	return host, uint32(n), nil
}

func listener(g Gateway, channels []Channel) (*listenerv3.Listener, error) {
	manager, err := connectionManager(g, channels)
	if err != nil {
		return nil, err
	}
	transport, err := g.Edge.transport()
	if err != nil {
		return nil, err
	}
	l, err := g.listening(corev3.SocketAddress_TCP, manager, transport)
	if err != nil {
		return nil, err
	}
	l.Name = ListenerName
	l.ListenerFilters, err = g.Edge.listenerFilters()
	return l, err
}

// quicListener serves HTTP/3 as listener serves its predecessors. Both count as one in Envoy's statistics.
func quicListener(g Gateway, channels []Channel) (*listenerv3.Listener, error) {
	manager, err := connectionManager(g, channels)
	if err != nil {
		return nil, err
	}
	manager.CodecType = hcmv3.HttpConnectionManager_HTTP3
	manager.HttpProtocolOptions, manager.Http2ProtocolOptions = nil, nil
	manager.Http3ProtocolOptions = &corev3.Http3ProtocolOptions{QuicProtocolOptions: &corev3.QuicProtocolOptions{
		MaxConcurrentStreams:        wrapperspb.UInt32(quicStreams),
		InitialStreamWindowSize:     wrapperspb.UInt32(64 << 10),
		InitialConnectionWindowSize: wrapperspb.UInt32(1 << 20),
	}}
	transport, err := quicTransport()
	if err != nil {
		return nil, err
	}
	l, err := g.listening(corev3.SocketAddress_UDP, manager, transport)
	if err != nil {
		return nil, err
	}
	l.Name = QuicListenerName
	l.UdpListenerConfig = &listenerv3.UdpListenerConfig{
		QuicOptions:            &listenerv3.QuicProtocolOptions{},
		DownstreamSocketConfig: &corev3.UdpSocketConfig{PreferGro: wrapperspb.Bool(true)},
	}
	return l, nil
}

// listening is a listener without a name on the address that clients connect to, which leaves everything to one manager of connections.
func (g Gateway) listening(protocol corev3.SocketAddress_Protocol, manager *hcmv3.HttpConnectionManager, transport *corev3.TransportSocket) (*listenerv3.Listener, error) {
	host, port, err := g.address()
	if err != nil {
		return nil, err
	}
	packed, err := anypb.New(manager)
	if err != nil {
		return nil, err
	}
	return &listenerv3.Listener{
		Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Protocol: protocol, Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
		}}},
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(readBuffer),
		FilterChains: []*listenerv3.FilterChain{{
			TransportSocket: transport,
			Filters: []*listenerv3.Filter{{
				Name:       "envoy.filters.network.http_connection_manager",
				ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed},
			}},
		}},
	}, nil
}

func connectionManager(g Gateway, channels []Channel) (*hcmv3.HttpConnectionManager, error) {
	filters, err := gatewayFilters(g)
	if err != nil {
		return nil, err
	}
	replies, err := localReplyConfig()
	if err != nil {
		return nil, err
	}
	early, err := hygiene(g)
	if err != nil {
		return nil, err
	}
	logs, err := exchangeLogs(g)
	if err != nil {
		return nil, err
	}
	routes, err := routeConfiguration(g, channels)
	if err != nil {
		return nil, err
	}
	m := &hcmv3.HttpConnectionManager{
		StatPrefix:     "weir",
		CodecType:      hcmv3.HttpConnectionManager_AUTO,
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: routes},
		HttpFilters:    filters,
		HttpProtocolOptions: &corev3.Http1ProtocolOptions{
			AcceptHttp_10:         true,
			DefaultHostForHttp_10: "weir",
		},
		Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
			MaxConcurrentStreams:        wrapperspb.UInt32(maxStreams),
			InitialStreamWindowSize:     wrapperspb.UInt32(64 << 10),
			InitialConnectionWindowSize: wrapperspb.UInt32(1 << 20),
		},
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
			IdleTimeout:                  durationpb.New(clientIdle),
			HeadersWithUnderscoresAction: corev3.HttpProtocolOptions_REJECT_REQUEST,
		},
		RequestHeadersTimeout:         durationpb.New(headersTimeout),
		RequestTimeout:                durationpb.New(bodyTimeout),
		StreamIdleTimeout:             durationpb.New(g.Idle),
		UseRemoteAddress:              wrapperspb.Bool(true),
		XffNumTrustedHops:             uint32(g.TrustedHops), //nolint:gosec // a handful
		InternalAddressConfig:         nobody(),
		EarlyHeaderMutationExtensions: early,
		NormalizePath:                 wrapperspb.Bool(true),
		MergeSlashes:                  true,
		PathWithEscapedSlashesAction:  hcmv3.HttpConnectionManager_REJECT_REQUEST,
		GenerateRequestId:             wrapperspb.Bool(false),
		ServerName:                    "weir",
		LocalReplyConfig:              replies,
		AccessLog:                     logs,
		AccessLogOptions: &hcmv3.HttpConnectionManager_HcmAccessLogOptions{
			AccessLogFlushInterval: durationpb.New(g.LogInterval),
		},
	}
	return m, g.Tracing.apply(m)
}

// exchangeLogs are how Envoy tells of exchanges.
func exchangeLogs(g Gateway) ([]*accesslogv3.AccessLog, error) {
	log, err := accessLog(g, exchangeLineOf(g), ended())
	if err != nil {
		return nil, err
	}
	ends, err := endLog()
	return []*accesslogv3.AccessLog{log, ends}, err
}

// nobody is an address that no client has: nobody's headers are trusted, and every client's address is told. With no address at all Envoy takes those of private
// networks for internal ones.
func nobody() *hcmv3.HttpConnectionManager_InternalAddressConfig {
	return &hcmv3.HttpConnectionManager_InternalAddressConfig{
		CidrRanges: []*corev3.CidrRange{{AddressPrefix: "255.255.255.255", PrefixLen: wrapperspb.UInt32(32)}},
	}
}

// hygiene removes what only Weir or Envoy may say, and what concerns the client's own connection, before anything looks at a
// request.
func hygiene(g Gateway) ([]*corev3.TypedExtensionConfig, error) {
	prefixes := []string{"x-weir-", "x-envoy-"}
	if !g.ForwardFake {
		prefixes = append(prefixes, "x-fake-")
	}
	names := []string{"keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate", "te", "trailer", "x-request-id"}
	names = append(names, g.Tracing.distrusted()...)
	var list []*mutationv3.HeaderMutation
	for _, p := range prefixes {
		list = append(list, &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_RemoveOnMatch_{
			RemoveOnMatch: &mutationv3.HeaderMutation_RemoveOnMatch{
				KeyMatcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: p}, IgnoreCase: true},
			},
		}})
	}
	for _, n := range names {
		list = append(list, &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Remove{Remove: n}})
	}
	if g.Stamped {
		list = append(list, &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Append{
			Append: header(ReceivedHeader, "%START_TIME(%s%6f)%"),
		}})
	}
	packed, err := anypb.New(&earlyv3.HeaderMutation{Mutations: list})
	return []*corev3.TypedExtensionConfig{{Name: "envoy.http.early_header_mutation.header_mutation", TypedConfig: packed}}, err
}

func gatewayFilters(g Gateway) ([]*hcmv3.HttpFilter, error) {
	attempts, err := accessLog(g, attemptLine, failed())
	if err != nil {
		return nil, err
	}
	return httpFilters([]namedFilter{
		{"envoy.filters.http.ext_proc", decide(g)},
		g.tap(),
		{"envoy.filters.http.router", &routerv3.Router{
			SuppressEnvoyHeaders: true,
			UpstreamLog:          []*accesslogv3.AccessLog{attempts},
		}},
	})
}

// decide sends headers, then the whole body, to the processor and waits for its word. Responses are none of its business.
func decide(g Gateway) *extprocv3.ExternalProcessor {
	seen := append(ForwardedHeaders(), g.PolicyHeaders...)
	if g.Stamped {
		seen = append(seen, ReceivedHeader)
	}
	var patterns []*matcherv3.StringMatcher
	for _, h := range seen {
		patterns = append(patterns, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: h}})
	}
	var about []*corev3.HeaderValue
	if route := g.Lacks.route(); route != "" {
		about = []*corev3.HeaderValue{{Key: RouteKey, Value: route}}
	}
	return &extprocv3.ExternalProcessor{
		GrpcService: &corev3.GrpcService{
			InitialMetadata: about,
			TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: processorCluster}},
			RetryPolicy: &corev3.RetryPolicy{
				RetryOn:    "connect-failure,refused-stream,reset,unavailable",
				NumRetries: wrapperspb.UInt32(decisionRetries),
				RetryBackOff: &corev3.BackoffStrategy{
					BaseInterval: durationpb.New(decisionPause), MaxInterval: durationpb.New(4 * decisionPause),
				},
			},
		},
		ProcessingMode: &extprocv3.ProcessingMode{
			RequestHeaderMode:   extprocv3.ProcessingMode_SEND,
			RequestBodyMode:     extprocv3.ProcessingMode_BUFFERED,
			RequestTrailerMode:  extprocv3.ProcessingMode_SKIP,
			ResponseHeaderMode:  extprocv3.ProcessingMode_SKIP,
			ResponseBodyMode:    extprocv3.ProcessingMode_NONE,
			ResponseTrailerMode: extprocv3.ProcessingMode_SKIP,
		},
		MessageTimeout:    durationpb.New(decisionTimeout),
		AllowModeOverride: true, // for responses that a policy watches
		StatusOnError:     &typev3.HttpStatus{Code: typev3.StatusCode_ServiceUnavailable},
		ForwardRules:      &extprocv3.HeaderForwardingRules{AllowedHeaders: &matcherv3.ListStringMatcher{Patterns: patterns}},
		MutationRules:     &mutationv3.HeaderMutationRules{AllowEnvoy: wrapperspb.Bool(true)},
		MetadataOptions: &extprocv3.MetadataOptions{ReceivingNamespaces: &extprocv3.MetadataOptions_MetadataNamespaces{
			Untyped: []string{"weir", "weir.tap"},
		}},
		AllowContentLengthHeader: !g.Lacks.ContentLength,
	}
}
