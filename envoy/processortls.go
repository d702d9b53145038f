// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// ProcessorTLS is mutual TLS on the way to the processor by TCP. The files are as Envoy sees the file system. The zero value is plain TCP.
type ProcessorTLS struct {
	CA        string // PEM bundle that the processor's certificate is verified with
	Cert, Key string // PEM files of Envoy's own chain and its private key
	Name      string // a name or an address that the processor's certificate must have; empty means the host that is connected to

	// Set by [ProcessorTLS.Watch]: files that tell Envoy to look after the others. Without them it reads those once, at its start.
	watchedCert, watchedCA string
}

// names of what Envoy is told by the files of [ProcessorTLS.Watch].
const (
	ownCertificate = "weir-envoy"
	processorCA    = "weir-processor-ca"
)

// Watch writes what Envoy needs to know into a folder that is its own, and returns t as an Envoy must be told that has that folder: such an Envoy reads
// the certificates anew when they are replaced by renaming, whether the files themselves or a folder that they are links into.
func (t ProcessorTLS) Watch(dir string) (ProcessorTLS, error) {
	if t.CA == "" {
		return t, nil
	}
	file := func(path string) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: path}}
	}
	folder := func(path string) *corev3.WatchedDirectory { return &corev3.WatchedDirectory{Path: filepath.Dir(path)} }
	t.watchedCert, t.watchedCA = filepath.Join(dir, "processor-tls.json"), filepath.Join(dir, "processor-ca.json")
	return t, errors.Join(
		writeSecret(t.watchedCert, &tlsv3.Secret{Name: ownCertificate, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: file(t.Cert), PrivateKey: file(t.Key), WatchedDirectory: folder(t.Cert),
		}}}),
		writeSecret(t.watchedCA, &tlsv3.Secret{Name: processorCA, Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: file(t.CA), WatchedDirectory: folder(t.CA),
		}}}),
	)
}

// writeSecret writes a file that Envoy reads as the answer of a discovery service. It holds names of files and no secret.
func writeSecret(path string, s *tlsv3.Secret) error {
	packed, err := anypb.New(s)
	if err != nil {
		return err
	}
	b, err := protojson.Marshal(&discoveryv3.DiscoveryResponse{Resources: []*anypb.Any{packed}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return fmt.Errorf("tell Envoy of its certificates: %w", err)
	}
	return nil
}

// transport is TLS, or nil for plain TCP. host is what is connected to.
func (t ProcessorTLS) transport(host string) (*corev3.TransportSocket, error) {
	if t.CA == "" {
		return nil, nil //nolint:nilnil // Envoy has no other name for plain TCP
	}
	if t.Name != "" {
		host = t.Name
	}
	kind, sni := tlsv3.SubjectAltNameMatcher_DNS, host
	if net.ParseIP(host) != nil {
		kind, sni = tlsv3.SubjectAltNameMatcher_IP_ADDRESS, ""
	}
	named := &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{
		SanType: kind, Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: host}},
	}}}
	common := &tlsv3.CommonTlsContext{
		TlsParams:     &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3},
		AlpnProtocols: []string{"h2"},
	}
	t.credentials(common, named)
	packed, err := anypb.New(&tlsv3.UpstreamTlsContext{Sni: sni, CommonTlsContext: common})
	return &corev3.TransportSocket{
		Name: "envoy.transport_sockets.tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed},
	}, err
}

// credentials says where the certificates are.
func (t ProcessorTLS) credentials(c *tlsv3.CommonTlsContext, named *tlsv3.CertificateValidationContext) {
	if t.watchedCert == "" {
		file := func(path string) *corev3.DataSource {
			return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: path}}
		}
		c.TlsCertificates = []*tlsv3.TlsCertificate{{CertificateChain: file(t.Cert), PrivateKey: file(t.Key)}}
		named = proto.Clone(named).(*tlsv3.CertificateValidationContext)
		named.TrustedCa = file(t.CA)
		c.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: named}
		return
	}
	from := func(name, path string) *tlsv3.SdsSecretConfig {
		return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: &corev3.ConfigSource{
			ResourceApiVersion:    corev3.ApiVersion_V3,
			ConfigSourceSpecifier: &corev3.ConfigSource_PathConfigSource{PathConfigSource: &corev3.PathConfigSource{Path: path}},
		}}
	}
	c.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{from(ownCertificate, t.watchedCert)}
	c.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
		CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext: named, ValidationContextSdsSecretConfig: from(processorCA, t.watchedCA),
		},
	}
}
