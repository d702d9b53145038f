// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"istio.io/istio/pilot/pkg/config/kube/gatewaycommon"
	"istio.io/istio/pilot/pkg/features"
	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/config/mesh/meshwatcher"
	"istio.io/istio/pkg/kube"
	"istio.io/istio/pkg/kube/inject"
	"istio.io/istio/pkg/revisions"
	itest "istio.io/istio/pkg/test"

	"github.com/weir-proxy/weir/internal/repo"
)

// takesThePodsOfAGateway runs the controller with which Istio makes the pods of a Gateway, and looks at what it has the API server keep.
func (c *cluster) takesThePodsOfAGateway(t *testing.T) {
	c.namespace(t, "istio-ingress")
	for _, name := range []string{"bootstrap.yaml", "gateway.yaml", "route.yaml"} {
		c.apply(t, readFile(t, "deploy", "istio", "gateway-api", name))
	}
	c.runGatewayController(t)
	var pods object
	c.eventually("Istio made the pods", func() error {
		out, err := c.kubectl("", "get", "--namespace", "istio-ingress", "deployment", "llm-istio", "-o", "json")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		pods = objects(t, out)[0]
		return nil
	})
	hasProcessor(t, pods)
}

// hasProcessor fails the test if the processor is not a native sidecar of an istio-proxy that is none, so that it ends after it; or if istio-proxy
// does not find it.
func hasProcessor(t *testing.T, deployment object) {
	t.Helper()
	pod := deployment.Spec.Template.Spec
	var processor, proxy container
	for _, c := range pod.InitContainers {
		if c.Name == "processor" {
			processor = c
		}
	}
	for _, c := range pod.Containers {
		if c.Name == "istio-proxy" {
			proxy = c
		}
	}
	if processor.RestartPolicy != "Always" || len(processor.Args) == 0 || processor.Args[0] != "serve" {
		t.Errorf("%s: got init containers %+v, want the processor among them", deployment.Metadata.Name, pod.InitContainers)
	}
	volumes := map[string]string{}
	for _, v := range pod.Volumes {
		volumes[v.Name] = v.ConfigMap.Name
	}
	var override string
	for _, e := range proxy.Env {
		if e.Name == "ISTIO_BOOTSTRAP_OVERRIDE" {
			override = e.Value
		}
	}
	var reads, reaches bool
	for _, m := range proxy.VolumeMounts {
		reads = reads || override == m.MountPath+"/custom_bootstrap.json" && volumes[m.Name] == "weir-bootstrap"
		reaches = reaches || m.Name == "weir-run" && m.MountPath == "/run/weir"
	}
	if !reads || !reaches {
		t.Errorf("%s: istio-proxy reads the ConfigMap weir-bootstrap: %t, has the socket: %t; %q, %+v", deployment.Metadata.Name, reads, reaches, override, proxy.VolumeMounts)
	}
}

func (c *cluster) runGatewayController(t *testing.T) {
	t.Helper()
	client, err := kube.NewClient(kube.BuildClientCmd(c.kubeconfig, ""), "Kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	client = kube.EnableCrdWatcher(client)
	env := model.NewEnvironment()
	env.Watcher = meshwatcher.NewTestWatcher(mesh.DefaultMeshConfig())
	env.PushContext().InitDone.Store(true)
	tags := revisions.NewTagWatcher(client, "default", "istio-system")
	config := injection(t)
	d := gatewaycommon.NewDeploymentController(client, "Kubernetes", env, func() inject.WebhookConfig { return config }, func(func()) {}, tags, "default", "istio-system")
	stop := make(chan struct{})
	t.Cleanup(func() {
		close(stop)
		client.Shutdown()
	})
	go tags.Run(stop)
	go d.Run(stop)
	client.RunAndWait(stop)
}

// injection is what istiod's chart, with its own values, tells it of the pods that it makes and changes.
func injection(t *testing.T) inject.WebhookConfig {
	t.Helper()
	chart := filepath.Join(moduleDir(t, ".", "istio.io/istio"), "manifests", "charts", "istio-control", "istio-discovery")
	b, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var defaults struct { // where the chart has them until it is released
		Values map[string]any `yaml:"_internal_defaults_do_not_set"`
	}
	if err := yaml.Unmarshal(b, &defaults); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "values.yaml")
	if b, err = yaml.Marshal(defaults.Values); err == nil {
		err = os.WriteFile(file, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), tool(t, helm), "template", "istiod", chart, "--namespace", "istio-system",
		"--kube-version", kubernetesVersion, "--values", file, "--show-only", "templates/istiod-injector-configmap.yaml").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data := objects(t, string(out))[0].Data
	config, err := inject.UnmarshalConfig([]byte(data["config"]))
	if err != nil {
		t.Fatal(err)
	}
	values, err := inject.NewValuesConfig(data["values"])
	if err != nil {
		t.Fatal(err)
	}
	return inject.WebhookConfig{Templates: config.Templates, Values: values, MeshConfig: mesh.DefaultMeshConfig()}
}

// application is a Deployment that knows nothing of Weir.
const application = `apiVersion: apps/v1
kind: Deployment
metadata: { name: app, namespace: apps }
spec:
  selector: { matchLabels: { app: app } }
  template:
    metadata: { labels: { app: app } }
    spec:
      containers: [{ name: app, image: app:1 }]
`

// TestProcessorIsBesideTheProxyThatIstioInjects does what Istio's webhook does when a pod is made.
func TestProcessorIsBesideTheProxyThatIstioInjects(t *testing.T) {
	itest.SetForTest(t, &features.EnableNativeSidecars, features.NativeSidecarModeEnabled)
	config := injection(t)
	for place, deployment := range map[string]string{"gateway": gatewayPods(t), "sidecar": patched(t)} {
		t.Run(place, func(t *testing.T) {
			var out strings.Builder
			err := inject.IntoResourceFile(nil, config.Templates, config.Values, "default", config.MeshConfig, strings.NewReader(deployment), &out,
				func(s string) { t.Log(s) })
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range objects(t, out.String()) {
				if o.Kind == "Deployment" {
					hasProcessor(t, o)
					return
				}
			}
			t.Errorf("no Deployment in\n%s", out.String())
		})
	}
}

// gatewayPods is what Istio's own chart makes of the values that put the processor beside its gateway.
func gatewayPods(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), tool(t, helm), "template", "istio-ingressgateway", istioGatewayChart(t), "--namespace", "istio-ingress",
		"--kube-version", kubernetesVersion, "--values", filepath.Join(repo.Root(t), "deploy", "istio", "gateway-values.yaml")).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func istioGatewayChart(t *testing.T) string {
	t.Helper()
	return filepath.Join(moduleDir(t, ".", "istio.io/istio"), "manifests", "charts", "gateway")
}

// patched is the application with what puts the processor into its pods.
func patched(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "app.yaml")
	if err := os.WriteFile(file, []byte(application), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), tool(t, kubectl), "patch", "--local", "-f", file, "-o", "yaml",
		"--patch-file", filepath.Join(repo.Root(t), "deploy", "istio", "sidecar", "patch.yaml")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}
