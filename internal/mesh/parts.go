// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	mutationfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weir-proxy/weir/envoy"
)

// Names of the filters. They are Weir's own, so that another ext_proc or Lua filter of the mesh, such as that of Istio's inference extension, is not
// enabled, disabled or changed along with them.
const (
	HygieneFilter = "envoy.filters.http.header_mutation.weir"
	ProcFilter    = "envoy.filters.http.ext_proc.weir"
	TapFilter     = "envoy.filters.http.lua.weir"
)

const routerFilter = "envoy.filters.http.router"

// parts is Weir's configuration of Envoy, taken apart.
type parts struct {
	filters  []*hcmv3.HttpFilter          // before the router, in this order, disabled
	route    *routev3.Route               // without a match
	manager  *hcmv3.HttpConnectionManager // what is merged into a connection manager
	router   *routerv3.Router             // what is merged into the router: the log of attempts
	denied   *clusterv3.Cluster           // where a request ends that nobody admitted
	channels []*clusterv3.Cluster
}

// cut takes the resources for Weir's own Envoy apart. routeName is how the mesh calls the route.
func cut(g envoy.Gateway, channels []envoy.Channel, routeName string) (parts, error) {
	var p parts
	set, err := envoy.Resources(g, channels)
	if err != nil {
		return p, err
	}
	for _, r := range set[resource.ClusterType] {
		c := r.(*clusterv3.Cluster)
		if c.GetLoadAssignment().GetEndpoints() == nil {
			p.denied = c
			continue
		}
		if err := credentialBySDS(c); err != nil {
			return p, fmt.Errorf("cluster %s: %w", c.GetName(), err)
		}
		p.channels = append(p.channels, c)
	}
	manager, err := managerOf(set[resource.ListenerType][0].(*listenerv3.Listener))
	if err != nil {
		return p, err
	}
	if err := p.takeFilters(manager); err != nil {
		return p, err
	}
	if p.route, err = routeOf(manager.GetRouteConfig(), routeName); err != nil {
		return p, err
	}
	if err := p.enable(); err != nil {
		return p, err
	}
	replies, err := onRoute(manager.GetLocalReplyConfig(), routeName)
	if err != nil {
		return p, err
	}
	p.manager = &hcmv3.HttpConnectionManager{
		AccessLog: manager.GetAccessLog(), AccessLogOptions: manager.GetAccessLogOptions(), LocalReplyConfig: replies,
	}
	return p, nil
}

func managerOf(l *listenerv3.Listener) (*hcmv3.HttpConnectionManager, error) {
	var m hcmv3.HttpConnectionManager
	if err := l.GetFilterChains()[0].GetFilters()[0].GetTypedConfig().UnmarshalTo(&m); err != nil {
		return nil, fmt.Errorf("connection manager: %w", err)
	}
	return &m, nil
}

// takeFilters takes the filters over under names of their own, behind one that does what the early mutation of headers does.
func (p *parts) takeFilters(m *hcmv3.HttpConnectionManager) error {
	hygiene, err := hygieneFilter(m)
	if err != nil {
		return err
	}
	p.filters = []*hcmv3.HttpFilter{hygiene}
	names := map[string]string{"envoy.filters.http.ext_proc": ProcFilter, "envoy.filters.http.lua": TapFilter}
	for _, f := range m.GetHttpFilters() { // ext_proc, the tap, the router
		if f.GetName() == routerFilter {
			p.router = &routerv3.Router{}
			if err := f.GetTypedConfig().UnmarshalTo(p.router); err != nil {
				return fmt.Errorf("router: %w", err)
			}
			continue
		}
		name, ok := names[f.GetName()]
		if !ok {
			return fmt.Errorf("filter %s has no place in a mesh", f.GetName())
		}
		f := proto.Clone(f).(*hcmv3.HttpFilter)
		f.Name, f.Disabled = name, true
		p.filters = append(p.filters, f)
	}
	if len(p.filters) != 3 || p.router == nil {
		return fmt.Errorf("%d filters, and a router: %t", len(p.filters), p.router != nil)
	}
	return p.boundAttempts()
}

