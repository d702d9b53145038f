// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// schemaVersion is the newest Kubernetes whose schemas the program holds; others it would fetch.
const schemaVersion = "1.30"

// validate holds objects to the schemas of Kubernetes and of the CRDs of Istio, the Gateway API and Envoy Gateway, their CEL rules included.
func validate(t *testing.T, text string) {
	t.Helper()
	var known []string
	for _, document := range strings.Split("\n"+text, "\n---\n") {
		if !strings.Contains(document, "\nkind: ServiceMonitor\n") { // its CRD is in no module of Go
			known = append(known, document)
		}
	}
	text = strings.Join(known, "\n---\n")
	file := filepath.Join(t.TempDir(), "objects.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{file, "--version", schemaVersion}
	for _, crds := range crdFolders(t) {
		args = append(args, "--local-crds", crds)
	}
	if out, err := exec.CommandContext(t.Context(), tool(t, kubectlValidate), args...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// crdFolders are where the CRDs are, in the modules of those who made them.
func crdFolders(t *testing.T) []string {
	t.Helper()
	istio := t.TempDir()
	b, err := os.ReadFile(filepath.Join(moduleDir(t, "istio.io/istio"), "manifests", "charts", "base", "files", "crd-all.gen.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(istio, "crds.yaml"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{
		istio,
		filepath.Join(moduleDir(t, "sigs.k8s.io/gateway-api"), "config", "crd", "standard"),
		filepath.Join(downloaded(t, envoyGateway), "charts", "gateway-helm", "charts", "crds", "crds", "generated"),
	}
}

// downloaded is where the sources of a program are that is built by [tool].
func downloaded(t *testing.T, program string) string {
	t.Helper()
	module, version, _ := strings.Cut(program, "@")
	module, _, _ = strings.Cut(module, "/cmd/")
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module+"@"+version)
	cmd.Dir = t.TempDir()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("download %s: %v", program, err)
	}
	var m struct{ Dir string }
	if err := json.Unmarshal(out, &m); err != nil {
		t.Fatal(err)
	}
	return m.Dir
}
