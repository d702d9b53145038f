// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"testing"

	"github.com/weir-proxy/weir/internal/repo"
)

// The programs that read what is in deploy. The module of tools has their versions, so that they share what they are built of.
const (
	apiServer    = "k8s.io/kubernetes/cmd/kube-apiserver"
	envoyGateway = "github.com/envoyproxy/gateway/cmd/envoy-gateway"
	etcd         = "go.etcd.io/etcd/server/v3"
	helm         = "helm.sh/helm/v3/cmd/helm"
	kubectl      = "k8s.io/kubernetes/cmd/kubectl"
)

// kubernetesVersion is the version of the API server, which charts and manifests are checked for. The chart supports older ones: see its kubeVersion.
const kubernetesVersion = "v1.36.3"

// tool returns the path of a program. It is built once for all checkouts that share a cache and want the same versions.
func tool(t *testing.T, program string) string {
	t.Helper()
	name := path.Base(program)
	if program == etcd {
		name = "etcd"
	}
	dir := filepath.Join(repo.Cache(t), "tools", toolsVersion(t))
	file := filepath.Join(dir, name)
	if _, err := os.Stat(file); err == nil {
		return file
	}
	t.Logf("%s is not in %s: building it takes minutes the first time", name, dir)
	made := fmt.Sprintf("%s.%d", file, os.Getpid())
	// Charts and kubectl ask the API server for its version, which is otherwise that of no release. Nobody debugs these programs here: -s -w.
	cmd := exec.CommandContext(t.Context(), "go", "build", "-p", "2", "-buildvcs=false",
		"-ldflags", "-s -w -X k8s.io/component-base/version.gitVersion="+kubernetesVersion, "-o", made, program)
	cmd.Dir = "tools"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", program, err, out)
	}
	if err := os.Rename(made, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// toolsVersion names the versions of all programs.
func toolsVersion(t *testing.T) string {
	t.Helper()
	var all bytes.Buffer
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join("tools", name))
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	all.WriteString(kubernetesVersion)
	sum := sha256.Sum256(all.Bytes())
	return hex.EncodeToString(sum[:6])
}

// moduleDir is where the sources of a module are: of those that the module in the folder of needs, or with @VERSION of any.
func moduleDir(t *testing.T, of, module string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module)
	cmd.Dir = of
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("download %s: %v\n%s", module, err, out)
	}
	var m struct{ Dir string }
	if err := json.Unmarshal(out, &m); err != nil {
		t.Fatal(err)
	}
	return m.Dir
}
