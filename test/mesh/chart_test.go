// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/internal/config"
	"github.com/weir-proxy/weir/internal/repo"
)

// object is what every object of Kubernetes has, and what the tests look at.
type object struct {
	Kind     string `yaml:"kind"`
	Metadata struct {
		Name string `yaml:"name"`
	} `yaml:"metadata"`
	Data map[string]string `yaml:"data"`
	Spec struct {
		Template struct {
			Spec struct {
				InitContainers []container `yaml:"initContainers"`
				Containers     []container `yaml:"containers"`
				Volumes        []struct {
					Name      string `yaml:"name"`
					ConfigMap struct {
						Name string `yaml:"name"`
					} `yaml:"configMap"`
				} `yaml:"volumes"`
			} `yaml:"spec"`
		} `yaml:"template"`
	} `yaml:"spec"`
}

type container struct {
	Name            string   `yaml:"name"`
	RestartPolicy   string   `yaml:"restartPolicy"`
	Args            []string `yaml:"args"`
	SecurityContext struct {
		ReadOnly  bool `yaml:"readOnlyRootFilesystem"`
		Privilege bool `yaml:"allowPrivilegeEscalation"`
	} `yaml:"securityContext"`
	Env []struct {
		Name  string `yaml:"name"`
		Value string `yaml:"value"`
	} `yaml:"env"`
	VolumeMounts []struct {
		Name      string `yaml:"name"`
		MountPath string `yaml:"mountPath"`
	} `yaml:"volumeMounts"`
}

func chart(t *testing.T) string { return filepath.Join(repo.Root(t), "deploy", "helm", "weir") }

// template runs helm template and returns what it prints, and what it complains of.
func template(t *testing.T, args ...string) (out, complaint string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), tool(t, helm),
		append([]string{"template", "prod", chart(t), "--namespace", "llm", "--kube-version", kubernetesVersion}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}

// valueSets are the files of values in the chart's ci, and none.
func valueSets(t *testing.T) map[string][]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(chart(t), "ci", "*.yaml"))
	if err != nil || len(files) < 3 {
		t.Fatalf("value sets %v, %v", files, err)
	}
	sets := map[string][]string{"defaults": nil}
	for _, f := range files {
		sets[strings.TrimSuffix(filepath.Base(f), ".yaml")] = []string{"--values", f}
	}
	return sets
}

func objects(t *testing.T, text string) []object {
	t.Helper()
	var all []object
	for _, document := range strings.Split("\n"+text, "\n---\n") {
		var o object
		if err := yaml.Unmarshal([]byte(document), &o); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		if o.Kind != "" {
			all = append(all, o)
		}
	}
	return all
}

// takesTheChart applies what the chart makes of each set of values, and looks at what no API server does.
func (c *cluster) takesTheChart(t *testing.T) {
	for name, args := range valueSets(t) {
		t.Run(name, func(t *testing.T) {
			out, complaint, err := template(t, args...)
			if err != nil {
				t.Fatalf("%v\n%s", err, complaint)
			}
			namespace := "chart-" + name
			c.namespace(t, namespace)
			c.apply(t, out, "--namespace", namespace)
			for _, o := range objects(t, out) {
				switch o.Kind {
				case "ConfigMap":
					if text, ok := o.Data["weir.yaml"]; ok {
						weirTakes(t, text)
					}
				case "StatefulSet":
					processorOutlivesEnvoy(t, o)
				}
			}
		})
	}
}

// weirTakes fails the test if Weir would not start with a configuration.
func weirTakes(t *testing.T, text string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "weir.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(file); err != nil {
		t.Errorf("%v in\n%s", err, text)
	}
}

// processorOutlivesEnvoy holds the pod to the order that the books rest on, and to what the restricted pod security standard asks for.
func processorOutlivesEnvoy(t *testing.T, o object) {
	t.Helper()
	pod := o.Spec.Template.Spec
	if len(pod.InitContainers) != 1 || len(pod.Containers) != 1 {
		t.Fatalf("%s has %d init containers and %d containers, want one each", o.Metadata.Name, len(pod.InitContainers), len(pod.Containers))
	}
	if p := pod.InitContainers[0]; p.Args[0] != "serve" || p.RestartPolicy != "Always" {
		t.Errorf("init container %+v, want the processor as a native sidecar", p)
	}
	if e := pod.Containers[0]; e.Args[0] != "envoy" {
		t.Errorf("container %+v, want Envoy", e)
	}
	for _, c := range append(pod.InitContainers, pod.Containers...) {
		if !c.SecurityContext.ReadOnly || c.SecurityContext.Privilege {
			t.Errorf("container %s is not restricted", c.Name)
		}
	}
}

