// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"fmt"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	credentialv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/credential_injector/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	genericv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/injected_credentials/generic/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	processorCluster = "weir-processor" // as in the bootstrap that package envoy makes
	channelPrefix    = "channel-"       // of the names that envoy.ClusterName gives
	protocolOptions  = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
	injectorFilter   = "envoy.filters.http.credential_injector"
)

// credentialBySDS has a channel's credential asked of the processor by a stream of its own. In a mesh the ADS stream leads to somebody else.
func credentialBySDS(c *clusterv3.Cluster) error {
	var options httpv3.HttpProtocolOptions
	if err := c.GetTypedExtensionProtocolOptions()[protocolOptions].UnmarshalTo(&options); err != nil {
		return fmt.Errorf("protocol options: %w", err)
	}
	for _, f := range options.GetHttpFilters() {
		if f.GetName() != injectorFilter {
			continue
		}
		if err := askProcessor(f); err != nil {
			return err
		}
	}
	packed, err := anypb.New(&options)
	c.TypedExtensionProtocolOptions[protocolOptions] = packed
	return err
}

func askProcessor(f *hcmv3.HttpFilter) error {
	var injector credentialv3.CredentialInjector
	if err := f.GetTypedConfig().UnmarshalTo(&injector); err != nil {
		return fmt.Errorf("credential injector: %w", err)
	}
	var generic genericv3.Generic
	if err := injector.GetCredential().GetTypedConfig().UnmarshalTo(&generic); err != nil {
		return fmt.Errorf("credential: %w", err)
	}
	generic.Credential.SdsConfig = &corev3.ConfigSource{
		ResourceApiVersion:  corev3.ApiVersion_V3,
		InitialFetchTimeout: durationpb.New(0), // a channel without its credential is no channel; Envoy waits for it
		ConfigSourceSpecifier: &corev3.ConfigSource_ApiConfigSource{ApiConfigSource: &corev3.ApiConfigSource{
			ApiType:             corev3.ApiConfigSource_DELTA_GRPC,
			TransportApiVersion: corev3.ApiVersion_V3,
			GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: processorCluster},
			}}},
		}},
	}
	var err error
	if injector.Credential.TypedConfig, err = anypb.New(&generic); err != nil {
		return err
	}
	packed, err := anypb.New(&injector)
	f.ConfigType = &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed}
	return err
}

// onRoute bounds the shaping of Envoy's own replies to one route: what else the workload serves keeps its errors.
func onRoute(replies *hcmv3.LocalReplyConfig, route string) (*hcmv3.LocalReplyConfig, error) {
	out := proto.Clone(replies).(*hcmv3.LocalReplyConfig)
	for _, m := range out.GetMappers() {
		var e celv3.ExpressionFilter
		if err := m.GetFilter().GetExtensionFilter().GetTypedConfig().UnmarshalTo(&e); err != nil {
			return nil, fmt.Errorf("local reply: %w", err)
		}
		var err error
		if m.Filter, err = celFilter(fmt.Sprintf("xds.route_name == %q && (%s)", route, e.GetExpression())); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func celFilter(expression string) (*accesslogv3.AccessLogFilter, error) {
	packed, err := anypb.New(&celv3.ExpressionFilter{Expression: expression})
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{
		ExtensionFilter: &accesslogv3.ExtensionFilter{
			Name: "envoy.access_loggers.extension_filters.cel", ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{TypedConfig: packed},
		},
	}}, err
}
