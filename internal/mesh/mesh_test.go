// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/goccy/go-yaml"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/weir-proxy/weir/envoy"
)

func gateway() envoy.Gateway {
	return envoy.Gateway{
		Listen: "127.0.0.1:10000", AccessLog: envoy.AccessLogGRPC, CAFile: "/etc/ssl/certs/ca-certificates.crt", MaxBodyBytes: 32 << 20,
		Timeouts: envoy.Timeouts{Connect: 5 * time.Second, FirstByte: 10 * time.Minute, Idle: 15 * time.Minute, Total: time.Hour}, LogInterval: time.Minute,
	}
}

func channels() []envoy.Channel {
	return []envoy.Channel{
		{ID: 7, Name: "a", Dialect: envoy.OpenAI, BaseURL: "https://api.openai.com/v1", Credential: "sk-very-secret"},
		{ID: 8, Name: "b", Dialect: envoy.Azure, BaseURL: "https://acme.example/openai/v1", Credential: "sk-very-secret", Renames: true},
	}
}

func istio() IstioOptions {
	return IstioOptions{
		Gateway: gateway(), Channels: channels(), Name: "weir", Namespace: "istio-ingress", Place: AtGateway, Route: "weir",
		Labels: map[string]string{"istio": "ingressgateway"},
	}
}

func waypoint() IstioOptions {
	o := istio()
	o.Namespace, o.Labels, o.Place, o.Target, o.Service = "apps", nil, AtWaypoint, "weir", "llm.apps.svc.cluster.local:8080"
	return o
}

func envoyGateway() EnvoyGatewayOptions {
	return EnvoyGatewayOptions{
		Gateway: gateway(), Channels: channels(), Name: "weir", Namespace: "llm", Target: "llm", Listener: "http", Route: "llm", Host: "llm.example.com",
	}
}

