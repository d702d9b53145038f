// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/internal/authority"
	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/test/rig"
)

// Providers are reached by TLS with their name in the handshake, by HTTP/2 where they speak it, and only if their certificate is theirs.
func TestProvidersAreReachedByTLSAndVerified(t *testing.T) {
	ca := authority.New(t)
	r := rig.Start(t, rig.Options{Production: true, Envoy: "ca_file: " + fileOf(t, ca)})
	name := make(chan string, 10)
	serve := func(certName string, http2 bool, a *authority.Authority) (*fake.Provider, string) {
		p := fake.New(fake.Options{KeepHeaders: true})
		s := httptest.NewUnstartedServer(p)
		s.EnableHTTP2 = http2
		cert := a.Pair(t, certName)
		s.TLS = &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			name <- h.ServerName
			return &cert, nil
		}}
		s.StartTLS()
		t.Cleanup(s.Close)
		_, port, err := net.SplitHostPort(s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return p, "https://localhost:" + port + "/v1"
	}
	two, urlTwo := serve("localhost", true, ca)
	one, urlOne := serve("localhost", false, ca)
	_, urlOther := serve("other.example.com", true, ca)
	_, urlStranger := serve("localhost", true, authority.New(t))
	for model, url := range map[string]string{"two": urlTwo, "one": urlOne, "other": urlOther, "stranger": urlStranger} {
		r.Channel(store.NewChannel{Name: model, Provider: "openai", BaseURL: url, Models: rig.Models(model)})
	}
	w := &world{Rig: r}
	w.key, _ = r.Key(store.NewKey{Name: "k"})
	r.Settle()

	ask := func(model string) answer {
		return w.post(t, "/v1/chat/completions", strings.Replace(hello, "gpt-4o-mini", model, 1))
	}
	for model, c := range map[string]struct {
		p        *fake.Provider
		protocol string
	}{"two": {two, "HTTP/2.0"}, "one": {one, "HTTP/1.1"}} {
		a := ask(model)
		if a.status != http.StatusOK {
			t.Errorf("%s: got %d: %s", model, a.status, a.body)
			continue
		}
		if got := c.p.Ledger().Attempts(a.exchange); len(got) != 1 || got[0].Protocol != c.protocol || !strings.HasPrefix(got[0].Host, "localhost:") {
			t.Errorf("%s: the provider got %+v, want %s", model, got, c.protocol)
		}
		if got := <-name; got != "localhost" {
			t.Errorf("%s: the handshake named %q", model, got)
		}
	}
	for _, model := range []string{"other", "stranger"} {
		a := ask(model)
		if f := a.refusal(t); a.status != 503 || f.Code != "upstream_unavailable" {
			t.Errorf("%s: got %d %+v, want a refused connection", model, a.status, f)
		}
	}
}

// fileOf writes the certificate of an authority, for programs that trust what is in a file.
func fileOf(t *testing.T, a *authority.Authority) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, a.PEM, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}
