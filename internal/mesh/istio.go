// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weir-proxy/weir/envoy"
)

// Place is where in an Istio mesh an Envoy stands. Its values are Istio's patch contexts.
type Place string

// The places. A waypoint of ambient mode is an experiment: Istio does not promise that EnvoyFilters work there, and makes its routes anew, without
// patches, as soon as a VirtualService or an HTTPRoute is attached to the service.
const (
	AtGateway  Place = "GATEWAY"          // an ingress or egress gateway
	AtSidecar  Place = "SIDECAR_OUTBOUND" // what a pod's own Envoy sends out
	AtWaypoint Place = "SIDECAR_INBOUND"  // what a waypoint takes in for a service
)

// IstioOptions say what is made, and for which Envoys.
type IstioOptions struct {
	Gateway  envoy.Gateway
	Channels []envoy.Channel

	Name, Namespace string
	Place           Place
	Route           string // as http[].name of the VirtualService or rules[].name of the HTTPRoute calls it
	// One of the two says which Envoys: labels of their pods, or the name of a Gateway of the Gateway API.
	Labels map[string]string
	Target string
	// At a waypoint, the service whose requests under /v1/ are Weir's: its full name, and its port unless that is 80. It has no route of the mesh
	// that could be patched; one is put before what the waypoint does with all requests.
	Service string
}

func (o IstioOptions) check() error {
	switch {
	case o.Name == "" || o.Route == "":
		return errors.New("a name and a route are needed")
	case (len(o.Labels) > 0) == (o.Target != ""):
		return errors.New("the Envoys are known either by labels or by the name of a Gateway")
	case o.Place != AtGateway && o.Place != AtSidecar && o.Place != AtWaypoint:
		return fmt.Errorf("place %q", string(o.Place))
	case (o.Place == AtWaypoint) != (o.Service != ""):
		return errors.New("a service is needed at a waypoint, and there alone")
	case o.Place == AtWaypoint && o.Target == "":
		return errors.New("a waypoint is known by its name: Istio takes no labels there")
	}
	return nil
}

// IstioFilters makes the EnvoyFilter with all that does not depend on channels. The route does where Envoys lack [envoy.Lacks].PriorityGroups: it is made with the
// channels then, and answers by itself until they are there.
func IstioFilters(o IstioOptions) ([]byte, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	p, err := cut(o.Gateway, nil, o.Route)
	if err != nil {
		return nil, err
	}
	patches, err := istioPatches(o, p)
	if err != nil {
		return nil, err
	}
	return document(made, []object{o.filter(o.Name, patches)})
}

// IstioChannels makes the EnvoyFilter with a cluster for each channel, and the route where that knows them by name.
func IstioChannels(o IstioOptions) ([]byte, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	p, err := cut(o.Gateway, o.Channels, o.Route)
	if err != nil {
		return nil, err
	}
	patches := []any{}
	if o.Gateway.Lacks.PriorityGroups { // the route knows the channels by name
		route, err := o.routePatch(p)
		if err != nil {
			return nil, err
		}
		patches = append(patches, route)
	}
	for _, c := range p.channels {
		value, err := plain(c)
		if err != nil {
			return nil, err
		}
		patches = append(patches, o.patch("CLUSTER", nil, "ADD", value))
	}
	return document(madeOfChannels, []object{o.filter(o.Name+"-channels", patches)})
}

// IstioBootstrap makes the ConfigMap that the annotation sidecar.istio.io/bootstrapOverride of a pod names: the way to the processor.
func IstioBootstrap(o IstioOptions, b envoy.BootstrapOptions) ([]byte, error) {
	way, err := processorWay(b)
	if err != nil {
		return nil, err
	}
	text, err := indented(object{"static_resources": object{"clusters": []any{way}}})
	if err != nil {
		return nil, err
	}
	return document(made, []object{{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": o.metadata(o.Name + "-bootstrap"),
		"data":     object{"custom_bootstrap.json": text},
	}})
}

const (
	made           = "Made by weir render. Do not edit: what it holds is what Weir tells its own Envoy.\n"
	madeOfChannels = "Made by weir render. Make it again when a channel is added, removed, or gets another base URL or other names of models.\n" +
		"Credentials are not in it: Envoy asks the processor for them.\n"
)

func (o IstioOptions) metadata(name string) object {
	m := object{"name": name, "labels": object{"app.kubernetes.io/part-of": "weir"}}
	if o.Namespace != "" {
		m["namespace"] = o.Namespace
	}
	return m
}