func TestChartSaysWhatIsWrongWithValues(t *testing.T) {
	for set, want := range map[string]string{
		"provider=nginx":                  "/provider",
		"replicas=3":                      "additional properties 'replicas' not allowed",
		"config.secret_key=abc":           "/config",
		"config.admin.token=abc":          "/config",
		"config.gateway.listen=:443":      "/config", // the chart's: the ports of the pod
		"config.gateway.tls.cert=a.pem":   "/config", // tls.secret
		"config.processor.socket=/s":      "/config",
		"config.envoy.admin=:1":           "/config",
		"config.envoy.ca_file=/a.pem":     "/config", // envoy.caFile
		"config.admin.listen=:1":          "/config",
		"env[0].value=x":                  "/env/0",
		"provider=istio,tls.secret=a":     "/tls/secret", // a gateway of the mesh would speak plain HTTP to it
		"secrets.database.key=":           "/secrets/database/key",
		"terminationGracePeriodSeconds=5": "/terminationGracePeriodSeconds",
		"autoscaling.enabled=true,autoscaling.targetCPUUtilization=0": "/autoscaling",
	} {
		if _, complaint, err := template(t, "--set", set); err == nil || !strings.Contains(complaint, want) {
			t.Errorf("--set %s: got %v %q, want an error that names %s", set, err, complaint, want)
		}
	}
}

// made returns the first object of a kind that the chart makes of values.
func made(t *testing.T, kind string, args ...string) object {
	t.Helper()
	out, complaint, err := template(t, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, complaint)
	}
	for _, o := range objects(t, out) {
		if o.Kind == kind {
			return o
		}
	}
	t.Fatalf("there is no %s", kind)
	return object{}
}

// configured returns the configuration that the chart makes of values.
func configured(t *testing.T, args ...string) config.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "weir.yaml")
	if err := os.WriteFile(file, []byte(made(t, "ConfigMap", args...).Data["weir.yaml"]), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestChartFitsEnvoyToItsPod(t *testing.T) {
	c := configured(t, "--set", "terminationGracePeriodSeconds=180,envoy.resources.limits.memory=768Mi")
	if got := c.Envoy.Drain; got != 2*time.Minute {
		t.Errorf("a pod that is killed after 3 minutes drains for %v", got)
	}
	if got := c.Envoy.MaxHeapBytes; got != 512<<20 {
		t.Errorf("Envoy may have %d bytes of 768 MiB, want two thirds", got)
	}
	for _, limit := range []string{"null", "0.5Gi", "80Mi"} {
		if c := configured(t, "--set", "envoy.resources.limits.memory="+limit); c.Envoy.MaxHeapBytes != 0 {
			t.Errorf("of a limit of %s Envoy may have %d bytes", limit, c.Envoy.MaxHeapBytes)
		}
	}
	own := configured(t, "--set", "config.envoy.drain=1m,config.envoy.max_heap_bytes=100000000")
	if own.Envoy.Drain != time.Minute || own.Envoy.MaxHeapBytes != 100000000 {
		t.Errorf("what the operator sets is not heeded: %v, %d bytes", own.Envoy.Drain, own.Envoy.MaxHeapBytes)
	}
}

func TestChartServesTLSByASecret(t *testing.T) {
	args := []string{"--set", "tls.secret=llm-tls,config.gateway.max_body_bytes=4096"}
	c := configured(t, args...)
	if c.Gateway.MaxBodyBytes != 4096 || c.Gateway.Listen != "0.0.0.0:10000" {
		t.Errorf("gateway: %+v", c.Gateway)
	}
	pod := made(t, "StatefulSet", args...).Spec.Template.Spec
	folder := ""
	for _, m := range pod.InitContainers[0].VolumeMounts {
		if m.Name == "tls" {
			folder = m.MountPath
		}
	}
	if folder == "" || c.Gateway.TLS.Cert != folder+"/tls.crt" || c.Gateway.TLS.Key != folder+"/tls.key" {
		t.Errorf("the processor has %s, and reads %+v", folder, c.Gateway.TLS)
	}
	for _, m := range pod.Containers[0].VolumeMounts {
		if m.Name == "tls" {
			t.Error("Envoy's container has the private key on its disk")
		}
	}
}

func TestChartTakesWhatAnOperatorAddsToPods(t *testing.T) {
	pod := made(t, "StatefulSet", "--set", "env[0].name=OTEL_EXPORTER_OTLP_ENDPOINT,env[0].value=http://collector:4317",
		"--set", "volumes[0].name=ca,volumes[0].configMap.name=ca,volumeMounts[0].name=ca,volumeMounts[0].mountPath=/etc/ca").Spec.Template.Spec
	found := false
	for _, e := range pod.InitContainers[0].Env {
		found = found || e.Name == "OTEL_EXPORTER_OTLP_ENDPOINT" && e.Value == "http://collector:4317"
	}
	if !found {
		t.Errorf("the processor's environment is %+v", pod.InitContainers[0].Env)
	}
	for _, c := range append(pod.InitContainers, pod.Containers...) {
		if m := c.VolumeMounts[len(c.VolumeMounts)-1]; m.Name != "ca" || m.MountPath != "/etc/ca" {
			t.Errorf("container %s has %+v", c.Name, c.VolumeMounts)
		}
	}
	if v := pod.Volumes[len(pod.Volumes)-1]; v.Name != "ca" || v.ConfigMap.Name != "ca" {
		t.Errorf("volumes: %+v", pod.Volumes)
	}
	// As docs/deploy-istio.md has it for ambient mode. A label that stands there twice would be no YAML, which objects refuses.
	out, complaint, err := template(t, "--set", "provider=istio", "--set-string", `podLabels.sidecar\.istio\.io/inject=false,podAnnotations.proxy\.istio\.io/config=x`)
	if err != nil {
		t.Fatalf("%v\n%s", err, complaint)
	}
	objects(t, out)
	if !strings.Contains(out, `sidecar.istio.io/inject: "false"`) {
		t.Error("the pods ask for a sidecar")
	}
}

// TestPlainManifestsAreWhatTheChartMakes holds deploy/sidecar to the chart.
func TestPlainManifestsAreWhatTheChartMakes(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), tool(t, helm), "template", "weir", chart(t), "--namespace", "weir", "--kube-version", kubernetesVersion)
	made, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	shipped := readFile(t, "deploy", "sidecar", "weir.yaml")
	comment, rest, _ := strings.Cut(shipped, "---\n")
	if diff := cmp.Diff("---\n"+rest, string(made)); diff != "" {
		t.Errorf("deploy/sidecar/weir.yaml, behind its comment, is not what %s makes (-got +want):\n%s", strings.Join(cmd.Args[1:5], " "), diff)
	}
	if !strings.Contains(comment, "helm template weir deploy/helm/weir --namespace weir") {
		t.Error("deploy/sidecar/weir.yaml does not say how it is made")
	}
}

