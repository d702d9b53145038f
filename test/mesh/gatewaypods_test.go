// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"istio.io/istio/pilot/pkg/config/kube/gatewaycommon"
	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/config/mesh/meshwatcher"
	"istio.io/istio/pkg/kube"
	"istio.io/istio/pkg/kube/inject"
	"istio.io/istio/pkg/revisions"
)

// takesThePodsOfAGateway runs the controller with which Istio makes the pods of a Gateway, and looks at what it has the API server keep.
func (c *cluster) takesThePodsOfAGateway(t *testing.T) {
	c.namespace(t, "istio-ingress")
	for _, name := range []string{"bootstrap.yaml", "gateway.yaml", "route.yaml"} {
		c.apply(t, readFile(t, "deploy", "istio", "gateway-api", name))
	}
	c.runGatewayController(t)
	var pod object
	c.eventually("Istio made the pods", func() error {
		out, err := c.kubectl("", "get", "--namespace", "istio-ingress", "deployment", "llm-istio", "-o", "json")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		pod = objects(t, out)[0]
		return nil
	})
	spec := pod.Spec.Template.Spec
	if len(spec.Containers) != 1 || len(spec.InitContainers) != 1 {
		t.Fatalf("got %+v, want istio-proxy and the processor", spec)
	}
	processor, proxy := spec.InitContainers[0], spec.Containers[0]
	if processor.RestartPolicy != "Always" || processor.Args[0] != "serve" {
		t.Errorf("got %+v, want the processor as a native sidecar", processor)
	}
	volumes := map[string]string{}
	for _, v := range spec.Volumes {
		volumes[v.Name] = v.ConfigMap.Name
	}
	var override string
	for _, e := range proxy.Env {
		if e.Name == "ISTIO_BOOTSTRAP_OVERRIDE" {
			override = e.Value
		}
	}
	var read bool
	for _, m := range proxy.VolumeMounts {
		read = read || override == m.MountPath+"/custom_bootstrap.json" && volumes[m.Name] == "weir-bootstrap"
	}
	if !read {
		t.Errorf("istio-proxy does not read the ConfigMap weir-bootstrap as its override: %q, %+v", override, proxy.VolumeMounts)
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

// injection is what istiod's chart tells it of the pods that it makes.
func injection(t *testing.T) inject.WebhookConfig {
	t.Helper()
	values, err := inject.NewValuesConfig("global:\n  hub: docker.internal/istio\n  tag: 1.31.0\n")
	if err != nil {
		t.Fatal(err)
	}
	raw := inject.RawTemplates{}
	for _, name := range []string{"kube-gateway", "waypoint"} {
		b, err := os.ReadFile(filepath.Join(moduleDir(t, ".", "istio.io/istio"), "manifests", "charts", "istio-control", "istio-discovery", "files", name+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		raw[name] = string(b)
	}
	templates, err := inject.ParseTemplates(raw)
	if err != nil {
		t.Fatal(err)
	}
	return inject.WebhookConfig{Templates: templates, Values: values, MeshConfig: mesh.DefaultMeshConfig()}
}
