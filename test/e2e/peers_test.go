// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/internal/authority"
	"github.com/weir-proxy/weir/test/rig"
)

// peerFiles are the files of mutual TLS between Envoy and the processor.
type peerFiles struct{ dir string }

func (f peerFiles) path(name string) string { return filepath.Join(f.dir, name) }

// write puts certificates of an authority there, each by renaming.
func (f peerFiles) write(t *testing.T, a *authority.Authority) {
	t.Helper()
	content := map[string][]byte{"ca.crt": a.PEM}
	for _, who := range []string{"processor", "envoy"} {
		content[who+".crt"], content[who+".key"] = a.Sign(t, "127.0.0.1")
	}
	for _, name := range []string{"processor.key", "processor.crt", "envoy.key", "envoy.crt", "ca.crt"} {
		if err := os.WriteFile(f.path("new"), content[name], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(f.path("new"), f.path(name)); err != nil {
			t.Fatal(err)
		}
	}
}

// shakes reports whether the processor takes a connection with a certificate of an authority, which must be the one of the processor's, too.
func shakes(t *testing.T, a *authority.Authority, address string) error {
	t.Helper()
	c := &tls.Config{RootCAs: a.Pool(), NextProtos: []string{"h2"}, Certificates: []tls.Certificate{a.Pair(t, "127.0.0.1")}}
	conn, err := tls.Dial("tcp", address, c)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // it has said all that it has to
	if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 9)) // the processor's settings
	return err
}

// An Envoy on another machine is served by its certificate alone. Both sides take up new certificates, and nothing is cut for that.
func TestEnvoysOfOtherMachinesAreKnownByTheirCertificates(t *testing.T) {
	f, before, after := peerFiles{t.TempDir()}, authority.New(t), authority.New(t)
	f.write(t, before)
	w := newRemoteWorld(t, rig.Options{Peers: rig.Peers{
		Cert: f.path("processor.crt"), Key: f.path("processor.key"), ClientCA: f.path("ca.crt"),
		Envoy: envoy.ProcessorTLS{CA: f.path("ca.crt"), Cert: f.path("envoy.crt"), Key: f.path("envoy.key")},
	}})
	if err := w.ask(http.DefaultClient, hello, "usage"); err != nil {
		t.Fatal(err)
	}

	w.strangersAreRefused(t, f.path("ca.crt"))

	const ways = "cluster.weir-processor.upstream_cx_destroy_remote"
	end, cut, connects := w.streams(t, 5), w.Stat(ways), w.Stat("control_plane.connected_state")
	f.write(t, after)
	w.Eventually("the processor has the new files", func() error { return shakes(t, after, w.Far()) })
	if err := shakes(t, before, w.Far()); err == nil {
		t.Error("who is not trusted any more is served")
	}
	for _, id := range end() {
		if row := w.Row(id); row.Status != "ok" || row.Output != streamTokens {
			t.Errorf("a stream across the change: %s, %d tokens", row.Status, row.Output)
		}
	}
	if got := w.Stat(ways); got != cut || connects != 1 || w.Stat("control_plane.connected_state") != 1 {
		t.Errorf("connections to the processor were closed: %d, before %d", got, cut)
	}
	w.KillProcessor()
	w.StartProcessor() // which Envoy must connect to anew, by the new files
	w.Settle()
	if err := w.ask(http.DefaultClient, hello, "usage"); err != nil {
		t.Errorf("with the new certificates: %v", err)
	}
}

// strangersAreRefused runs an Envoy that trusts the processor, and that the processor does not know; and speaks without TLS.
func (w *world) strangersAreRefused(t *testing.T, trust string) {
	t.Helper()
	const refused = "weir_processor_refused_connections_total"
	count := func() float64 {
		n, err := w.Metric(refused)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	stranger, known := peerFiles{t.TempDir()}, count()
	stranger.write(t, authority.New(t))
	admin := w.LaunchStranger("stranger", envoy.ProcessorTLS{
		CA: trust, Cert: stranger.path("envoy.crt"), Key: stranger.path("envoy.key"),
	})
	w.Eventually("a stranger is refused", func() error {
		if n := count(); n < known+2 { // it comes again and again
			return fmt.Errorf("%v were refused", n-known)
		}
		return nil
	})
	if err := envoy.Ready(t.Context(), admin); err == nil {
		t.Error("a stranger serves")
	}
	if n, err := w.Metric("weir_envoys"); err != nil || n != 1 {
		t.Errorf("%v envoys are connected, %v", n, err)
	}
	known = count()
	conn, err := net.Dial("tcp", w.Far())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // it was refused
	if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(conn); bytes.Contains(b, []byte("HTTP/2")) || len(b) > 16 {
		t.Errorf("plain text is answered: %q", b)
	}
	w.Eventually("plain text is refused", func() error {
		if n := count(); n < known+1 {
			return errors.New("it is not")
		}
		return nil
	})
}
