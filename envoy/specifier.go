// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	xdsv3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	clustermatcherv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/router/cluster_specifiers/matcher/v3"
	groupv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/router/cluster_specifiers/priority_group/v3"
	typematcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// specifier says which cluster an attempt goes to: the one that the processor named, or the empty one.
func specifier(g Gateway, channels []Channel) (*routev3.ClusterSpecifierPlugin, error) {
	if g.Lacks.PriorityGroups {
		return byHeader(channels)
	}
	return plugin("envoy.router.cluster_specifier_plugin.priority_group", &groupv3.PriorityGroupClusterSpecifier{
		OverrideMetadataNamespace: "weir",
		PriorityGroups: []*groupv3.PriorityGroup{{
			Name:     "denied",
			Clusters: []*groupv3.ClusterWeight{{ClusterName: deniedCluster, Weight: wrapperspb.UInt32(1)}},
		}},
	})
}

func plugin(name string, config proto.Message) (*routev3.ClusterSpecifierPlugin, error) {
	packed, err := anypb.New(config)
	return &routev3.ClusterSpecifierPlugin{Extension: &corev3.TypedExtensionConfig{Name: name, TypedConfig: packed}}, err
}

// byHeader takes the cluster from a header that the processor sets, and that is gone before anything is sent; where retries may go elsewhere, the channel's own
// filters set it anew for the next attempt, see between. It leads to the channels that are there, and to nothing else of the mesh whatever the header says. Of the
// inputs that a matcher has, those of metadata and of CEL end every Envoy of today at its first request here: only headers and filter state are safe.
func byHeader(channels []Channel) (*routev3.ClusterSpecifierPlugin, error) {
	input, err := anypb.New(&typematcherv3.HttpRequestHeaderMatchInput{HeaderName: ChannelHeader})
	if err != nil {
		return nil, err
	}
	denied, err := toCluster(deniedCluster)
	if err != nil {
		return nil, err
	}
	matcher := &xdsmatcherv3.Matcher{OnNoMatch: denied}
	known := map[string]*xdsmatcherv3.Matcher_OnMatch{}
	for _, c := range channels {
		name := ClusterName(c.ID)
		if known[name], err = toCluster(name); err != nil {
			return nil, err
		}
	}
	if len(known) > 0 { // Envoy takes no empty map
		matcher.MatcherType = &xdsmatcherv3.Matcher_MatcherTree_{MatcherTree: &xdsmatcherv3.Matcher_MatcherTree{
			Input: &xdsv3.TypedExtensionConfig{Name: "envoy.matching.inputs.request_headers", TypedConfig: input},
			TreeType: &xdsmatcherv3.Matcher_MatcherTree_ExactMatchMap{
				ExactMatchMap: &xdsmatcherv3.Matcher_MatcherTree_MatchMap{Map: known},
			},
		}}
	}
	return plugin("envoy.router.cluster_specifier_plugin.matcher", &clustermatcherv3.MatcherClusterSpecifier{ClusterMatcher: matcher})
}

func toCluster(name string) (*xdsmatcherv3.Matcher_OnMatch, error) {
	packed, err := anypb.New(&clustermatcherv3.ClusterAction{Cluster: name})
	return &xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Action{
		Action: &xdsv3.TypedExtensionConfig{Name: "cluster", TypedConfig: packed},
	}}, err
}