// boundAttempts lets only attempts of channels through: the router has the traffic of the whole workload.
func (p *parts) boundAttempts() error {
	channel, err := celFilter(fmt.Sprintf("xds.cluster_name.startsWith(%q)", channelPrefix))
	if err != nil {
		return err
	}
	p.router = &routerv3.Router{UpstreamLog: p.router.GetUpstreamLog()}
	for _, l := range p.router.UpstreamLog {
		l.Filter = &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{AndFilter: &accesslogv3.AndFilter{
			Filters: []*accesslogv3.AccessLogFilter{l.GetFilter(), channel},
		}}}
	}
	return nil
}

// hygieneFilter removes what a client may not say. x-request-id stays: it is the mesh's, and the route takes it off before a provider sees it.
func hygieneFilter(m *hcmv3.HttpConnectionManager) (*hcmv3.HttpFilter, error) {
	var early earlyv3.HeaderMutation
	if err := m.GetEarlyHeaderMutationExtensions()[0].GetTypedConfig().UnmarshalTo(&early); err != nil {
		return nil, fmt.Errorf("early header mutation: %w", err)
	}
	list := slices.DeleteFunc(early.GetMutations(), func(h *mutationv3.HeaderMutation) bool { return h.GetRemove() == "x-request-id" })
	packed, err := anypb.New(&mutationfilterv3.HeaderMutation{Mutations: &mutationfilterv3.Mutations{RequestMutations: list}})
	if err != nil {
		return nil, err
	}
	return &hcmv3.HttpFilter{
		Name: HygieneFilter, Disabled: true, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed},
	}, nil
}

// routeOf puts what is said of the whole configuration and of the virtual host on the one route, since those are the mesh's.
func routeOf(c *routev3.RouteConfiguration, name string) (*routev3.Route, error) {
	host := c.GetVirtualHosts()[0]
	if len(c.GetVirtualHosts()) != 1 || len(host.GetRoutes()) != 1 {
		return nil, errors.New("more than one route")
	}
	r := proto.Clone(host.GetRoutes()[0]).(*routev3.Route)
	r.Match, r.Name = nil, name
	r.RequestBodyBufferLimit = cmp.Or(r.RequestBodyBufferLimit, host.GetRequestBodyBufferLimit())
	r.RequestHeadersToAdd = append(r.RequestHeadersToAdd, c.GetRequestHeadersToAdd()...)
	r.RequestHeadersToRemove = append(r.RequestHeadersToRemove, c.GetRequestHeadersToRemove()...)
	r.ResponseHeadersToRemove = append(r.ResponseHeadersToRemove, c.GetResponseHeadersToRemove()...)
	return r, nil
}

// enable turns the filters on for the route, by giving each a configuration there: a filter that is disabled runs where it has one. What the hygiene
// removes and what the tap runs is said on the route alone, so that the filters do nothing anywhere else.
func (p *parts) enable() error {
	var hygiene mutationfilterv3.HeaderMutation
	var tap luav3.Lua
	for f, m := range map[*hcmv3.HttpFilter]proto.Message{p.filters[0]: &hygiene, p.filters[2]: &tap} {
		if err := f.GetTypedConfig().UnmarshalTo(m); err != nil {
			return fmt.Errorf("filter %s: %w", f.GetName(), err)
		}
	}
	source := tap.GetDefaultSourceCode()
	onRoute := []proto.Message{
		&mutationfilterv3.HeaderMutationPerRoute{Mutations: hygiene.GetMutations()},
		&extprocv3.ExtProcPerRoute{Override: &extprocv3.ExtProcPerRoute_Overrides{Overrides: &extprocv3.ExtProcOverrides{}}},
		&luav3.LuaPerRoute{Override: &luav3.LuaPerRoute_SourceCode{SourceCode: source}},
	}
	tap.DefaultSourceCode, hygiene.Mutations = nil, nil
	inert := []proto.Message{&hygiene, nil, &tap}
	p.route.TypedPerFilterConfig = map[string]*anypb.Any{}
	for i, f := range p.filters {
		config, err := anypb.New(onRoute[i])
		if err != nil {
			return err
		}
		p.route.TypedPerFilterConfig[f.GetName()] = config
		if inert[i] == nil {
			continue
		}
		if config, err = anypb.New(inert[i]); err != nil {
			return err
		}
		f.ConfigType = &hcmv3.HttpFilter_TypedConfig{TypedConfig: config}
	}
	return nil
}
