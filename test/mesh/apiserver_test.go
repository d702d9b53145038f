// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-proxy/weir/internal/child"
)

// cluster is an API server of Kubernetes with the CRDs that deploy needs, and with no node: objects are checked, defaulted and kept as
// anywhere, but no pod runs.
type cluster struct {
	t          *testing.T
	kubeconfig string
}

// prometheusOperator has the CRD ServiceMonitor. Nothing is built of it.
const prometheusOperator = "github.com/prometheus-operator/prometheus-operator@v0.85.0"

const kubeconfig = `apiVersion: v1
kind: Config
clusters: [{ name: test, cluster: { server: "https://127.0.0.1:%d", insecure-skip-tls-verify: true } }]
users: [{ name: test, user: { token: test } }]
contexts: [{ name: test, context: { cluster: test, user: test } }]
current-context: test
`

// startCluster runs etcd and the API server, on this machine alone.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	dir := t.TempDir()
	store, peer, port := fmt.Sprintf("http://127.0.0.1:%d", freePort(t)), fmt.Sprintf("http://127.0.0.1:%d", freePort(t)), freePort(t)
	c := &cluster{t: t, kubeconfig: filepath.Join(dir, "kubeconfig")}
	c.run(tool(t, etcd), "--data-dir", filepath.Join(dir, "etcd"), "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", store, "--advertise-client-urls", store,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	private, public := serviceAccountKeys(t)
	for name, text := range map[string]string{
		"kubeconfig": fmt.Sprintf(kubeconfig, port), "sa.key": private, "sa.pub": public, "tokens.csv": `test,test,test,"system:masters"` + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.run(tool(t, apiServer), "--etcd-servers", store, "--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1",
		"--secure-port", fmt.Sprint(port), "--cert-dir", filepath.Join(dir, "certs"), "--token-auth-file", filepath.Join(dir, "tokens.csv"),
		"--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.96.0.0/16", "--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", filepath.Join(dir, "sa.pub"), "--service-account-signing-key-file", filepath.Join(dir, "sa.key"),
		"--disable-admission-plugins", "ServiceAccount", "--endpoint-reconciler-type", "none", "--v", "0")
	c.eventually("the API server is ready", func() error {
		out, err := c.kubectl("", "get", "--raw", "/readyz")
		return errors.Join(err, unless(out == "ok", out))
	})
	c.installCRDs()
	return c
}

func unless(ok bool, say string) error {
	if ok {
		return nil
	}
	return errors.New(say)
}

// run starts a program that ends with the test.
func (c *cluster) run(program string, args ...string) {
	c.t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &log, &log
	p, err := child.Start(cmd, syscall.SIGKILL)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		p.Stop(syscall.SIGKILL, 10*time.Second)
		if c.t.Failed() {
			c.t.Logf("%s:\n%s", filepath.Base(program), last(log.String(), 6000))
		}
	})
}

func serviceAccountKeys(t *testing.T) (private, public string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	private = string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	return private, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func (c *cluster) eventually(what string, f func() error) {
	c.t.Helper()
	var err error
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
		if err = f(); err == nil {
			return
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-c.t.Context().Done():
		}
	}
	c.t.Fatalf("%s: %v", what, err)
}

// kubectl returns what it prints, complaints included.
func (c *cluster) kubectl(in string, args ...string) (string, error) {
	cmd := exec.CommandContext(c.t.Context(), tool(c.t, kubectl), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig)
	cmd.Stdin = strings.NewReader(in)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// installCRDs takes the CRDs from the modules of those who made them.
func (c *cluster) installCRDs() {
	c.t.Helper()
	args := []string{"apply", "--server-side", "--recursive"}
	for _, crds := range []string{
		filepath.Join(moduleDir(c.t, ".", "istio.io/istio"), "manifests", "charts", "base", "files", "crd-all.gen.yaml"),
		filepath.Join(moduleDir(c.t, ".", "sigs.k8s.io/gateway-api"), "config", "crd", "standard"),
		filepath.Join(moduleDir(c.t, "tools", "github.com/envoyproxy/gateway"), "charts", "gateway-helm", "charts", "crds", "crds", "generated"),
		filepath.Join(moduleDir(c.t, c.t.TempDir(), prometheusOperator), "example", "prometheus-operator-crd", "monitoring.coreos.com_servicemonitors.yaml"),
	} {
		args = append(args, "-f", crds)
	}
	if out, err := c.kubectl("", args...); err != nil {
		c.t.Fatalf("install CRDs: %v\n%s", err, out)
	}
	if out, err := c.kubectl("", "wait", "--for=condition=Established", "--all", "crd", "--timeout=60s"); err != nil {
		c.t.Fatalf("%v\n%s", err, out)
	}
}

// namespace makes a namespace that warns of every pod which the restricted pod security standard would not let in.
func (c *cluster) namespace(t *testing.T, name string) {
	t.Helper()
	text := fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: %s\n  labels: { pod-security.kubernetes.io/warn: restricted }\n", name)
	if out, err := c.kubectl(text, "apply", "--server-side", "-f", "-"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// apply fails the test if the API server refuses an object, or takes it with a warning. Of whoever applied it before it takes all fields.
func (c *cluster) apply(t *testing.T, text string, args ...string) {
	t.Helper()
	if out, err := c.tryApply(text, args...); err != nil || strings.Contains(out, "Warning:") {
		t.Errorf("%v\n%s", err, out)
	}
}

func (c *cluster) tryApply(text string, args ...string) (string, error) {
	return c.kubectl(text, append([]string{"apply", "--server-side", "--force-conflicts", "-f", "-"}, args...)...)
}

func TestAPIServerTakesWhatIsShipped(t *testing.T) {
	c := startCluster(t)
	for _, page := range []string{"deploy-kubernetes.md", "deploy-helm.md", "deploy-istio.md"} {
		t.Run(page, func(t *testing.T) { c.follows(t, page) })
	}
	t.Run("chart", c.takesTheChart)
	t.Run("manifests", c.takesTheManifests)
	t.Run("pods of a Gateway", c.takesThePodsOfAGateway)
	t.Run("mistakes", c.refusesMistakes)
}

// TestAPIServerTakesThePageOfEnvoyGateway has a cluster of its own: two pages make the same namespace.
func TestAPIServerTakesThePageOfEnvoyGateway(t *testing.T) {
	c := startCluster(t)
	c.follows(t, "deploy-envoy-gateway.md")
}
