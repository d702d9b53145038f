// SPDX-License-Identifier: Apache-2.0

package sdks

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

func TestOnceFillsAFolderOnceForAll(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "deep", "thing-1")
	var filled atomic.Int32
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			got, err := once(root, func(tmp string) error {
				filled.Add(1)
				return os.WriteFile(filepath.Join(tmp, "file"), []byte("x"), 0o600)
			})
			if got != root || err != nil {
				t.Errorf("once = %q, %v; want %q", got, err, root)
			}
			if _, err := os.Stat(filepath.Join(root, "file")); err != nil {
				t.Errorf("the folder was returned before it was whole: %v", err)
			}
		})
	}
	group.Wait()
	if n := filled.Load(); n != 1 {
		t.Errorf("filled %d times, want once", n)
	}
}

func TestOnceLeavesNothingOfAFailure(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "thing")
	broken := errors.New("no network")
	if _, err := once(root, func(string) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("once = %v, want %v", err, broken)
	}
	for _, path := range []string{root, root + ".tmp"} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is there: %v", path, err)
		}
	}
	// What a killed process left behind does not count.
	if err := os.MkdirAll(filepath.Join(root+".tmp", "half"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := once(root, func(tmp string) error { return os.WriteFile(filepath.Join(tmp, "whole"), nil, 0o600) }); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(root)
	if err != nil || len(entries) != 1 || entries[0].Name() != "whole" {
		t.Errorf("the folder holds %v, %v", entries, err)
	}
}

func TestNamesFollowThePins(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pins")
	name := func(contents string) string {
		if err := os.WriteFile(file, []byte(contents), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := named("openai", file)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first, second := name("openai==1.0"), name("openai==1.1")
	if first == second || name("openai==1.0") != first {
		t.Errorf("names %s and %s", first, second)
	}
}

func TestNodeMustBeNewEnough(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]bool{
		"v20.20.2\n": false, "v21.9.0\n": false, "v22.0.0\n": true, "v24.19.0\n": true, "v100.1\n": true, "deno 2\n": false, "": false,
	} {
		if got := newEnough(version); got != want {
			t.Errorf("newEnough(%q) = %t, want %t", version, got, want)
		}
	}
}

func TestEnvironmentWins(t *testing.T) {
	t.Setenv(EnvPython, "/opt/python")
	t.Setenv(EnvPythonSite, "/opt/site")
	t.Setenv(EnvNode, "/opt/node")
	t.Setenv(EnvNodeModules, "/opt/node_modules")
	if program, site := Python(t); program != "/opt/python" || site != "/opt/site" {
		t.Errorf("Python = %s, %s", program, site)
	}
	if program, modules := Node(t); program != "/opt/node" || modules != "/opt/node_modules" {
		t.Errorf("Node = %s, %s", program, modules)
	}
}