// filter makes an EnvoyFilter.
func (o IstioOptions) filter(name string, patches []any) object {
	spec := object{"configPatches": patches}
	if o.Target != "" {
		spec["targetRefs"] = []any{object{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": o.Target}}
	} else {
		labels := object{}
		for k, v := range o.Labels {
			labels[k] = v
		}
		spec["workloadSelector"] = object{"labels": labels}
	}
	return object{"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter", "metadata": o.metadata(name), "spec": spec}
}

func (o IstioOptions) patch(to string, match object, operation string, value object) object {
	m := object{"context": string(o.Place)}
	maps.Copy(m, match)
	return object{"applyTo": to, "match": m, "patch": object{"operation": operation, "value": value}}
}

const managerFilter = "envoy.filters.network.http_connection_manager"

// inManager matches the connection managers, or a filter in them.
func inManager(filter string) object {
	f := object{"name": managerFilter}
	if filter != "" {
		f["subFilter"] = object{"name": filter}
	}
	return object{"listener": object{"filterChain": object{"filter": f}}}
}

func istioPatches(o IstioOptions, p parts) ([]any, error) {
	var patches []any
	add := func(to string, match object, operation string, m proto.Message) error {
		value, err := plain(m)
		if err != nil {
			return err
		}
		patches = append(patches, o.patch(to, match, operation, value))
		return nil
	}
	for _, f := range p.filters {
		if err := add("HTTP_FILTER", inManager(routerFilter), "INSERT_BEFORE", f); err != nil {
			return nil, err
		}
	}
	router, err := packed(routerFilter, p.router)
	if err != nil {
		return nil, err
	}
	if err := add("HTTP_FILTER", inManager(routerFilter), "MERGE", router); err != nil {
		return nil, err
	}
	manager, err := packed(managerFilter, p.manager)
	if err != nil {
		return nil, err
	}
	if err := add("NETWORK_FILTER", inManager(""), "MERGE", manager); err != nil {
		return nil, err
	}
	if !o.Gateway.Lacks.PriorityGroups {
		route, err := o.routePatch(p)
		if err != nil {
			return nil, err
		}
		patches = append(patches, route)
	}
	err = add("CLUSTER", nil, "ADD", p.denied)
	return patches, err
}

// routePatch makes a route of the mesh Weir's, or at a waypoint adds one.
func (o IstioOptions) routePatch(p parts) (object, error) {
	route, err := plain(p.route)
	if err != nil {
		return nil, err
	}
	if err := opaqueSpecifier(route); err != nil {
		return nil, err
	}
	if o.Place != AtWaypoint {
		match := object{"routeConfiguration": object{"vhost": object{"route": object{"name": o.Route}}}}
		return o.patch("HTTP_ROUTE", match, "MERGE", route), nil
	}
	host, port, ok := strings.Cut(o.Service, ":")
	if !ok {
		port = "80"
	}
	route["match"] = object{"prefix": "/v1/"}
	match := object{"routeConfiguration": object{
		"name": fmt.Sprintf("inbound-vip|%s|http|%s", port, host), "vhost": object{"name": "inbound|http|" + port},
	}}
	return o.patch("HTTP_ROUTE", match, "INSERT_FIRST", route), nil
}

// packed makes a named filter; an HTTP filter and a network filter have the same two fields.
func packed(name string, m proto.Message) (*hcmv3.HttpFilter, error) {
	a, err := anypb.New(m)
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: a}}, err
}

// opaqueSpecifier writes the cluster specifier as a TypedStruct. A control plane reads what it passes on, and one that is older than its Envoy
// does not know priority_group, nor what is within a matcher; a TypedStruct it need not know.
func opaqueSpecifier(route object) error {
	extension, ok := at(route, "route", "inline_cluster_specifier_plugin", "extension")
	if !ok {
		return errors.New("the route has no cluster specifier")
	}
	value, ok := extension["typed_config"].(object)
	if !ok {
		return errors.New("the cluster specifier has no configuration")
	}
	kind := value["@type"]
	value = maps.Clone(value)
	delete(value, "@type")
	extension["typed_config"] = object{"@type": "type.googleapis.com/xds.type.v3.TypedStruct", "type_url": kind, "value": value}
	return nil
}

func at(o object, path ...string) (object, bool) {
	for _, k := range path {
		next, ok := o[k].(object)
		if !ok {
			return nil, false
		}
		o = next
	}
	return o, true
}

// processorWay is the static cluster to the processor, cut out of the bootstrap for Weir's own Envoy.
func processorWay(b envoy.BootstrapOptions) (object, error) {
	b.Admin = cmp.Or(b.Admin, "127.0.0.1:0") // not used
	whole, err := bootstrapOf(b)
	if err != nil {
		return nil, err
	}
	for _, c := range whole.GetStaticResources().GetClusters() {
		if c.GetName() == processorCluster {
			return plain(proto.Clone(c).(*clusterv3.Cluster))
		}
	}
	return nil, errors.New("the bootstrap has no way to the processor")
}
