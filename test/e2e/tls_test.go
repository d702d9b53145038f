// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/test/rig"
)

// Providers are reached by TLS with their name in the handshake, by HTTP/2 where they speak it, and only if their certificate is theirs.
func TestProvidersAreReachedByTLSAndVerified(t *testing.T) {
	ca := newAuthority(t)
	r := rig.Start(t, rig.Options{Production: true, Envoy: "ca_file: " + ca.file})
	name := make(chan string, 10)
	serve := func(certName string, http2 bool, a *authority) (*fake.Provider, string) {
		p := fake.New(fake.Options{KeepHeaders: true})
		s := httptest.NewUnstartedServer(p)
		s.EnableHTTP2 = http2
		cert := a.certificate(t, certName)
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
	_, urlStranger := serve("localhost", true, newAuthority(t))
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

// authority is a certificate authority that only this test trusts.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{file: filepath.Join(t.TempDir(), "ca.pem")}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Weir test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) certificate(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
