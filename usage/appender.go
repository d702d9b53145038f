// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
)

// SentLog is the file that the processor itself writes to, for Envoys that send their lines. No Envoy has the name that it is of.
const SentLog = "exchanges.grpc.jsonl"

// Appender writes the lines that Envoys send into a log of its own, beside those that Envoys on this machine write: so whatever holds for
// these, from shipping to deletion, holds for what was sent too. To a [Spool] it is one more [LogWriter]. It may be used by many goroutines
// at once; no other process must write to the same file.
type Appender struct {
	dir string
	log *slog.Logger

	mu       sync.Mutex
	file     writeCloser // nil: not open
	rest     []byte      // of lines that were taken, and that the volume did not take
	failures int64
	failing  bool
	closed   bool
	open     func(path string) (writeCloser, error)
}

// writeCloser is a file that is written to.
type writeCloser interface {
	io.Writer
	io.Closer
}

// NewAppender returns an appender for the log in a directory. The file is made with the first lines.
func NewAppender(dir string, log *slog.Logger) *Appender {
	return &Appender{
		dir: dir, log: log,
		open: func(path string) (writeCloser, error) {
			return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		},
	}
}

// Append writes whole lines by one write: all of them or, with an error, none. They outlive this process as soon as Append returns, unless the
// volume took only a part of them: then the rest is kept, and goes before whatever is written next.
func (a *Appender) Append(lines []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	err := a.flushLocked()
	if err == nil {
		var n int
		if n, err = a.file.Write(lines); err != nil && n > 0 {
			a.rest = append(a.rest, lines[n:]...)
			a.failedLocked(err)
			return nil // what comes next is refused, until the volume takes the rest
		}
	}
	if err != nil {
		a.failedLocked(err)
		return fmt.Errorf("append to usage log: %w", err)
	}
	if a.failing {
		a.failing = false
		a.log.Info("usage log is written to again", "path", a.path())
	}
	return nil
}

// flushLocked opens the file, if it is not, and writes what an earlier write left over.
func (a *Appender) flushLocked() error {
	if a.file == nil {
		if err := a.openLocked(); err != nil {
			return err
		}
	}
	for len(a.rest) > 0 {
		n, err := a.file.Write(a.rest)
		a.rest = a.rest[n:]
		if err != nil {
			return err
		}
	}
	a.rest = nil
	return nil
}

func (a *Appender) path() string { return filepath.Join(a.dir, SentLog) }

// openLocked opens the file. A line that a processor left torn when it was killed is ended, so that the next one stands by itself.
func (a *Appender) openLocked() error {
	if a.closed {
		return os.ErrClosed
	}
	torn, err := endsTorn(a.path())
	if err != nil {
		return err
	}
	if a.file, err = a.open(a.path()); err != nil {
		a.file = nil // and not an interface that holds a nil pointer
		return err
	}
	if torn {
		a.rest = []byte{'\n'}
	}
	return nil
}

// endsTorn reports whether a file ends within a line.
func endsTorn(path string) (torn bool, err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return false, err
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], info.Size()-1); err != nil {
		return false, err
	}
	return last[0] != '\n', nil
}

// failedLocked notes that the file could not be opened or written to.
func (a *Appender) failedLocked(err error) {
	a.failures++
	if !a.failing && !a.closed {
		a.failing = true
		a.log.Error("usage log cannot be written to; Envoys keep their lines until it can", "path", a.path(), "err", err)
	}
}

// LogName implements [LogWriter].
func (a *Appender) LogName() string { return SentLog }

// Reopen implements [LogWriter]. Unlike an Envoy, it has done so when it returns.
func (a *Appender) Reopen(context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.flushLocked(); err != nil {
		return fmt.Errorf("finish usage log: %w", err)
	}
	err := a.file.Close()
	a.file = nil
	if err != nil {
		return fmt.Errorf("close usage log: %w", err)
	}
	if err := a.openLocked(); err != nil {
		return fmt.Errorf("open usage log anew: %w", err)
	}
	return nil
}

// WriteFailures implements [LogWriter].
func (a *Appender) WriteFailures(context.Context) (int64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failures, nil
}

// Close closes the file; from then on nothing is taken. The error says so if lines that were taken could not be written: their exchanges become
// unresolved.
func (a *Appender) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || a.file == nil {
		a.closed = true
		return nil
	}
	err := a.flushLocked()
	if err != nil {
		err = fmt.Errorf("%d bytes of lines are lost: %w", len(a.rest), err)
	}
	a.closed = true
	if err = errors.Join(err, a.file.Close()); err != nil {
		return fmt.Errorf("close usage log: %w", err)
	}
	return nil
}
