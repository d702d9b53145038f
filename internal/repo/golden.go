// SPDX-License-Identifier: Apache-2.0

package repo

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Golden holds the file at path to got, which code has made. With update it writes the file, and its folder, first.
func Golden(t testing.TB, path, got string, update bool) {
	t.Helper()
	if update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, string(want)); diff != "" {
		t.Errorf("%s: -update rewrites it (-got +want):\n%s", path, diff)
	}
}

// NoOrphans holds the files that match pattern to being owned by some case. With update it removes those that are not.
func NoOrphans(t testing.TB, pattern string, owned func(path string) bool, update bool) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		if owned(path) {
			continue
		}
		if !update {
			t.Errorf("%s belongs to nothing; -update removes it", path)
		} else if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}
