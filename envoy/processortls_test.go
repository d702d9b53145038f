// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/internal/authority"
	"github.com/weir-proxy/weir/internal/repo"
)

// Envoy takes the way to the processor by mutual TLS in both forms: with files that it looks after, and with files that it reads once, as in a mesh.
func TestTheWayToTheProcessorIsByMutualTLS(t *testing.T) {
	binary, err := Find(t.Context(), os.Getenv("WEIR_ENVOY"), repo.Cache(t))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ca := authority.New(t)
	chain, key := ca.Sign(t, "localhost")
	for name, b := range map[string][]byte{"envoy.crt": chain, "envoy.key": key, "ca.crt": ca.PEM} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	once := ProcessorTLS{CA: filepath.Join(dir, "ca.crt"), Cert: filepath.Join(dir, "envoy.crt"), Key: filepath.Join(dir, "envoy.key")}
	watched, err := once.Watch(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		tls       ProcessorTLS
		processor string
		want      []string
	}{
		"once, by address": {once, "127.0.0.1:10005", []string{`"IP_ADDRESS"`, `"exact":"127.0.0.1"`, once.Cert, once.Key, once.CA}},
		"watched, by name": {watched, "weir.internal:10005", []string{`"DNS"`, `"sni":"weir.internal"`, "processor-tls.json", "processor-ca.json"}},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := Bootstrap(BootstrapOptions{Processor: c.processor, TLS: c.tls, Admin: "127.0.0.1:10002"})
			if err != nil {
				t.Fatal(err)
			}
			flat := strings.ReplaceAll(string(b), `": `, `":`) // protojson puts blanks where it likes
			for _, want := range c.want {
				if !strings.Contains(flat, want) {
					t.Errorf("the bootstrap lacks %s", want)
				}
			}
			path := filepath.Join(t.TempDir(), "envoy.json")
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(t.Context(), binary, "--mode", "validate", "-c", path, "--disable-hot-restart").CombinedOutput(); err != nil {
				t.Errorf("%v:\n%s", err, out)
			}
		})
	}
	plain, err := Bootstrap(BootstrapOptions{Processor: "weir.internal:10005", Admin: "127.0.0.1:10002"})
	if err != nil || strings.Contains(string(plain), "transport_sockets") {
		t.Errorf("without files it is not plain TCP: %v", err)
	}
}
