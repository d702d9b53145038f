// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/weir-proxy/weir/envoy"
)

// EnvoyGatewayOptions say what is made, and for which Gateway.
type EnvoyGatewayOptions struct {
	Gateway  envoy.Gateway
	Channels []envoy.Channel

	Name, Namespace string // the namespace is that of the Gateway and of the HTTPRoute
	Target          string // the Gateway
	Listener        string // one of its listeners, by name
	Route           string // the HTTPRoute, whose first rule, with the one match /v1 and no backend, becomes Weir's
	Host            string // the HTTPRoute's hostname
}

func (o EnvoyGatewayOptions) check() error {
	if o.Name == "" || o.Namespace == "" || o.Target == "" || o.Listener == "" || o.Route == "" || o.Host == "" {
		return errors.New("a name, a namespace, a Gateway, a listener, a route and its host are needed")
	}
	return nil
}

// listener is what Envoy Gateway calls a listener, and the configuration of its routes.
func (o EnvoyGatewayOptions) listener() string {
	return o.Namespace + "/" + o.Target + "/" + o.Listener
}

// route is what Envoy Gateway calls the route of the first match of the first rule.
func (o EnvoyGatewayOptions) route() string {
	return fmt.Sprintf("httproute/%s/%s/rule/0/match/0/%s", o.Namespace, o.Route, strings.NewReplacer(".", "_", "*", "wildcard").Replace(o.Host))
}

// Resources that are patched.
const (
	listenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"
	routesType   = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	clusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
)

// EnvoyGatewayFilters makes the EnvoyPatchPolicy with all that does not depend on channels. The route does where Envoys lack [envoy.Lacks].PriorityGroups: it is
// made with the channels then, and answers by itself until they are there.
func EnvoyGatewayFilters(o EnvoyGatewayOptions) ([]byte, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	p, err := cut(o.Gateway, nil, o.route())
	if err != nil {
		return nil, err
	}
	patches, err := o.listenerPatches(p)
	if err != nil {
		return nil, err
	}
	if !o.Gateway.Lacks.PriorityGroups {
		route, err := o.routePatch(p)
		if err != nil {
			return nil, err
		}
		patches = append(patches, route)
	}
	denied, err := o.clusterPatch(p.denied)
	if err != nil {
		return nil, err
	}
	return document(made, []object{o.policy(o.Name, append(patches, denied))})
}

// EnvoyGatewayChannels makes the EnvoyPatchPolicy with a cluster for each channel, and the route where that knows them by name.
func EnvoyGatewayChannels(o EnvoyGatewayOptions) ([]byte, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	p, err := cut(o.Gateway, o.Channels, o.route())
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
		patch, err := o.clusterPatch(c)
		if err != nil {
			return nil, err
		}
		patches = append(patches, patch)
	}
	return document(madeOfChannels, []object{o.policy(o.Name+"-channels", patches)})
}

// EnvoyGatewayBootstrap makes the part of an EnvoyProxy that leads Envoy to the processor.
func EnvoyGatewayBootstrap(o EnvoyGatewayOptions, b envoy.BootstrapOptions) ([]byte, error) {
	way, err := processorWay(b)
	if err != nil {
		return nil, err
	}
	return document(made+"To be merged into the EnvoyProxy of the Gateway.\n", []object{{
		"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyProxy", "metadata": o.metadata(o.Name),
		"spec": object{"bootstrap": object{"type": "JSONPatch", "jsonPatches": []any{
			object{"op": "add", "path": "/static_resources/clusters/-", "value": way},
		}}},
	}})
}

func (o EnvoyGatewayOptions) metadata(name string) object {
	return object{"name": name, "namespace": o.Namespace, "labels": object{"app.kubernetes.io/part-of": "weir"}}
}

func (o EnvoyGatewayOptions) policy(name string, patches []any) object {
	return object{
		"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyPatchPolicy", "metadata": o.metadata(name),
		"spec": object{
			"type": "JSONPatch", "jsonPatches": patches,
			"targetRef": object{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": o.Target},
		},
	}
}

// add adds to the listener.
func (o EnvoyGatewayOptions) add(in, path string, value any) object {
	return object{"type": listenerType, "name": o.listener(), "operation": object{"op": "add", "jsonPath": in, "path": path, "value": value}}
}

// inManagers finds the connection managers of a listener, in its filter chains and in the default one.
const inManagers = "$..filters[?(@.name=='" + managerFilter + "')].typed_config"

func (o EnvoyGatewayOptions) listenerPatches(p parts) ([]any, error) {
	var patches []any
	for i, f := range p.filters {
		value, err := plain(f)
		if err != nil {
			return nil, err
		}
		patches = append(patches, o.add(inManagers, fmt.Sprintf("/http_filters/%d", i), value))
	}
	router, err := plain(p.router)
	if err != nil {
		return nil, err
	}
	patches = append(patches, o.add(
		"$..http_filters[?(@.name=='"+routerFilter+"')].typed_config", "/upstream_log", router["upstream_log"]))
	manager, err := plain(p.manager)
	if err != nil {
		return nil, err
	}
	for _, log := range manager["access_log"].([]any) { // plain makes a list of a list
		patches = append(patches, o.add(inManagers, "/access_log/-", log))
	}
	for _, member := range []string{"access_log_options", "local_reply_config"} {
		patches = append(patches, o.add(inManagers, "/"+member, manager[member]))
	}
	return patches, nil
}

// routePatch puts Weir's route in the place of the one that answers by itself, since it has no backend. It is one operation: Envoy Gateway checks what
// each leaves behind, and a route without an action, or with two, is none.
func (o EnvoyGatewayOptions) routePatch(p parts) (object, error) {
	value, err := plain(p.route)
	if err != nil {
		return nil, err
	}
	if err := opaqueSpecifier(value); err != nil {
		return nil, err
	}
	value["match"] = object{"path_separated_prefix": "/v1"}
	return object{"type": routesType, "name": o.listener(), "operation": object{
		"op": "replace", "jsonPath": fmt.Sprintf("$..routes[?(@.name=='%s')]", o.route()), "value": value,
	}}, nil
}

func (o EnvoyGatewayOptions) clusterPatch(c interface {
	proto.Message
	GetName() string
},
) (object, error) {
	value, err := plain(c)
	return object{"type": clusterType, "name": c.GetName(), "operation": object{"op": "add", "path": "", "value": value}}, err
}
