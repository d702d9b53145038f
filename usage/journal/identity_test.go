// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestIdentityStaysWithTheFolder(t *testing.T) {
	dir := t.TempDir()
	first, err := Identity(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Identity(dir)
	if err != nil || again != first {
		t.Errorf("second reading: %v, %v, want %v", again, err, first)
	}
	other, err := Identity(t.TempDir())
	if err != nil || other == first {
		t.Errorf("another folder: %v, %v, want another identity than %v", other, err, first)
	}
	j, _, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	if last, err := Identity(dir); err != nil || last != first {
		t.Errorf("after the journal was used: %v, %v, want %v", last, err, first)
	}
}

func TestDamagedIdentityIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, identityName), []byte("who knows"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Identity(dir); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("error %v, want one that says that it is damaged", err)
	}
}
