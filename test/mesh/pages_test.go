// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/internal/repo"
	"github.com/weir-proxy/weir/test/rig"
)

// blocks are the commands of a page, indented or not.
var blocks = regexp.MustCompile("(?ms)^ *```sh\n(.*?)^ *```$")

// The programs that the commands of a page find. What needs pods that run is passed over; weir speaks to the processor of the test, where
// the page would have the way to that of the cluster.
const (
	pageKubectl = "case \" $* \" in *' port-forward '*|*' rollout '*) exit 0;; esac\nexec '%s' \"$@\"\n"
	pageHelm    = "for a in \"$@\"; do shift; case $a in istio/gateway) a='%s';; esac; set -- \"$@\" \"$a\"; done\nexec '%s' \"$@\"\n"
	pageWeir    = "export WEIR_URL=%s WEIR_TOKEN=%s\nexec '%s' \"$@\"\n"
	pageCurl    = "exit 0\n"
)

// follows runs the commands of a page, from its first to its last, in a folder that holds nothing but deploy, and looks at what they left.
func (c *cluster) follows(t *testing.T, page string) {
	t.Helper()
	for _, need := range before[page] {
		if out, err := c.tryApply(need); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	w := newRig(t, "")
	dir, programs := t.TempDir(), t.TempDir()
	if err := os.Symlink(filepath.Join(repo.Root(t), "deploy"), filepath.Join(dir, "deploy")); err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{
		"kubectl": fmt.Sprintf(pageKubectl, tool(t, kubectl)),
		"helm":    fmt.Sprintf(pageHelm, istioGatewayChart(t), tool(t, helm)),
		"weir":    fmt.Sprintf(pageWeir, w.AdminURL, rig.AdminToken, rig.Binary(t)),
		"curl":    pageCurl,
	} {
		if err := os.WriteFile(filepath.Join(programs, name), []byte("#!/bin/sh\n"+script), 0o700); err != nil { //nolint:gosec // it is to be run
			t.Fatal(err)
		}
	}
	var commands strings.Builder
	for _, block := range blocks.FindAllStringSubmatch(readFile(t, "docs", page), -1) {
		commands.WriteString(block[1])
	}
	if commands.Len() == 0 {
		t.Fatal("the page has no commands")
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-eux", "-c", commands.String())
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"), "HOME="+dir, "KUBECONFIG="+c.kubeconfig,
		"DATABASE_URL=postgres://weir@postgres/weir", "OPENAI_API_KEY=sk-page")
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), "Warning:") {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, o := range left[page] {
		if out, err := c.kubectl("", append([]string{"get", "--namespace"}, strings.Fields(o)...)...); err != nil {
			t.Errorf("%s: %s", o, out)
		}
	}
}

// before is what a page takes for granted.
var before = map[string][]string{
	"deploy-istio.md":         {namespace("apps"), application},
	"deploy-envoy-gateway.md": {namespace("envoy-gateway-system")},
}

func namespace(name string) string {
	return "apiVersion: v1\nkind: Namespace\nmetadata: { name: " + name + " }\n"
}

// left is what there is in the cluster once a page was followed: namespace, kind and name.
var left = map[string][]string{
	"deploy-kubernetes.md": {"weir secret weir", "weir statefulset weir"},
	"deploy-helm.md":       {"llm secret weir", "llm statefulset weir", "llm poddisruptionbudget weir"},
	"deploy-istio.md": {
		"istio-ingress secret weir", "istio-ingress configmap weir-bootstrap", "istio-ingress deployment istio-ingressgateway",
		"istio-ingress virtualservice llm", "istio-ingress envoyfilter weir", "istio-ingress envoyfilter weir-channels", "istio-ingress httproute llm",
		"istio-egress deployment istio-egressgateway", "istio-egress virtualservice llm", "istio-egress envoyfilter weir-channels",
		"apps configmap weir", "apps virtualservice llm", "apps envoyfilter weir-channels",
	},
	"deploy-envoy-gateway.md": {
		"envoy-gateway-system secret weir", "llm gateway llm", "llm envoyproxy weir", "llm envoypatchpolicy weir", "llm envoypatchpolicy weir-channels",
	},
}
