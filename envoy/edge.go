// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	proxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	quicv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/quic/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Edge says what clients meet before HTTP. The zero value is plain TCP.
type Edge struct {
	// Certificate is the one of TLS, for which clients may choose HTTP/2 (ALPN). Without one the gateway speaks plain HTTP.
	Certificate Certificate
	// HTTP3 has the gateway listen on the same port of UDP, too, for HTTP/3, and tell clients so (alt-svc). It needs a certificate, and no ProxyProtocol.
	HTTP3 bool
	// ProxyProtocol wants each connection to begin with the header of the PROXY protocol, version 1 or 2, and believes the address in it. A
	// connection without one is closed.
	ProxyProtocol bool
}

// Certificate is a chain, the server's own first, and its private key, both in PEM.
type Certificate struct{ Chain, Key []byte }

func (c Certificate) empty() bool { return len(c.Chain) == 0 }

// certificateName is the name under which Envoy asks for the certificate of the gateway. It comes by SDS, so that another one takes effect on
// the next connection and breaks none.
const certificateName = "gateway"

func certificateSecret(c Certificate) *tlsv3.Secret {
	text := func(b []byte) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: string(b)}}
	}
	return &tlsv3.Secret{Name: certificateName, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: text(c.Chain), PrivateKey: text(c.Key),
	}}}
}

// transport is TLS, or nil for plain TCP.
func (e Edge) transport() (*corev3.TransportSocket, error) {
	if e.Certificate.empty() {
		return nil, nil //nolint:nilnil // Envoy has no other name for plain TCP
	}
	packed, err := anypb.New(downstreamTLS(tlsv3.TlsParameters_TLSv1_2, "h2", "http/1.1"))
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return &corev3.TransportSocket{
		Name: "envoy.transport_sockets.tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed},
	}, nil
}

func downstreamTLS(least tlsv3.TlsParameters_TlsProtocol, protocols ...string) *tlsv3.DownstreamTlsContext {
	return &tlsv3.DownstreamTlsContext{
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams:                      &tlsv3.TlsParameters{TlsMinimumProtocolVersion: least},
			AlpnProtocols:                  protocols,
			TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: certificateName, SdsConfig: ads()}},
		},
		RequireClientCertificate: wrapperspb.Bool(false),
	}
}

// quicTransport is the transport of HTTP/3, in which TLS 1.3 is.
func quicTransport() (*corev3.TransportSocket, error) {
	packed, err := anypb.New(&quicv3.QuicDownstreamTransport{DownstreamTlsContext: downstreamTLS(tlsv3.TlsParameters_TLSv1_3, "h3")})
	if err != nil {
		return nil, fmt.Errorf("quic: %w", err)
	}
	return &corev3.TransportSocket{
		Name: "envoy.transport_sockets.quic", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed},
	}, nil
}

// listenerFilters read what comes before TLS.
func (e Edge) listenerFilters() ([]*listenerv3.ListenerFilter, error) {
	if !e.ProxyProtocol {
		return nil, nil
	}
	packed, err := anypb.New(&proxyv3.ProxyProtocol{})
	if err != nil {
		return nil, fmt.Errorf("proxy protocol: %w", err)
	}
	return []*listenerv3.ListenerFilter{{
		Name: "envoy.filters.listener.proxy_protocol", ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: packed},
	}}, nil
}
