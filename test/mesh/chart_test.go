// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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
		"secrets.database.key=":           "/secrets/database/key",
		"terminationGracePeriodSeconds=5": "/terminationGracePeriodSeconds",
		"autoscaling.enabled=true,autoscaling.targetCPUUtilization=0": "/autoscaling",
	} {
		if _, complaint, err := template(t, "--set", set); err == nil || !strings.Contains(complaint, want) {
			t.Errorf("--set %s: got %v %q, want an error that names %s", set, err, complaint, want)
		}
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