// takesTheManifests applies every manifest of deploy.
func (c *cluster) takesTheManifests(t *testing.T) {
	for _, namespace := range []string{"apps", "istio-egress", "istio-ingress", "llm", "weir"} {
		c.namespace(t, namespace)
	}
	for _, pattern := range []string{"sidecar/*.yaml", "istio/*/*.yaml", "envoy-gateway/*.yaml"} {
		files, err := filepath.Glob(filepath.Join(repo.Root(t), "deploy", pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", pattern, files, err)
		}
		for _, f := range files {
			name := strings.TrimPrefix(f, filepath.Join(repo.Root(t), "deploy")+"/")
			if filepath.Base(name) == "patch.yaml" {
				continue // no object: the page of Istio has it applied
			}
			t.Run(name, func(t *testing.T) {
				text := readFile(t, "deploy", name)
				switch {
				case len(objects(t, text)) == 0: // the configuration of a processor
					weirTakes(t, text)
				case strings.HasPrefix(name, "sidecar/"):
					c.apply(t, text, "--namespace", "weir")
				default:
					c.apply(t, text)
				}
			})
		}
	}
	t.Run("istio/gateway-values.yaml", func(t *testing.T) { c.apply(t, gatewayPods(t), "--namespace", "istio-ingress") })
}

// refusesMistakes shows that what the API server takes says something.
func (c *cluster) refusesMistakes(t *testing.T) {
	for file, change := range map[string][2]string{
		"istio/ingress/filters.yaml":     {"operation: INSERT_BEFORE", "operation: INSERT_BESIDE"},
		"istio/gateway-api/filters.yaml": {"targetRefs:", "targetRef:"},
		"istio/gateway-api/route.yaml":   {"type: PathPrefix", "type: Prefix"},
		"envoy-gateway/filters.yaml":     {"type: JSONPatch", "type: Patch"},
		"envoy-gateway/proxy.yaml":       {"drainTimeout:", "drainTime:"},
		"sidecar/weir.yaml":              {"restartPolicy: Always", "restartPolicy: Forever"},
	} {
		text := readFile(t, "deploy", file)
		wrong := strings.Replace(text, change[0], change[1], 1)
		if wrong == text {
			t.Errorf("%s has no %q", file, change[0])
		}
		if out, err := c.tryApply(wrong, "--dry-run=server"); err == nil {
			t.Errorf("%s with %s was taken:\n%s", file, change[1], out)
		}
	}
}
