// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"cmp"
	"fmt"
	"net"
	"strconv"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// NodeID is the name of an Envoy that is given no other. Each Envoy of a processor needs a name of its own, see [LogFile].
const NodeID = "weir"

// Members of a node's metadata.
const (
	metadataAdmin     = "admin"      // where its admin interface is, as the processor reaches it
	metadataInstance  = "instance"   // tells two Envoys of one name apart
	metadataAccessLog = "access_log" // how it tells of exchanges
	metadataTap       = "tap_module" // where its native tap is, as it sees the file system; without it, it is given the one in Lua
)

// BootstrapOptions says what an Envoy must know before it can ask.
type BootstrapOptions struct {
	Socket string // the processor's Unix socket, as Envoy sees the file system
	// Processor is host:port of the processor's TCP listener; empty means that Socket is the way. Without TLS what goes over it is not encrypted, the
	// credentials of providers among it: then it must stay on a network that is.
	Processor string
	TLS       ProcessorTLS // on the way to Processor
	AccessLog AccessLog    // how this Envoy tells of exchanges; empty means as the processor says
	Admin     string       // host:port of Envoy's admin interface; keep it on loopback, since it is not protected
	Node      string       // the Envoy's name; empty means NodeID
	// Instance tells two Envoys apart that were given one name by mistake. It should be another for each bootstrap.
	Instance string
	Limits   Limits
	// TapModule is the native tap from [WriteTap]; empty means the one in Lua.
	TapModule string
}

// Bootstrap makes an Envoy's start-up configuration, as JSON.
func Bootstrap(o BootstrapOptions) ([]byte, error) {
	host, port, err := net.SplitHostPort(o.Admin)
	if err != nil {
		return nil, fmt.Errorf("admin address: %w", err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("admin address: port %q", port)
	}
	way, err := processorWay(o)
	if err != nil {
		return nil, err
	}
	overload, err := o.Limits.overloadManager()
	if err != nil {
		return nil, err
	}
	node := cmp.Or(o.Node, NodeID)
	if err := CheckNode(node); err != nil {
		return nil, err
	}
	fields := map[string]any{metadataAdmin: o.Admin, metadataInstance: o.Instance}
	if o.AccessLog != "" {
		if err := o.AccessLog.Check(); err != nil {
			return nil, err
		}
		fields[metadataAccessLog] = string(o.AccessLog)
	}
	if o.TapModule != "" {
		fields[metadataTap] = o.TapModule
	}
	about, err := structpb.NewStruct(fields)
	if err != nil {
		return nil, err
	}
	b := &bootstrapv3.Bootstrap{
		Node: &corev3.Node{Id: node, Cluster: NodeID, Metadata: about},
		Admin: &bootstrapv3.Admin{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(n)},
		}}}},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{
			LdsConfig: ads(), CdsConfig: ads(),
			AdsConfig: &corev3.ApiConfigSource{
				ApiType:                   corev3.ApiConfigSource_DELTA_GRPC,
				TransportApiVersion:       corev3.ApiVersion_V3,
				SetNodeOnFirstMessageOnly: true,
				GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
					EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: processorCluster, RetryPolicy: askAgain()},
				}}},
			},
		},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{Clusters: []*clusterv3.Cluster{way}},
		OverloadManager: overload,
	}
	return protojson.Marshal(b)
}

// How long Envoy waits before it asks a processor for its configuration again that did not answer. By Envoy's own measure, up to 30 s, a processor that had
// been away would say for as long that it has no Envoy, and load balancers would believe it.
const (
	askAgainFirst = 100 * time.Millisecond
	askAgainMost  = time.Second
)

// askAgain is the pause between two attempts to be configured.
func askAgain() *corev3.RetryPolicy {
	return &corev3.RetryPolicy{RetryBackOff: &corev3.BackoffStrategy{
		BaseInterval: durationpb.New(askAgainFirst), MaxInterval: durationpb.New(askAgainMost),
	}}
}

// Over TCP a processor whose machine is gone does not say so. It is asked this often, and given this long to answer.
const (
	keepaliveInterval = 5 * time.Second
	keepaliveTimeout  = 3 * time.Second
)

// processorWay is the way to the processor, for decisions, configuration and lines: HTTP/2 over a Unix socket or TCP.
func processorWay(o BootstrapOptions) (*clusterv3.Cluster, error) {
	http2 := &corev3.Http2ProtocolOptions{
		InitialStreamWindowSize:     wrapperspb.UInt32(1 << 20),
		InitialConnectionWindowSize: wrapperspb.UInt32(16 << 20),
	}
	address := &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: o.Socket}}}
	way := &clusterv3.Cluster{
		Name:                 processorCluster,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(time.Second),
		CircuitBreakers:      breakers(),
	}
	if o.Processor != "" {
		host, port, err := net.SplitHostPort(o.Processor)
		if err != nil {
			return nil, fmt.Errorf("processor address: %w", err)
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("processor address: port %q", port)
		}
		address = &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(n)},
		}}}
		if net.ParseIP(host) == nil {
			if err := byName(way, false); err != nil {
				return nil, err
			}
		}
		if way.TransportSocket, err = o.TLS.transport(host); err != nil {
			return nil, fmt.Errorf("processor tls: %w", err)
		}
		http2.ConnectionKeepalive = &corev3.KeepaliveSettings{
			Interval: durationpb.New(keepaliveInterval), Timeout: durationpb.New(keepaliveTimeout),
		}
	}
	way.LoadAssignment = assignment(processorCluster, address, "")
	options, err := anypb.New(&httpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: http2},
			},
		},
	})
	way.TypedExtensionProtocolOptions = map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
	return way, err
}
