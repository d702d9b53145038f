// SPDX-License-Identifier: Apache-2.0

package app_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

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
	}
	for folder, o := range places {
		o.Mesh, o.Name, o.Route = "istio", "weir", "weir"
		for _, part := range []string{"bootstrap", "filters"} {
			o.What = []string{part}
			compare(t, filepath.Join(dir, folder, part+".yaml"), cfg, o)
		}
	}
}

func compare(t *testing.T, path string, cfg config.Config, o app.RenderOptions) {
	t.Helper()
	got, err := app.Render(cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(got), string(want)); diff != "" {
		t.Errorf("%s: -update rewrites it (-got +want):\n%s", path, diff)
	}
}
