// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// audit is how a log fares, besides its bytes.
type audit struct {
	at      time.Time // when the book was last asked for its position; zero: it must be asked again
	whole   time.Time // since when the book has had all of it, each time that it was asked; zero: it has not, or was not asked
	deleted bool      // by [Shipper.retire]
	said    string    // the last error that was logged
	warned  int       // bad lines that were logged one by one
}

// check reads the position of a log that has nothing to ship, if that is due. Nothing else would show that the book was set back: a
// transaction that was committed is lost when a standby takes over that had not received it. What the book lost is then shipped again.
// A log that the book has for long enough is deleted: right after that reading, not on the strength of an older one.
func (s *Shipper) check(ctx context.Context, f *logFile, now time.Time) (more bool) {
	if s.draining || f.frozen || f.audit.deleted || now.Before(s.checking.at) || now.Sub(f.audit.at) < s.o.CheckInterval {
		return false
	}
	before := f.batch.From
	if err := s.place(ctx, f); err != nil {
		s.metrics.failures.WithLabelValues(failPosition).Inc()
		wait := s.checking.fail(now, s.o.RetryMin, s.o.RetryMax)
		s.doubt(failPosition)
		s.log.Warn("position of a usage log cannot be read; nothing waits for it", "path", f.path, "retry_in", wait, "err", err)
		return false
	}
	s.checking = backoff{}
	f.audit.at = now
	if f.batch.From != before {
		return true
	}
	size := f.info.Size()
	if f.lag(size) > 0 {
		return false
	}
	if f.audit.whole.IsZero() {
		f.audit.whole = now
	}
	l := Log{Path: f.path, Writer: f.batch.Writer, Size: size, Position: f.batch.From, Gone: f.gone(), Whole: f.audit.whole}
	if s.o.Spool != nil && s.o.Spool.expired(l, now) {
		s.complainOf("usage log cannot be deleted", f.path, s.retire(f))
	}
	return false
}

// doubt has every position read again after a call of the book failed: the next one may be answered by another server.
func (s *Shipper) doubt(reason string) {
	if reason == failRead {
		return
	}
	for _, f := range s.files {
		f.audit.at = time.Time{}
	}
}

// retire deletes a log, unless something was written to it in this moment. It is held open until the directory has been looked at twice
// more; so what is written now all the same is shipped too.
func (s *Shipper) retire(f *logFile) error {
	info, err := f.file.Stat()
	if err != nil {
		return fmt.Errorf("delete log: %w", err)
	}
	at, err := os.Stat(f.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("delete log: %w", err)
	case info.Size() != f.info.Size() || !os.SameFile(info, at):
		return nil
	}
	if err := os.Remove(f.path); err != nil {
		return fmt.Errorf("delete log: %w", err)
	}
	f.audit.deleted = true
	s.metrics.deleted.Inc()
	s.log.Info("usage log deleted; the database has all of it", "path", f.path, "writer", f.batch.Writer, "bytes", info.Size(),
		"since", f.audit.whole)
	return nil
}

// name is what the log's name says.
func (f *logFile) name() logName {
	n, _ := parseLogName(filepath.Base(f.path)) // nothing else is followed
	return n
}

// oldest returns about when the first line behind the position was written; zero without a lag.
func (f *logFile) oldest() time.Time {
	switch {
	case f.lag(f.info.Size()) == 0:
		return time.Time{}
	case len(f.batch.Records) > 0:
		r := &f.batch.Records[0]
		if end := r.Time.Add(r.Duration); end.Before(f.since) {
			return end
		}
		return f.since // the clock was set, perhaps
	case f.pending():
		return f.since
	}
	return f.info.ModTime()
}
