// SPDX-License-Identifier: Apache-2.0

// Package repo tells tests where things are in a checkout of Weir, and holds files of it to what code makes.
package repo

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// Root returns the folder of the checkout's go.mod.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if b, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil && bytes.HasPrefix(b, []byte("module github.com/weir-proxy/weir\n")) {
			return dir // and not that of a module within it
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("not in a checkout of Weir")
		}
		dir = parent
	}
}

// Cache returns the folder where fetched programs are kept: $WEIR_CACHE, else .weir/cache of the checkout.
func Cache(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("WEIR_CACHE"); dir != "" {
		return dir
	}
	return filepath.Join(Root(t), ".weir", "cache")
}
