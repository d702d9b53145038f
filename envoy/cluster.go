// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	commondnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/common/dns/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	credentialv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/credential_injector/v3"
	mutationfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	codecv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/upstream_codec/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	genericv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/injected_credentials/generic/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

//go:embed lua/upstream.lua
var upstreamLua string

// Names of the clusters that are not channels.
const (
	processorCluster = "weir-processor" // the processor; in the bootstrap
	deniedCluster    = "weir-denied"    // empty: where a request ends that the processor did not admit
)

// Upstream connections that nobody uses are closed before the provider's side closes them, lest a request meet a connection
// that is just going away. Providers behind a TLS load balancer keep theirs for a minute or more; inference servers on the local
// network are often uvicorn, which closes after 5 s (https://www.uvicorn.org/settings/, --timeout-keep-alive).
const (
	idleTLS   = 55 * time.Second
	idlePlain = 4 * time.Second
)

// unlimited stands in circuit breakers for "the machine is the limit": Envoy's default of 1024 connections and 3 concurrent
// retries per cluster would refuse what the provider would have taken.
const unlimited = 1 << 20

func breakers() *clusterv3.CircuitBreakers {
	n := wrapperspb.UInt32(unlimited)
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections: n, MaxPendingRequests: n, MaxRequests: n, MaxRetries: n,
	}}}
}

// cluster makes the cluster of one channel. rewrites says whether any channel's attempts change the path or the body.
func cluster(g Gateway, c Channel, rewrites bool) (*clusterv3.Cluster, error) {
	o, err := parseOrigin(c.BaseURL)
	if err != nil {
		return nil, err
	}
	options, err := protocolOptions(g, c, o, rewrites)
	if err != nil {
		return nil, err
	}
	name := ClusterName(c.ID)
	out := &clusterv3.Cluster{
		Name:                          name,
		ConnectTimeout:                durationpb.New(g.Connect),
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(1 << 20),
		CircuitBreakers:               breakers(),
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options,
		},
		LoadAssignment: assignment(name, &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: o.host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(o.port)},
		}}}, o.authority()),
	}
	if err := discover(out, o); err != nil {
		return nil, err
	}
	if o.tls {
		out.TransportSocket, err = upstreamTLS(g, o)
	}
	return out, err
}

// discover says how the provider's name becomes addresses.
func discover(c *clusterv3.Cluster, o origin) error {
	if o.isAddress() {
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
		return nil
	}
	// All addresses are one endpoint: a provider's name stands for a fleet, and a changed answer must not drain connections
	// that work.
	return byName(c, true)
}

// byName has a cluster's addresses looked up by DNS, as one endpoint or as many.
func byName(c *clusterv3.Cluster, one bool) error {
	dns, err := anypb.New(&dnsv3.DnsCluster{
		RespectDnsTtl:                true,
		AllAddressesInSingleEndpoint: one,
		DnsLookupFamily:              commondnsv3.DnsLookupFamily_V4_PREFERRED,
	})
	c.ClusterDiscoveryType = &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{
		Name: "envoy.cluster.dns", TypedConfig: dns,
	}}
	return err
}

func assignment(name string, a *corev3.Address, hostname string) *endpointv3.ClusterLoadAssignment {
	return &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
		LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
			Endpoint: &endpointv3.Endpoint{Address: a, Hostname: hostname},
		}}},
	}}}
}

// upstreamTLS verifies the provider's certificate against its name, by the trusted bundle.
func upstreamTLS(g Gateway, o origin) (*corev3.TransportSocket, error) {
	tls, err := anypb.New(&tlsv3.UpstreamTlsContext{
		Sni:                  o.host,
		AutoSniSanValidation: true,
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams: &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2},
			ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
				TrustedCa: &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: g.CAFile}},
			}},
		},
	})
	return &corev3.TransportSocket{
		Name:       "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: tls},
	}, err
}