func rendered(t *testing.T, b []byte, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestNoCredentialIsRendered(t *testing.T) {
	t.Parallel()
	var all []string
	for _, f := range []func(IstioOptions) ([]byte, error){IstioFilters, IstioChannels} {
		b, err := f(istio())
		all = append(all, rendered(t, b, err))
	}
	for _, f := range []func(EnvoyGatewayOptions) ([]byte, error){EnvoyGatewayFilters, EnvoyGatewayChannels} {
		b, err := f(envoyGateway())
		all = append(all, rendered(t, b, err))
	}
	for _, text := range all {
		if strings.Contains(text, "sk-very-secret") {
			t.Errorf("a credential is in\n%s", text)
		}
	}
	if !strings.Contains(all[1], "channel-7-credential") || !strings.Contains(all[3], "channel-8-credential") {
		t.Error("the channels do not ask for their credentials")
	}
}

// kinds are what istiod reads the values of patches as.
var kinds = map[string]func() proto.Message{
	"HTTP_FILTER":    func() proto.Message { return &hcmv3.HttpFilter{} },
	"NETWORK_FILTER": func() proto.Message { return &listenerv3.Filter{} },
	"HTTP_ROUTE":     func() proto.Message { return &routev3.Route{} },
	"CLUSTER":        func() proto.Message { return &clusterv3.Cluster{} },
}

// envoyFilter is what the tests look at.
type envoyFilter struct {
	Spec struct {
		ConfigPatches []struct {
			ApplyTo string         `yaml:"applyTo"`
			Match   map[string]any `yaml:"match"`
			Patch   struct {
				Operation string         `yaml:"operation"`
				Value     map[string]any `yaml:"value"`
			} `yaml:"patch"`
		} `yaml:"configPatches"`
	} `yaml:"spec"`
}

// patches reads the patches of an EnvoyFilter back, strictly: istiod drops a field that it does not know, and says so in a log at most.
func patches(t *testing.T, text string) map[string][]proto.Message {
	t.Helper()
	var f envoyFilter
	if err := yaml.Unmarshal([]byte(text), &f); err != nil {
		t.Fatal(err)
	}
	out := map[string][]proto.Message{}
	for _, p := range f.Spec.ConfigPatches {
		b, err := json.Marshal(p.Patch.Value)
		if err != nil {
			t.Fatal(err)
		}
		m := kinds[p.ApplyTo]()
		if err := protojson.Unmarshal(b, m); err != nil {
			t.Errorf("%s: %v", p.ApplyTo, err)
		}
		out[p.ApplyTo] = append(out[p.ApplyTo], m)
	}
	return out
}

func TestEnvoyFiltersAreReadStrictly(t *testing.T) {
	t.Parallel()
	b, err := IstioFilters(istio())
	filters := patches(t, rendered(t, b, err))
	b, err = IstioChannels(istio())
	clusters := patches(t, rendered(t, b, err))
	if n := len(filters["HTTP_FILTER"]); n != 4 {
		t.Errorf("%d patches of HTTP filters, want three of Weir's and the router", n)
	}
	if n := len(clusters["CLUSTER"]); n != 2 {
		t.Errorf("%d clusters, want one for each channel", n)
	}
}

func TestFiltersAreDisabledButOnTheRoute(t *testing.T) {
	t.Parallel()
	b, err := IstioFilters(istio())
	all := patches(t, rendered(t, b, err))
	route := all["HTTP_ROUTE"][0].(*routev3.Route)
	var names []string
	for _, m := range all["HTTP_FILTER"] {
		f := m.(*hcmv3.HttpFilter)
		if f.GetName() == routerFilter {
			continue
		}
		names = append(names, f.GetName())
		if !f.GetDisabled() {
			t.Errorf("%s is not disabled", f.GetName())
		}
		if route.GetTypedPerFilterConfig()[f.GetName()] == nil {
			t.Errorf("the route does not enable %s", f.GetName())
		}
	}
	if got, want := strings.Join(names, " "), HygieneFilter+" "+ProcFilter+" "+TapFilter; got != want {
		t.Errorf("filters %s, want %s", got, want)
	}
}

func TestRouteOfAWaypointIsAddedToItsServiceAlone(t *testing.T) {
	t.Parallel()
	b, err := IstioFilters(waypoint())
	text := rendered(t, b, err)
	route := patches(t, text)["HTTP_ROUTE"][0].(*routev3.Route)
	if got := route.GetName() + " " + route.GetMatch().GetPrefix(); got != "weir /v1/" {
		t.Errorf("got the route %s, want weir of /v1/", got)
	}
	for _, want := range []string{"operation: INSERT_FIRST", "name: inbound-vip|8080|http|llm.apps.svc.cluster.local", "name: inbound|http|8080", "targetRefs:"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestOptionsThatDoNotFitAreRefused(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(*IstioOptions){
		"labels and a target": func(o *IstioOptions) { o.Target = "llm" },
		"neither":             func(o *IstioOptions) { o.Labels = nil },
		"no route":            func(o *IstioOptions) { o.Route = "" },
		"another place":       func(o *IstioOptions) { o.Place = "ANY" },
		"no service":          func(o *IstioOptions) { *o = waypoint(); o.Service = "" },
		"a service elsewhere": func(o *IstioOptions) { o.Service = "llm.apps.svc.cluster.local" },
		"labels at waypoints": func(o *IstioOptions) { o.Place, o.Service = AtWaypoint, "llm.apps.svc.cluster.local" },
	} {
		o := istio()
		change(&o)
		if _, err := IstioFilters(o); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	o := envoyGateway()
	o.Host = ""
	if _, err := EnvoyGatewayFilters(o); err == nil {
		t.Error("no host: no error")
	}
}

// Where the route knows the channels by name it is made with them, in both meshes, and what does not depend on channels has none.
func TestTheRouteOfOlderEnvoysIsMadeWithTheChannels(t *testing.T) {
	t.Parallel()
	i, e := istio(), envoyGateway()
	i.Gateway.Lacks = envoy.Lacks{PriorityGroups: true}
	e.Gateway.Lacks = i.Gateway.Lacks
	b, err := IstioFilters(i)
	filters := rendered(t, b, err)
	b, err = EnvoyGatewayFilters(e)
	filters += rendered(t, b, err)
	b, err = IstioChannels(i)
	channels := rendered(t, b, err)
	if n := len(patches(t, channels)["HTTP_ROUTE"]); n != 1 {
		t.Errorf("%d routes of Istio with the channels, want 1", n)
	}
	b, err = EnvoyGatewayChannels(e)
	channels += rendered(t, b, err)
	for _, unwanted := range []string{"HTTP_ROUTE", routesType, "priority_group", "cluster: channel-"} {
		if strings.Contains(filters, unwanted) {
			t.Errorf("%s is in the filters", unwanted)
		}
	}
	if n := strings.Count(filters, "x-weir-route"); n != 2 {
		t.Errorf("the processor is told of the route %d times, want once in each mesh", n)
	}
	for _, wanted := range []string{"cluster: channel-7", "cluster: channel-8", "cluster: weir-denied", "header_name: x-weir-channel", "%DYNAMIC_METADATA(weir:next:channel-8)%"} {
		if n := strings.Count(channels, wanted); n != 2 {
			t.Errorf("%s is there %d times, want once in each mesh", wanted, n)
		}
	}
	if strings.Contains(channels, "priority_group") {
		t.Error("there are priority groups")
	}
}
