// SPDX-License-Identifier: Apache-2.0

package repo

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// heard is a test that notes whether it was told of an error.
type heard struct {
	testing.TB
	failed bool
}

func (*heard) Helper()                 {}
func (h *heard) Error(...any)          { h.failed = true }
func (h *heard) Errorf(string, ...any) { h.failed = true }

func TestGoldenFilesAreHeldAndRewritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made", "a.txt")
	Golden(t, path, "one\n", true)
	Golden(t, path, "one\n", false)
	h := &heard{TB: t}
	Golden(h, path, "two\n", false)
	if !h.failed {
		t.Error("a file that differs passes")
	}
	Golden(t, path, "two\n", true)
	Golden(t, path, "two\n", false)
}

func TestOrphansAreFoundAndRemoved(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"kept.txt", "gone.txt", "other.md"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pattern := filepath.Join(dir, "*.txt")
	owned := func(path string) bool { return strings.HasSuffix(path, "kept.txt") }
	h := &heard{TB: t}
	if NoOrphans(h, pattern, owned, false); !h.failed {
		t.Error("an orphan passes")
	}
	NoOrphans(t, pattern, owned, true)
	NoOrphans(t, pattern, owned, false)
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("left are %v, %v; want kept.txt and other.md", left, err)
	}
}
