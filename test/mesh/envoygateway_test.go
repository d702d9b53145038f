// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-proxy/weir/internal/child"
)

// The configuration of a standalone Envoy Gateway: objects from files, and Envoy as a process of this machine.
const standalone = `apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyGateway
gateway: { controllerName: gateway.envoyproxy.io/gatewayclass-controller }
provider:
  type: Custom
  custom:
    resource: { type: File, file: { paths: [%[1]s/objects] } }
    infrastructure:
      type: Host
      host: { configHome: %[1]s/config, dataHome: %[1]s/data, stateHome: %[1]s/state, runtimeDir: %[1]s/run }
logging: { level: { default: warn } }
extensionApis: { enableBackend: true, enableEnvoyPatchPolicy: true }
`

func TestEnvoyGatewayServesChat(t *testing.T) {
	w := newEnvoyGateway(t, "")
	t.Run("chat", w.servesChat)
	t.Run("stream", w.servesStream)
	t.Run("SDK", w.servesAnSDK)
	t.Run("failover", w.failsOver)
	t.Run("bad key", w.refusesABadKey)
	t.Run("client's words", w.ignoresWhatAClientMayNotSay)
	t.Run("processor away", w.admitsNothingWithoutAProcessor)
}

// Envoy Gateway 1.9 brings Envoy 1.39 by itself.
func TestEnvoyGatewayServesChatWithoutPriorityGroups(t *testing.T) {
	w := newEnvoyGateway(t, "1.39.3")
	t.Run("chat", w.servesChat)
	t.Run("stream", w.servesStream)
	t.Run("client's words", w.choosesNoChannelForAClient)
	t.Run("failover", w.failsOver)
	t.Run("bad key", w.refusesABadKey)
}

// newEnvoyGateway brings deploy/envoy-gateway to life, with Weir's own Envoy or an older one.
func newEnvoyGateway(t *testing.T, version string) *world {
	t.Helper()
	oldest, _, _ := cutLast(version)
	w := newRig(t, oldest)
	port := freePort(t)
	w.host, w.base = "llm.example.com", fmt.Sprintf("http://127.0.0.1:%d", port)
	files := map[string]string{
		"gateway.yaml":  strings.Replace(readFile(t, "deploy", "envoy-gateway", "gateway.yaml"), "port: 80\n", fmt.Sprintf("port: %d\n", port), 1),
		"filters.yaml":  readFile(t, "deploy", "envoy-gateway", "filters.yaml"),
		"proxy.yaml":    onHost(t, strings.ReplaceAll(readFile(t, "deploy", "envoy-gateway", "proxy.yaml"), "/run/weir/weir.sock", filepath.Join(w.Dir, "weir.sock"))),
		"channels.yaml": w.rendered("envoy-gateway", "channels", "--namespace", "llm", "--host", "llm.example.com"),
	}
	if oldest != "" {
		files["filters.yaml"] = w.rendered("envoy-gateway", "filters", "--namespace", "llm", "--host", "llm.example.com")
	}
	w.startEnvoyGateway(files, envoyOf(t, version))
	w.Eventually("the route is there", func() error {
		if status, body := w.ask("/v1/models", "", nil); status != http.StatusOK {
			return fmt.Errorf("status %d: %s", status, body)
		}
		return nil
	})
	return w
}

// onHost puts Envoy as a process in the place of Envoy as a pod. Everything before that is as it is shipped.
func onHost(t *testing.T, proxy string) string {
	t.Helper()
	before, _, ok := strings.Cut(proxy, "  provider:\n")
	if !ok {
		t.Fatal("proxy.yaml has no provider at its end")
	}
	return before + "  provider: { type: Host, host: { envoyVersion: \"1.40.0\" } }\n"
}

func (w *world) startEnvoyGateway(objects map[string]string, binary string) {
	w.t.Helper()
	dir, err := os.MkdirTemp("", "weir-eg-") //nolint:usetesting // the name of t.TempDir is too long for its sockets
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	put := func(name, text string) {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			w.t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	for name, text := range objects {
		put(filepath.Join("objects", name), text)
	}
	put("envoy-gateway.yaml", fmt.Sprintf(standalone, dir))
	w.placeEnvoy(filepath.Join(dir, "data", "envoy-versions", "1.40.0", "bin"), binary)
	program := tool(w.t, envoyGateway)
	if out, err := exec.CommandContext(w.t.Context(), program, "certgen", "--local", "--config-home", filepath.Join(dir, "config")).CombinedOutput(); err != nil {
		w.t.Fatalf("certgen: %v\n%s", err, out)
	}
	var log bytes.Buffer
	cmd := exec.Command(program, "server", "--config-path", filepath.Join(dir, "envoy-gateway.yaml"))
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &log, &log
	p, err := child.Start(cmd, syscall.SIGTERM)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		p.Stop(syscall.SIGTERM, 15*time.Second)
		if w.t.Failed() {
			w.t.Logf("envoy gateway:\n%s", last(log.String(), 12000))
		}
	})
}

func last(s string, n int) string { return s[max(0, len(s)-n):] }

// placeEnvoy puts an Envoy where Envoy Gateway looks for the one that it would fetch, whatever version that is.
func (w *world) placeEnvoy(dir, binary string) {
	w.t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Symlink(binary, filepath.Join(dir, "envoy")); err != nil {
		w.t.Fatal(err)
	}
}
