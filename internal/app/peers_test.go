// SPDX-License-Identifier: Apache-2.0

package app

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-proxy/weir/internal/authority"
	"github.com/weir-proxy/weir/internal/config"
)

// peerWorld is a listener with mutual TLS that echoes.
type peerWorld struct {
	*peers
	dir, address string
}

func newPeerWorld(t *testing.T, s *authority.Authority) *peerWorld {
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

func (w *peerWorld) write(t *testing.T, s *authority.Authority) {
	t.Helper()
	chain, key := s.Sign(t, "127.0.0.1")
	for name, b := range map[string][]byte{"tls.crt": chain, "tls.key": key, "ca.crt": s.PEM} {
		if err := os.WriteFile(filepath.Join(w.dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// look has the files read anew.
func (w *peerWorld) look(t *testing.T) {
	t.Helper()
	if err := w.peers.look(t.Context(), w.put); err != nil {
		t.Fatal(err)
	}
}

// dial connects as one whose certificate, if any, is of own and who trusts what trusted signs.
func (w *peerWorld) dial(t *testing.T, own, trusted *authority.Authority) *tls.Conn {
	t.Helper()
	c := &tls.Config{RootCAs: trusted.Pool(), NextProtos: []string{"h2"}}
	if own != nil {
		pair := own.Pair(t, "127.0.0.1")
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
	ours, stranger := authority.New(t), authority.New(t)
	w := newPeerWorld(t, ours)
	known := w.dial(t, ours, ours)
	if err := echoes(known); err != nil {
		t.Fatal(err)
	}
	if p := known.ConnectionState().NegotiatedProtocol; p != "h2" {
		t.Errorf("the protocol is %q, want h2", p)
	}
	for name, own := range map[string]*authority.Authority{"without a certificate": nil, "with a stranger's": stranger} {
		if err := echoes(w.dial(t, own, ours)); err == nil {
			t.Errorf("%s one is served", name)
		}
	}
	if err := echoes(w.dial(t, ours, stranger)); err == nil {
		t.Error("an Envoy takes a stranger for the processor")
	}
}

func TestReplacedFilesHoldForNewConnectionsAlone(t *testing.T) {
	before, after := authority.New(t), authority.New(t)
	w := newPeerWorld(t, before)
	open := w.dial(t, before, before)
	if err := echoes(open); err != nil {
		t.Fatal(err)
	}
	w.write(t, after)
	w.look(t)
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
	ours := authority.New(t)
	w := newPeerWorld(t, ours)
	if err := os.WriteFile(filepath.Join(w.dir, "ca.crt"), []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.look(t)
	if w.failing.Load() {
		t.Error("files that may be in the middle of being written are a failure at once")
	}
	w.look(t)
	if !w.failing.Load() {
		t.Error("nobody is told of files that do not fit together")
	}
	if err := echoes(w.dial(t, ours, ours)); err != nil {
		t.Errorf("what was there before is not in force: %v", err)
	}
	w.write(t, ours)
	w.look(t)
	if w.failing.Load() {
		t.Error("files that fit together again are still a failure")
	}
	_, err := openPeers(config.MutualTLS{Cert: "none", Key: "none", ClientCA: "none"}, nil, w.log)
	if err == nil || !strings.Contains(err.Error(), "processor.tls") {
		t.Errorf("missing files: got %v", err)
	}
}
