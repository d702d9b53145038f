// SPDX-License-Identifier: Apache-2.0

package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-proxy/weir/internal/config"
)

// signer signs certificates.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newSigner(t *testing.T) *signer {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// sign makes a certificate for 127.0.0.1 and its key, in PEM.
func (s *signer) sign(t *testing.T) (chain, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, s.cert, &k.PublicKey, s.key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

// peerWorld is a listener with mutual TLS that echoes.
type peerWorld struct {
	*peers
	dir, address string
}

func newPeerWorld(t *testing.T, s *signer) *peerWorld {
	t.Helper()
	w := &peerWorld{dir: t.TempDir()}
	w.write(t, s)
	var err error
	w.peers, err = openPeers(config.MutualTLS{
		Cert: filepath.Join(w.dir, "tls.crt"), Key: filepath.Join(w.dir, "tls.key"), ClientCA: filepath.Join(w.dir, "ca.crt"),
	}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.address = plain.Addr().String()
	l := w.over(plain)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	return w
}

func (w *peerWorld) write(t *testing.T, s *signer) {
	t.Helper()
	chain, key := s.sign(t)
	for name, b := range map[string][]byte{"tls.crt": chain, "tls.key": key, "ca.crt": s.pem} {
		if err := os.WriteFile(filepath.Join(w.dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// dial connects as one whose certificate, if any, is of own and who trusts what trusted signs.
func (w *peerWorld) dial(t *testing.T, own, trusted *signer) *tls.Conn {
	t.Helper()
	c := &tls.Config{RootCAs: x509.NewCertPool(), NextProtos: []string{"h2"}}
	c.RootCAs.AddCert(trusted.cert)
	if own != nil {
		chain, key := own.sign(t)
		pair, err := tls.X509KeyPair(chain, key)
		if err != nil {
			t.Fatal(err)
		}
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	conn, err := net.Dial("tcp", w.address)
	if err != nil {
		t.Fatal(err)
	}
	c.ServerName = "127.0.0.1"
	out := tls.Client(conn, c)
	t.Cleanup(func() { _ = out.Close() })
	return out
}

// echoes sends a word there and back.
func echoes(c *tls.Conn) error {
	if _, err := c.Write([]byte("word")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 4))
	return err
}

func TestOnlyEnvoysWithACertificateReachTheProcessor(t *testing.T) {
	ours, stranger := newSigner(t), newSigner(t)
	w := newPeerWorld(t, ours)
	known := w.dial(t, ours, ours)
	if err := echoes(known); err != nil {
		t.Fatal(err)
	}
	if p := known.ConnectionState().NegotiatedProtocol; p != "h2" {
		t.Errorf("the protocol is %q, want h2", p)
	}
	for name, own := range map[string]*signer{"without a certificate": nil, "with a stranger's": stranger} {
		if err := echoes(w.dial(t, own, ours)); err == nil {
			t.Errorf("%s one is served", name)
		}
	}
	if err := echoes(w.dial(t, ours, stranger)); err == nil {
		t.Error("an Envoy takes a stranger for the processor")
	}
}

func TestReplacedFilesHoldForNewConnectionsAlone(t *testing.T) {
	before, after := newSigner(t), newSigner(t)
	w := newPeerWorld(t, before)
	open := w.dial(t, before, before)
	if err := echoes(open); err != nil {
		t.Fatal(err)
	}
	w.write(t, after)
	w.look()
	if err := echoes(w.dial(t, after, after)); err != nil {
		t.Errorf("with the new files: %v", err)
	}
	if err := echoes(w.dial(t, before, after)); err == nil {
		t.Error("who is not trusted any more is served")
	}
	if err := echoes(open); err != nil {
		t.Errorf("the connection that was open: %v", err)
	}
}

func TestFilesThatDoNotFitTogetherChangeNothing(t *testing.T) {
	ours := newSigner(t)
	w := newPeerWorld(t, ours)
	if err := os.WriteFile(filepath.Join(w.dir, "ca.crt"), []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.look()
	if w.failing.Load() {
		t.Error("files that may be in the middle of being written are a failure at once")
	}
	w.look()
	if !w.failing.Load() {
		t.Error("nobody is told of files that do not fit together")
	}
	if err := echoes(w.dial(t, ours, ours)); err != nil {
		t.Errorf("what was there before is not in force: %v", err)
	}
	w.write(t, ours)
	w.look()
	if w.failing.Load() {
		t.Error("files that fit together again are still a failure")
	}
	_, err := openPeers(config.MutualTLS{Cert: "none", Key: "none", ClientCA: "none"}, nil, w.log)
	if err == nil || !strings.Contains(err.Error(), "processor.tls") {
		t.Errorf("missing files: got %v", err)
	}
}
