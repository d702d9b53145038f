// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/internal/repo"
)

// The programs that read what is in deploy, each at one version.
const (
	helm            = "helm.sh/helm/v3/cmd/helm@v3.22.0"
	kubectlValidate = "sigs.k8s.io/kubectl-validate@v0.0.4"
	envoyGateway    = "github.com/envoyproxy/gateway/cmd/envoy-gateway@v1.9.1"
)

// tool returns the path of a program that is built from its module, once for all checkouts that share a cache.
func tool(t *testing.T, module string) string {
	t.Helper()
	name, version, _ := strings.Cut(path.Base(module), "@")
	dir := filepath.Join(repo.Cache(t), "tools", name+"-"+version)
	file := filepath.Join(dir, name)
	if _, err := os.Stat(file); err == nil {
		return file
	}
	cmd := exec.CommandContext(t.Context(), "go", "install", module)
	cmd.Dir = t.TempDir() // of no module
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", module, err, out)
	}
	return file
}

// moduleDir is where the sources of a module are, of those that this module needs.
func moduleDir(t *testing.T, module string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		t.Fatalf("find %s: %v", module, err)
	}
	return strings.TrimSpace(string(out))
}
