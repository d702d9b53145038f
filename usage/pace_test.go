// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// watched returns a pace whose polls are too far apart to matter to a test.
func watched(t *testing.T, poll time.Duration) (*pace, string) {
	t.Helper()
	dir := t.TempDir()
	s := NewShipper(Options{Dir: dir, Book: newLedger(), Poll: poll})
	p := s.newPace()
	if p.wakeup == nil {
		t.Skip("the kernel tells of no changes in this directory")
	}
	t.Cleanup(func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	})
	return p, dir
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRestEndsWithAChange: whatever is done to a log ends a rest that would last for hours.
func TestRestEndsWithAChange(t *testing.T) {
	p, dir := watched(t, time.Hour)
	path := filepath.Join(dir, ActiveLog)
	for _, change := range []struct {
		name string
		make func() error
	}{
		{"write", func() error { appendTo(t, path, "x"); return nil }},
		{"rename", func() error { return os.Rename(path, path+".1") }},
		{"delete", func() error { return os.Remove(path + ".1") }},
	} {
		if err := change.make(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if err := p.wait(ctx, false, time.Hour); err != nil || ctx.Err() != nil || p.rested {
			t.Errorf("%s: %v, %v", change.name, err, ctx.Err())
		}
		cancel()
	}
}

// TestRestIsNoRestWhenSomethingWaits: then the directory is looked at each Poll, whatever changes.
func TestRestIsNoRestWhenSomethingWaits(t *testing.T) {
	p, dir := watched(t, time.Millisecond)
	appendTo(t, filepath.Join(dir, ActiveLog), "x")
	if err := p.wait(t.Context(), true, 0); err != nil || p.rested || p.wakeup == nil {
		t.Errorf("%v, rested %t", err, p.rested)
	}
}

// TestKernelThatDoesNotTellIsNotReliedOn: a look after a rest that finds something of which nothing is told has the polls come back.
func TestKernelThatDoesNotTellIsNotReliedOn(t *testing.T) {
	p, dir := watched(t, time.Millisecond)
	rest := func(found bool) {
		t.Helper()
		if err := p.wait(t.Context(), found, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	rest(false)
	if !p.rested {
		t.Fatal("it did not rest")
	}
	appendTo(t, filepath.Join(dir, ActiveLog), "x") // in the moment of the look
	rest(true)
	deadline := time.Now().Add(10 * time.Second)
	for p.unsure && time.Now().Before(deadline) { // the kernel tells of it sooner or later
		select {
		case <-p.wakeup.changed:
			p.unsure = false
		default:
		}
	}
	rest(false)
	if p.wakeup == nil {
		t.Fatal("it is not relied on, although it told")
	}
	rest(false)
	rest(true) // of which it did not tell
	rest(false)
	if p.wakeup != nil || p.rested {
		t.Error("it is relied on, although it did not tell")
	}
	rest(true)
}

// TestShipperAtRestIsWokenByALine: with polls of an hour, a line is posted all the same.
func TestShipperAtRestIsWokenByALine(t *testing.T) {
	dir, book := t.TempDir(), telling{newLedger(), make(chan int, 10)}
	s := NewShipper(Options{Dir: dir, Book: book, Poll: time.Hour / restFactor, BatchRows: 1})
	if p := s.newPace(); p.wakeup == nil {
		t.Skip("the kernel tells of no changes in this directory")
	} else if err := p.close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	for i := range 3 {
		appendTo(t, filepath.Join(dir, ActiveLog), string(benchmarkLine())+"\n")
		select {
		case n := <-book.posts:
			if n != 1 {
				t.Errorf("line %d: %d rows", i, n)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("line %d was not posted", i)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// telling is a book that tells of each batch how many rows it has.
type telling struct {
	*ledger
	posts chan int
}

func (c telling) Post(ctx context.Context, b Batch) error {
	err := c.ledger.Post(ctx, b)
	c.posts <- len(b.Records)
	return err
}
