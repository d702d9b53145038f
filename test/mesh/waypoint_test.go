// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"istio.io/istio/pilot/pkg/features"
	"istio.io/istio/pilot/pkg/model"
	pilotxds "istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config/mesh"
	itest "istio.io/istio/pkg/test"
)

const (
	waypointService = "llm.apps.svc.cluster.local"

	// What Istio writes of the waypoint once its pods are there.
	waypointStatus = "status:\n  addresses:\n    - { type: Hostname, value: weir.apps.svc.cluster.local }\n"
	waypointPods   = `apiVersion: v1
kind: Service
metadata:
  name: weir
  namespace: apps
  labels: { gateway.istio.io/managed: istio.io-mesh-controller, gateway.networking.k8s.io/gateway-name: weir }
spec:
  clusterIP: 10.96.0.9
  ports: [{ name: mesh, port: 15008, appProtocol: hbone }]
  selector: { gateway.networking.k8s.io/gateway-name: weir }
`
	// What has Istio make the routes of the service without patches.
	waypointRoute = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: llm, namespace: apps }
spec:
  hosts: [llm.apps.svc.cluster.local]
  http: [{ name: all, route: [{ destination: { host: llm.apps.svc.cluster.local } }] }]
`
)

// TestWaypointServesChat asks the connection manager that istiod makes for the service of a waypoint. The tunnel by which requests reach it in a mesh
// needs certificates and ztunnel, which are not here: a listener for plain HTTP is in its place.
func TestWaypointServesChat(t *testing.T) {
	w := newRig(t, "")
	port := freePort(t)
	w.host, w.base = "llm.apps", fmt.Sprintf("http://127.0.0.1:%d", port)
	socket := filepath.Join(w.Dir, "weir.sock")
	var b bundle
	for _, name := range []string{"bootstrap.yaml", "filters.yaml", "gateway.yaml"} {
		b.read(t, readFile(t, "deploy", "istio", "waypoint", name), socket, port)
	}
	b.read(t, w.rendered("istio", "channels", "--namespace", "apps", "--at", "waypoint", "--gateway", "weir", "--host", waypointService), socket, port)
	manager, clusters := waypoint(t, b, readFile(t, "deploy", "istio", "waypoint", "route.yaml"))
	if n := len(clusters); n != 3 {
		t.Errorf("%d clusters of Weir's, want two channels and the one for what is denied", n)
	}
	admin := freePort(t)
	runEnvoy(t, w.Rig, envoyOf(t, ""), static(t, manager, clusters, port, admin), b.bootstrap, admin)
	t.Run("chat", w.servesChat)
	t.Run("stream", w.servesStream)
	t.Run("failover", w.failsOver)
	t.Run("bad key", w.refusesABadKey)
	t.Run("client's words", w.ignoresWhatAClientMayNotSay)
	t.Run("processor away", w.admitsNothingWithoutAProcessor)
}

// TestWaypointWithARouteOfItsOwnIsNotPatched holds the documentation to what Istio does.
func TestWaypointWithARouteOfItsOwnIsNotPatched(t *testing.T) {
	var b bundle
	b.read(t, readFile(t, "deploy", "istio", "waypoint", "filters.yaml"), "", 0)
	for attached, want := range map[string]string{"": "weir", waypointRoute: "all"} {
		manager, _ := waypoint(t, b, readFile(t, "deploy", "istio", "waypoint", "route.yaml")+"---\n"+attached)
		if got := manager.GetRouteConfig().GetVirtualHosts()[0].GetRoutes()[0].GetName(); got != want {
			t.Errorf("the first route is %s, want %s", got, want)
		}
	}
}

// waypoint has istiod configure a waypoint, and returns the connection manager of the service and the clusters that are Weir's.
func waypoint(t *testing.T, b bundle, route string) (*hcmv3.HttpConnectionManager, []*clusterv3.Cluster) {
	t.Helper()
	for _, f := range []*bool{&features.EnableAmbient, &features.EnableAmbientWaypoints, &features.EnableHBONESend} {
		itest.SetForTest(t, f, true)
	}
	for _, f := range []*bool{&features.MetadataExchange, &features.ALPNFilter} {
		itest.SetForTest(t, f, false)
	}
	m := mesh.DefaultMeshConfig()
	m.EnableAutoMtls = wrapperspb.Bool(false)
	route = strings.TrimSuffix(strings.Replace(route, "      protocol: HBONE\n", "      protocol: HBONE\n"+waypointStatus, 1), "---\n")
	all := strings.Join(slices.Concat(b.istio, b.kubernetes, []string{route, waypointPods}), "\n---\n")
	d := pilotxds.NewFakeDiscoveryServer(t, pilotxds.FakeOptions{ConfigString: all, KubernetesObjectString: all, MeshConfig: m})
	proxy := d.SetupProxy(&model.Proxy{
		Type: model.Waypoint, ConfigNamespace: "apps", IPAddresses: []string{"10.99.0.5"},
		Labels: map[string]string{"gateway.networking.k8s.io/gateway-name": "weir", "gateway.istio.io/managed": "istio.io-mesh-controller"},
	})
	var clusters []*clusterv3.Cluster
	for _, c := range d.Clusters(proxy) {
		if strings.HasPrefix(c.GetName(), "channel-") || c.GetName() == "weir-denied" {
			clusters = append(clusters, c)
		}
	}
	var chains []string
	for _, l := range d.Listeners(proxy) {
		for _, chain := range l.GetFilterChains() {
			chains = append(chains, chain.GetName())
			if chain.GetName() == "inbound-vip|80|http|"+waypointService {
				return managerOf(t, chain), clusters
			}
		}
	}
	t.Fatalf("the waypoint has no chain for the service, but %v", chains)
	return nil, nil
}

// managerOf returns the connection manager of a chain, without filters that only Istio's build of Envoy has.
func managerOf(t *testing.T, chain *listenerv3.FilterChain) *hcmv3.HttpConnectionManager {
	t.Helper()
	var m hcmv3.HttpConnectionManager
	for _, f := range chain.GetFilters() {
		if f.GetTypedConfig().MessageIs(&m) {
			if err := f.GetTypedConfig().UnmarshalTo(&m); err != nil {
				t.Fatal(err)
			}
		}
	}
	m.HttpFilters = slices.DeleteFunc(m.GetHttpFilters(), func(f *hcmv3.HttpFilter) bool {
		return !strings.HasPrefix(f.GetTypedConfig().GetTypeUrl(), "type.googleapis.com/envoy.")
	})
	if m.GetRouteConfig() == nil {
		t.Fatalf("chain %s has no routes", chain.GetName())
	}
	return &m
}

// static is a bootstrap with a connection manager behind a port.
func static(t *testing.T, manager *hcmv3.HttpConnectionManager, clusters []*clusterv3.Cluster, port, admin int) []byte {
	t.Helper()
	packed, err := anypb.New(manager)
	if err != nil {
		t.Fatal(err)
	}
	asJSON := func(m proto.Message) json.RawMessage {
		b, err := protojson.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var list []json.RawMessage
	for _, c := range clusters {
		list = append(list, asJSON(c))
	}
	filter := asJSON(&listenerv3.Filter{Name: "manager", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed}})
	b, err := json.Marshal(map[string]any{
		"node":  map[string]string{"id": "waypoint", "cluster": "weir.apps"},
		"admin": map[string]any{"address": socketAddress(admin)},
		"static_resources": map[string]any{
			"clusters": list,
			"listeners": []any{map[string]any{
				"name": "in", "address": socketAddress(port), "filter_chains": []any{map[string]any{"filters": []any{filter}}},
			}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}
