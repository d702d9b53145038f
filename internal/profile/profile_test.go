// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// journal is a log that can be waited on.
type journal chan string

func (j journal) Write(b []byte) (int, error) {
	j <- string(b)
	return len(b), nil
}

func (j journal) await(t *testing.T, text string) {
	t.Helper()
	select {
	case line := <-j:
		if !strings.Contains(line, text) {
			t.Fatalf("logged %q, want %q", line, text)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("%q was not logged", text)
	}
}

func TestTwoSignalsMakeOneProfile(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	lines := make(journal, 10)
	go func() { done <- OnSignal(ctx, dir, slog.New(slog.NewTextHandler(lines, nil))) }()

	lines.await(t, "between one SIGUSR1 and the next") // before that, the signal would end this process
	for _, text := range []string{"profile begun", "profile written", "profile begun"} {
		if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		lines.await(t, text)
	}
	cancel() // in the middle of the second
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		r, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%s is no profile: %v", f.Name(), err)
		}
		if n, err := io.Copy(io.Discard, r); err != nil || n == 0 {
			t.Errorf("%s: %d bytes, %v", f.Name(), n, err)
		}
	}
	if got, want := strings.ReplaceAll(strings.Join(names, " "), strconv.Itoa(os.Getpid())+"-1.", ""), "allocs.pprof block.pprof cpu.pprof mutex.pprof"; got != want {
		t.Errorf("got files %s, want %s", got, want)
	}
}

func TestMissingFolderIsAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, file + ".missing"} {
		if err := OnSignal(t.Context(), dir, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "folder for profiles") {
			t.Errorf("%s: got error %v", dir, err)
		}
	}
}