// protocolOptions says how to speak to the provider, and which filters each attempt passes on its way there.
func protocolOptions(g Gateway, c Channel, o origin, rewrites bool) (*anypb.Any, error) {
	filters, err := upstreamFilters(g, c, o, rewrites)
	if err != nil {
		return nil, err
	}
	options := &httpv3.HttpProtocolOptions{
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{IdleTimeout: durationpb.New(idlePlain)},
		HttpFilters:               filters,
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{},
			},
		},
	}
	if o.tls { // HTTP/2 where the provider chooses it in the handshake
		options.CommonHttpProtocolOptions.IdleTimeout = durationpb.New(idleTLS)
		options.UpstreamProtocolOptions = &httpv3.HttpProtocolOptions_AutoConfig{AutoConfig: &httpv3.HttpProtocolOptions_AutoHttpConfig{
			Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
				InitialStreamWindowSize:     wrapperspb.UInt32(256 << 10),
				InitialConnectionWindowSize: wrapperspb.UInt32(4 << 20),
			},
		}}
	}
	return anypb.New(options)
}

// upstreamFilters are what takes away the words of the attempt before, the channel's credential, and upstream.lua: where the path or a model's name
// differs, and on every other channel that could be next after one where it does.
func upstreamFilters(g Gateway, c Channel, o origin, rewrites bool) ([]*hcmv3.HttpFilter, error) {
	header, _, err := c.Dialect.credential("")
	if err != nil {
		return nil, err
	}
	source := &genericv3.Generic{
		Credential: &tlsv3.SdsSecretConfig{Name: secretName(c.ID), SdsConfig: ads()},
		Header:     header,
	}
	credential, err := anypb.New(source)
	if err != nil {
		return nil, err
	}
	list := []namedFilter{
		{"envoy.filters.http.header_mutation", between(g, c)},
		{"envoy.filters.http.credential_injector", &credentialv3.CredentialInjector{
			Overwrite:  true,
			Credential: &corev3.TypedExtensionConfig{Name: "generic", TypedConfig: credential},
		}},
	}
	if rewrites {
		lua := fmt.Sprintf("local CLUSTER, BASE = %s, %s\n%s", strconv.Quote(ClusterName(c.ID)), strconv.Quote(o.path), upstreamLua)
		list = append(list, namedFilter{"envoy.filters.http.lua", &luav3.Lua{DefaultSourceCode: inline(lua)}})
	}
	list = append(list, namedFilter{"envoy.filters.http.upstream_codec", &codecv3.UpstreamCodec{}})
	return httpFilters(list)
}

// rewrites says whether the attempts of one of these channels change the path or the body of a request. Those of all others then have to set back what
// they find changed, see upstream.lua.
func rewrites(channels []Channel) bool {
	return slices.ContainsFunc(channels, func(c Channel) bool {
		o, err := parseOrigin(c.BaseURL)
		return err == nil && (o.path != "/v1" || c.Renames)
	})
}

// between takes from a request what only the attempt before was to say: Envoy has one set of request headers for all of them, and a credential that one
// channel's filter wrote there would go to the next channel's provider. The channel's own header is written over.
func between(g Gateway, c Channel) *mutationfilterv3.HeaderMutation {
	own, _, _ := c.Dialect.credential("") // checked with the credential's filter
	var list []*mutationv3.HeaderMutation
	for _, name := range credentialHeaders {
		if name != own {
			list = append(list, &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Remove{Remove: name}})
		}
	}
	if g.Lacks.route() == RouteByNext { // what was there is removed with the route's headers at the first attempt, and here at all others
		list = append(list,
			&mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Remove{Remove: ChannelHeader}},
			&mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Append{
				Append: header(ChannelHeader, "%DYNAMIC_METADATA(weir:next:"+ClusterName(c.ID)+")%"),
			}})
	}
	return &mutationfilterv3.HeaderMutation{Mutations: &mutationfilterv3.Mutations{RequestMutations: list}}
}

func inline(s string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: s}}
}

func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}

// namedFilter is an HTTP filter before it is packed.
type namedFilter struct {
	name   string
	config proto.Message
}

func httpFilters(list []namedFilter) ([]*hcmv3.HttpFilter, error) {
	var out []*hcmv3.HttpFilter
	for _, f := range list {
		packed, err := anypb.New(f.config)
		if err != nil {
			return nil, fmt.Errorf("filter %s: %w", f.name, err)
		}
		out = append(out, &hcmv3.HttpFilter{Name: f.name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed}})
	}
	return out, nil
}

// denied is the cluster that every route names and nothing is in.
func denied() *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 deniedCluster,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(time.Second),
		LoadAssignment:       &endpointv3.ClusterLoadAssignment{ClusterName: deniedCluster},
	}
}
