// SPDX-License-Identifier: Apache-2.0

package app

import (
	"bytes"
	"context"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/internal/authority"
	"github.com/weir-proxy/weir/internal/config"
)

// pair makes a certificate that ends at a time, and its key.
func pair(t *testing.T, end time.Time) envoy.Certificate {
	t.Helper()
	chain, key := authority.New(t).SignUntil(t, "localhost", end)
	return envoy.Certificate{Chain: chain, Key: key}
}

func write(t *testing.T, file string, b []byte) {
	t.Helper()
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCertificateIsReplacedOnlyByOneThatIsWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := config.TLS{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")}
	end := time.Now().Add(time.Hour).Truncate(time.Second)
	first, second := pair(t, end), pair(t, end.Add(time.Hour))
	write(t, files.Cert, first.Chain)
	write(t, files.Key, first.Key)
	var log bytes.Buffer
	c, err := openCertificate(files, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	var published []envoy.Certificate
	look := func() {
		t.Helper()
		if err := c.look(t.Context(), func(_ context.Context, n envoy.Certificate) error {
			published = append(published, n)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	look()
	if len(published) != 0 || c.expiry.Load() != end.Unix() {
		t.Errorf("the same files: published %d times, expiry %d, want %d", len(published), c.expiry.Load(), end.Unix())
	}
	write(t, files.Cert, second.Chain) // and not yet its key
	look()
	if len(published) != 0 || c.failing.Load() || strings.Contains(log.String(), "cannot be used") {
		t.Error("a change under way is reported or published")
	}
	look()
	look()
	if len(published) != 0 || !c.failing.Load() || strings.Count(log.String(), "cannot be used") != 1 {
		t.Errorf("files that do not fit: published %d, failing %v, log %s", len(published), c.failing.Load(), log.String())
	}
	write(t, files.Key, second.Key)
	look()
	if len(published) != 1 || !bytes.Equal(published[0].Chain, second.Chain) || !bytes.Equal(published[0].Key, second.Key) || c.failing.Load() || c.expiry.Load() != end.Add(time.Hour).Unix() {
		t.Errorf("the other certificate: published %d, failing %v", len(published), c.failing.Load())
	}
	for _, secret := range [][]byte{first.Key, second.Key} {
		block, _ := pem.Decode(secret)
		if strings.Contains(log.String(), string(secret[30:60])) || bytes.Contains(log.Bytes(), block.Bytes) {
			t.Error("the log has a key in it")
		}
	}
}

func TestCertificateMustBeThereAtTheStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	one, other := pair(t, time.Now().Add(time.Hour)), pair(t, time.Now().Add(time.Hour))
	for name, content := range map[string][]byte{"one.crt": one.Chain, "other.key": other.Key, "text.key": []byte("text")} {
		write(t, filepath.Join(dir, name), content)
	}
	for _, c := range []struct{ cert, key, want string }{
		{"none.crt", "other.key", "no such file"},
		{"one.crt", "none.key", "no such file"},
		{"one.crt", "other.key", "private key does not match public key"},
		{"one.crt", "text.key", "failed to find any PEM data in key input"},
	} {
		_, err := openCertificate(config.TLS{Cert: filepath.Join(dir, c.cert), Key: filepath.Join(dir, c.key)}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		if h, ok := err.(interface{ Hint() string }); err == nil || !strings.Contains(err.Error(), c.want) || !ok || h.Hint() == "" {
			t.Errorf("%s with %s: got %v, want %q and a hint", c.cert, c.key, err, c.want)
		}
	}
}
