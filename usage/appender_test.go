// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// smallFile takes only so many more bytes.
type smallFile struct {
	writeCloser
	room   *int
	writes *int
}

func (f smallFile) Write(b []byte) (int, error) {
	*f.writes++
	n := min(*f.room, len(b))
	*f.room -= n
	if n > 0 {
		if _, err := f.writeCloser.Write(b[:n]); err != nil {
			return 0, err
		}
	}
	if n < len(b) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

// appending is an appender on a volume with so much room.
type appending struct {
	*Appender
	t            *testing.T
	room, writes int
	log          bytes.Buffer
}

func newAppending(t *testing.T, dir string, room int) *appending {
	t.Helper()
	a := &appending{t: t, room: room}
	a.Appender = NewAppender(dir, slog.New(slog.NewTextHandler(&a.log, nil)))
	open := a.open
	a.open = func(path string) (writeCloser, error) {
		f, err := open(path)
		return smallFile{f, &a.room, &a.writes}, err
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// wantLog compares the whole log.
func (a *appending) wantLog(want string) {
	a.t.Helper()
	got, err := os.ReadFile(a.path())
	if err != nil || string(got) != want {
		a.t.Errorf("the log is %q, %v, want %q", got, err, want)
	}
}

func (a *appending) wantFailures(want int64) {
	a.t.Helper()
	if n, err := a.WriteFailures(a.t.Context()); n != want || err != nil {
		a.t.Errorf("%d failures, %v, want %d", n, err, want)
	}
}

func TestLinesAreAppendedByOneWriteEach(t *testing.T) {
	a := newAppending(t, t.TempDir(), 1<<20)
	if !isLog(a.LogName()) {
		t.Errorf("%s is no log", a.LogName())
	}
	for _, s := range []string{"one\ntwo\n", "three\n"} {
		if err := a.Append([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	a.wantLog("one\ntwo\nthree\n")
	a.wantFailures(0)
	if a.writes != 2 {
		t.Errorf("%d writes, want 2", a.writes)
	}
}

func TestLinesOfManyAreNotMixed(t *testing.T) {
	a := newAppending(t, t.TempDir(), 1<<30)
	var all sync.WaitGroup
	const clients, each = 8, 200
	for c := range clients {
		all.Go(func() {
			line := strings.Repeat(fmt.Sprint(c), 300) + "\n"
			for i := range each {
				if err := a.Append([]byte(line + line)); err != nil {
					t.Error(err)
				}
				if c == 0 && i%20 == 0 {
					if err := os.Rename(a.path(), filepath.Join(a.dir, fmt.Sprintf("exchanges.grpc-20261122T163700Z-%d.jsonl", i))); err != nil {
						t.Error(err)
					}
					if err := a.Reopen(t.Context()); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	files, err := filepath.Glob(filepath.Join(a.dir, "*"))
	if err != nil || len(files) != each/20+1 {
		t.Fatalf("got %d files, %v", len(files), err)
	}
	n := 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			n++
			if line != strings.Repeat(line[:1], 300)+"\n" {
				t.Errorf("%s: %q", f, line)
			}
		}
	}
	if n != 2*clients*each {
		t.Errorf("%d lines, want %d", n, 2*clients*each)
	}
}

func TestLinesAreTakenWholeOrNotAtAll(t *testing.T) {
	a := newAppending(t, t.TempDir(), 6)
	if err := a.Append([]byte("one\ntwo\n")); err != nil {
		t.Errorf("a part was written, and yet: %v", err) // who sent them must not send them again
	}
	a.wantFailures(1)
	for range 3 {
		if err := a.Append([]byte("three\n")); err == nil {
			t.Error("lines were taken for which there is no room")
		}
	}
	a.wantFailures(4)
	if err := a.Reopen(t.Context()); err == nil {
		t.Error("a log was finished in the middle of a line")
	}
	a.wantLog("one\ntw")
	a.room = 1
	if err := a.Append([]byte("three\n")); err == nil {
		t.Error("lines were taken for which there is no room")
	}
	a.wantLog("one\ntwo")
	a.room = 100
	if err := a.Append([]byte("three\n")); err != nil {
		t.Error(err)
	}
	a.wantLog("one\ntwo\nthree\n")
	if said := a.log.String(); strings.Count(said, "cannot be written to") != 1 || !strings.Contains(said, "written to again") {
		t.Errorf("the log says:\n%s", said)
	}
}

func TestLineThatWasTornByAKillStandsByItself(t *testing.T) {
	dir := t.TempDir()
	first := newAppending(t, dir, 5)
	if err := first.Append([]byte("one\ntwo\n")); err != nil {
		t.Fatal(err)
	}
	second := newAppending(t, dir, 100) // the first was killed
	if err := second.Append([]byte("three\n")); err != nil {
		t.Fatal(err)
	}
	second.wantLog("one\nt\nthree\n")
	third := newAppending(t, dir, 100)
	if err := third.Append([]byte("four\n")); err != nil {
		t.Fatal(err)
	}
	third.wantLog("one\nt\nthree\nfour\n")
}

func TestClosedAppenderTakesNothingAndSaysWhatItLost(t *testing.T) {
	a := newAppending(t, t.TempDir(), 5)
	if err := a.Append([]byte("one\ntwo\n")); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err == nil || !strings.Contains(err.Error(), "3 bytes of lines are lost") {
		t.Errorf("got %v", err)
	}
	a.room = 100
	if err := a.Append([]byte("three\n")); err == nil {
		t.Error("it took a line")
	}
	if err := a.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
	a.wantLog("one\nt")
	if err := NewAppender(filepath.Join(t.TempDir(), "missing"), slog.New(slog.DiscardHandler)).Append([]byte("x\n")); err == nil {
		t.Error("it wrote to a folder that is not there")
	}
}

func TestSentLinesAreShippedAndTheirLogsRotatedAndDeleted(t *testing.T) {
	h := newSpoolHarness(t)
	a := NewAppender(h.dir, h.o.Logger)
	h.so.Writers = func() []LogWriter { return []LogWriter{a} }
	h.restart()
	defer func() { h.must(a.Close()) }()
	const n = 40
	for i := range n {
		h.must(a.Append([]byte(lines(i, i+1))))
		h.pass(2 * time.Second)
	}
	h.settle()
	h.wantExchanges(0, n)
	rotated := func() int {
		found, err := filepath.Glob(h.path("exchanges.grpc-*.jsonl"))
		h.must(err)
		return len(found)
	}
	if rotated() < 3 {
		t.Errorf("%d logs were rotated", rotated())
	}
	h.pass(2 * DefaultKeep)
	if rotated() != 0 {
		t.Errorf("%d rotated logs are left", rotated())
	}
	h.must(a.Append([]byte(lines(n, n+1))))
	h.settle()
	h.wantExchanges(0, n+1)
}
