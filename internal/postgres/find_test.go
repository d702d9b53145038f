// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeInstall writes programs that say they are Postgres of some version.
func fakeInstall(t *testing.T, bin, says string) {
	t.Helper()
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"postgres", "initdb"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\necho '"+name+" "+says+"'\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func realDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestFindPrefersPath(t *testing.T) {
	dir := realDir(t)
	fakeInstall(t, filepath.Join(dir, "opt", "bin"), "(PostgreSQL) 16.4 (Debian 16.4-1)")
	links := filepath.Join(dir, "links")
	if err := os.Mkdir(links, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "opt", "bin", "postgres"), filepath.Join(links, "postgres")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", links+":/usr/bin:/bin")
	got, err := Find(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	want := Install{Bin: filepath.Join(dir, "opt", "bin"), Version: "16.4", Major: 16}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
}

func TestNewestInstallationWins(t *testing.T) {
	dir := realDir(t)
	for version, says := range map[string]string{
		"9": "(PostgreSQL) 9.6.24", "15": "(PostgreSQL) 15.18", "17": "(PostgreSQL) 17.2", "19": "(PostgreSQL) 19beta1", "20": "nothing of the kind",
	} {
		fakeInstall(t, filepath.Join(dir, version, "bin"), says)
	}
	if err := os.Remove(filepath.Join(dir, "19", "bin", "initdb")); err != nil {
		t.Fatal(err)
	}
	got, ok := newest(t.Context(), []string{filepath.Join(dir, "*", "bin"), filepath.Join(dir, "nothing", "*")})
	if !ok || got.Major != 17 {
		t.Errorf("newest = %+v, %t; want 17.2", got, ok)
	}
	if got, ok := newest(t.Context(), []string{filepath.Join(dir, "9", "bin")}); ok {
		t.Errorf("newest = %+v, want none: it is too old", got)
	}
}

func TestInspectSaysWhatIsWrong(t *testing.T) {
	dir := realDir(t)
	fakeInstall(t, filepath.Join(dir, "old"), "(PostgreSQL) 13.1")
	fakeInstall(t, filepath.Join(dir, "other"), "is a text editor")
	fakeInstall(t, filepath.Join(dir, "half"), "(PostgreSQL) 17.1")
	if err := os.Remove(filepath.Join(dir, "half", "initdb")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"old": "Weir needs 14 or newer", "other": "nothing that looks like", "half": "no initdb", "absent": "no such file"} {
		if _, err := inspect(t.Context(), filepath.Join(dir, name)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error = %v, want one that says %q", name, err, want)
		}
	}
}
