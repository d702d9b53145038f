// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"errors"
	"fmt"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// ResourceSet is a whole configuration, by resource type.
type ResourceSet map[resourcev3.Type][]types.Resource

// Resources makes Envoy's whole configuration. The same input gives the same output, whatever the order of the channels. The
// error joins one error per channel that cannot be expressed; the set is valid without those, so that one channel's mistake does
// not stop the others.
func Resources(g Gateway, channels []Channel) (ResourceSet, error) {
	channels = slices.Clone(channels)
	slices.SortFunc(channels, func(a, b Channel) int { return int(a.ID - b.ID) })
	listeners, err := listeners(g, channels)
	if err != nil {
		return nil, err
	}
	clusters := []types.Resource{denied()}
	var secrets []types.Resource
	if !g.Edge.Certificate.empty() {
		secrets = append(secrets, certificateSecret(g.Edge.Certificate))
	}
	var errs []error
	rewritten := rewrites(channels)
	for _, c := range channels {
		made, err := cluster(g, c, rewritten)
		if err != nil {
			errs = append(errs, fmt.Errorf("channel %s: %w", c.Name, err))
			continue
		}
		clusters = append(clusters, made)
		secrets = append(secrets, secret(c))
	}
	return ResourceSet{
		resourcev3.ListenerType: listeners,
		resourcev3.ClusterType:  clusters,
		resourcev3.SecretType:   secrets,
	}, errors.Join(errs...)
}

// secret is a channel's credential as it stands in the header. The dialect was checked with the cluster.
func secret(c Channel) *tlsv3.Secret {
	_, value, _ := c.Dialect.credential(c.Credential)
	return &tlsv3.Secret{Name: secretName(c.ID), Type: &tlsv3.Secret_GenericSecret{GenericSecret: &tlsv3.GenericSecret{
		Secret: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: value}},
	}}}
}
