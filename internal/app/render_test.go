// SPDX-License-Identifier: Apache-2.0

package app_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/internal/app"
	"github.com/weir-proxy/weir/internal/config"
	"github.com/weir-proxy/weir/internal/repo"
)

var update = flag.Bool("update", false, "rewrite what weir render makes in deploy")

// TestManifestsAreWhatRenderMakes holds deploy/istio to the code: a filter that changes in package envoy changes there, or this fails.
func TestManifestsAreWhatRenderMakes(t *testing.T) {
	dir := filepath.Join(repo.Root(t), "deploy", "istio")
	cfg, err := config.Load(filepath.Join(dir, "weir.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	places := map[string]app.RenderOptions{
		"ingress":     {Namespace: "istio-ingress", Place: "gateway", Labels: map[string]string{"istio": "ingressgateway"}},
		"gateway-api": {Namespace: "istio-ingress", Place: "gateway", Target: "llm"},
		"egress":      {Namespace: "istio-egress", Place: "gateway", Labels: map[string]string{"istio": "egressgateway"}},
		"sidecar":     {Namespace: "apps", Place: "sidecar", Labels: map[string]string{"weir": "sidecar"}},
		"waypoint":    {Namespace: "apps", Place: "waypoint", Target: "weir", Host: "llm.apps.svc.cluster.local"},
	}
	for folder, o := range places {
		o.Mesh, o.Name, o.Route = "istio", "weir", "weir"
		for _, part := range []string{"bootstrap", "filters"} {
			o.What = []string{part}
			compare(t, filepath.Join(dir, folder, part+".yaml"), cfg, o)
		}
	}
}

// TestEnvoyGatewayManifestsAreWhatRenderMakes does the same for deploy/envoy-gateway, where the bootstrap is a part of a larger object.
func TestEnvoyGatewayManifestsAreWhatRenderMakes(t *testing.T) {
	dir := filepath.Join(repo.Root(t), "deploy", "envoy-gateway")
	cfg, err := config.Load(filepath.Join(dir, "weir.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	o := app.RenderOptions{
		Mesh: "envoy-gateway", Name: "weir", Namespace: "llm", Target: "llm", Listener: "http", Route: "llm", Host: "llm.example.com", What: []string{"filters"},
	}
	compare(t, filepath.Join(dir, "filters.yaml"), cfg, o)
	o.What = []string{"bootstrap"}
	made, err := app.Render(cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	shipped, err := os.ReadFile(filepath.Join(dir, "proxy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(bootstrap(t, shipped), bootstrap(t, made)); diff != "" {
		t.Errorf("proxy.yaml has another bootstrap than weir render envoy-gateway bootstrap prints (-got +want):\n%s", diff)
	}
}

// A mesh's Envoys are told of mutual TLS to the processor, and to say where an exchange stands in a trace; their spans are the mesh's.
func TestWhatIsRenderedHasMutualTLSAndTraces(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://shell.of.the.operator:4317")
	cfg := config.Default().Complete()
	cfg.Envoy.Processor = "weir.internal:10005"
	o := app.RenderOptions{Mesh: "istio", Name: "weir", Route: "weir", Namespace: "apps", Place: "gateway", Labels: map[string]string{"a": "b"}, What: []string{"bootstrap", "filters"}}
	words := []string{"processor.crt", "weir.internal", "UpstreamTlsContext", "REQ(TRACEPARENT)"}
	render := func() map[string]bool {
		b, err := app.Render(cfg, o)
		if err != nil {
			t.Fatal(err)
		}
		has := map[string]bool{"OpenTelemetryConfig": strings.Contains(string(b), "OpenTelemetryConfig")}
		for _, w := range words {
			has[w] = strings.Contains(string(b), w)
		}
		return has
	}
	if diff := cmp.Diff(render(), map[string]bool{
		"processor.crt": false, "weir.internal": true, "UpstreamTlsContext": false, "REQ(TRACEPARENT)": false, "OpenTelemetryConfig": false,
	}); diff != "" {
		t.Errorf("without either (got -, want +):\n%s", diff)
	}
	cfg.Envoy.ProcessorTLS = config.ProcessorTLS{CA: "/etc/weir/ca.crt", Cert: "/etc/weir/processor.crt", Key: "/etc/weir/envoy.key"}
	cfg.Telemetry.Endpoint = "http://collector:4317"
	if diff := cmp.Diff(render(), map[string]bool{
		"processor.crt": true, "weir.internal": true, "UpstreamTlsContext": true, "REQ(TRACEPARENT)": true, "OpenTelemetryConfig": false,
	}); diff != "" {
		t.Errorf("with both (got -, want +):\n%s", diff)
	}
}

// bootstrap returns the part of an EnvoyProxy that Envoy starts with.
func bootstrap(t *testing.T, text []byte) any {
	t.Helper()
	var o struct {
		Spec struct {
			Bootstrap map[string]any `yaml:"bootstrap"`
		} `yaml:"spec"`
	}
	if err := yaml.Unmarshal(text, &o); err != nil {
		t.Fatal(err)
	}
	if o.Spec.Bootstrap == nil {
		t.Fatal("no bootstrap")
	}
	return o.Spec.Bootstrap
}

func compare(t *testing.T, path string, cfg config.Config, o app.RenderOptions) {
	t.Helper()
	got, err := app.Render(cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	repo.Golden(t, path, string(got), *update)
}
