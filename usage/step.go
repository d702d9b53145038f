// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/uuid"
)

// step looks at the directory once and gives every log a turn, in which it may fill and post one batch. It reports whether some log has
// more to do at once.
func (s *Shipper) step(ctx context.Context, now time.Time) (busy bool) {
	s.look()
	taken := make(map[uuid.UUID]bool, len(s.files))
	for _, f := range s.files {
		if now.Before(f.retry.at) {
			taken[f.batch.Writer] = true
			s.ahead(f, now)
			continue
		}
		more, err := s.turn(ctx, f, now, taken)
		if err != nil {
			s.failed(f, now, err)
			s.ahead(f, now)
		}
		s.reclaim(f)
		busy = busy || more
	}
	s.files = slices.DeleteFunc(s.files, s.release)
	s.publish()
	s.noteDrained(now)
	return busy
}

// look brings s.files up to date with the directory.
func (s *Shipper) look() {
	entries, err := os.ReadDir(s.o.Dir)
	s.complain(s.o.Dir, err)
	if s.blind = err != nil; s.blind {
		return // not a reason to believe that logs were deleted
	}
	found := make(map[*logFile]bool, len(s.files))
	clear(s.live)
	for _, e := range entries {
		name, ok := parseLogName(e.Name())
		if !ok {
			continue
		}
		s.live[name.stem] = s.live[name.stem] || name.active
		path := filepath.Join(s.o.Dir, e.Name())
		f, err := s.follow(path)
		s.blind = s.blind || err != nil
		s.complain(path, err)
		if f != nil {
			found[f] = true
		}
	}
	for _, f := range s.files {
		if found[f] || f.frozen {
			continue
		}
		f.missed++
		if info, err := f.file.Stat(); err == nil {
			f.info = info // Envoy writes on until it is told to open its log anew
		}
	}
}

// follow finds the log that is now at path among those that are followed, or begins to follow it. Nil means that there is none, or that it
// vanished in the meantime.
func (s *Shipper) follow(path string) (*logFile, error) {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if f := s.known(info); f != nil {
		f.path, f.info, f.missed = path, info, 0
		over, err := f.overwritten()
		if err != nil || !over {
			return f, err
		}
		s.cutShort(f)
	}
	f, err := openLog(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if known := s.known(f.info); known != nil { // renamed to this path between the two looks
		return known, f.file.Close()
	}
	s.files = append(s.files, f)
	s.stirred = true
	return f, nil
}

func (s *Shipper) known(info os.FileInfo) *logFile {
	for _, f := range s.files {
		if !f.frozen && os.SameFile(f.info, info) {
			return f
		}
	}
	return nil
}

// cutShort gives up a log in whose place another is being written. What was read of it is still posted.
func (s *Shipper) cutShort(f *logFile) {
	f.frozen = true
	s.metrics.overwritten.Inc()
	s.log.Error("usage log was overwritten in place: what stood behind the last read is lost; rotate by renaming",
		"path", f.path, "writer", f.batch.Writer, "read", f.lines.start)
}

// complain logs what is wrong with a path, once until it changes.
func (s *Shipper) complain(path string, err error) {
	s.complainOf("usage log cannot be followed", path, err)
}

func (s *Shipper) complainOf(what, path string, err error) {
	about := what + ": " + path
	switch {
	case err == nil:
		delete(s.warned, about)
	case s.warned[about] != err.Error():
		s.warned[about] = err.Error()
		s.log.Error(what, "path", path, "err", err) //nolint:sloglint // one of a few constants
	}
}

// release lets go of a log that is gone and done with. One that was deleted by somebody is done with once Envoy writes to another. That it
// is missed once proves nothing: it may just be on its way to another name.
func (s *Shipper) release(f *logFile) bool {
	if !f.gone() || f.lag(f.info.Size()) > 0 || !f.frozen && (f.missed < 2 || !f.audit.deleted && !s.live[f.name().stem]) {
		return false
	}
	copied := f.idle && f.batch.Writer != uuid.Nil
	if n := f.info.Size() - f.lines.start; n > 0 && !f.frozen && !copied {
		s.bad(f, f.lines.start, f.lines.start+n, fmt.Errorf("%w: the log ends in the middle of it", ErrLine))
	}
	if err := f.file.Close(); err != nil {
		s.log.Warn("usage log was not closed", "path", f.path, "err", err)
	}
	return true
}

// turn reads on in a log, and posts the batch if it is full or old enough. The logs taken have had their turn already: a copy of one of
// them waits until that one is gone.
func (s *Shipper) turn(ctx context.Context, f *logFile, now time.Time, taken map[uuid.UUID]bool) (more bool, err error) {
	if ok, err := f.identify(); err != nil || !ok {
		return false, err
	}
	if taken[f.batch.Writer] {
		f.idle = true
		s.complain(f.batch.Writer.String(), fmt.Errorf("log %s is in the directory twice", f.batch.Writer))
		return false, nil
	}
	taken[f.batch.Writer] = true
	if !f.placed {
		if err := s.place(ctx, f); err != nil {
			return false, err
		}
	}
	f.early = nil
	full := false
	if !f.frozen {
		if full, err = s.read(f, now); err != nil {
			return false, err
		}
	}
	if !f.pending() {
		return s.check(ctx, f, now), nil
	}
	if !full && !s.draining && !f.gone() && now.Sub(f.since) < s.o.BatchInterval {
		return false, nil
	}
	if err := s.post(ctx, f); err != nil {
		return full, err
	}
	if f.lag(f.info.Size()) == 0 {
		f.audit.whole = now
	}
	return full, nil
}

// failed notes that a turn failed, and when the next one is due.
func (s *Shipper) failed(f *logFile, now time.Time, err error) {
	reason := failRead
	if failure, ok := errors.AsType[*shipError](err); ok {
		reason = failure.reason
	}
	s.metrics.failures.WithLabelValues(reason).Inc()
	s.doubt(reason)
	wait := f.retry.fail(now, s.o.RetryMin, s.o.RetryMax)
	if n := f.retry.failures; n&(n-1) != 0 && f.audit.said == err.Error() {
		return // an outage of hours is told of less and less often
	}
	f.audit.said = err.Error()
	s.log.Error("usage log cannot be shipped; nothing is lost as long as the file stays",
		"path", f.path, "writer", f.batch.Writer, "position", f.batch.From, "rows", len(f.batch.Records),
		"failures", f.retry.failures, "retry_in", wait, "err", err)
}

// shipError is an error with the reason that the metrics count it under.
type shipError struct {
	reason string
	err    error
}

func (e *shipError) Error() string { return e.err.Error() }
func (e *shipError) Unwrap() error { return e.err }

// place asks the book where to go on.
func (s *Shipper) place(ctx context.Context, f *logFile) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.PostTimeout)
	defer cancel()
	pos, err := s.o.Book.Position(ctx, f.batch.Writer)
	if err != nil {
		return &shipError{failPosition, fmt.Errorf("read position: %w", err)}
	}
	if pos == f.batch.To && f.pending() {
		s.metrics.posted(f.batch.Records) // the answer to Post was lost, not the batch
		s.o.Intents.posted(f.batch.Records)
	}
	if before := f.batch.From; pos < before {
		s.metrics.setBack.Inc()
		s.log.Warn("the database has forgotten a part of a usage log; it is shipped again",
			"path", f.path, "writer", f.batch.Writer, "position", pos, "was", before)
	}
	if err := f.place(pos); err != nil {
		if f.frozen {
			f.posted() // cannot be read again; a copy of the log, if there is one, goes on from the position
		}
		return &shipError{failPosition, err}
	}
	return nil
}

// post hands the batch to the book. Whatever goes wrong, the position is asked for before anything else is done with the log.
func (s *Shipper) post(ctx context.Context, f *logFile) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.PostTimeout)
	defer cancel()
	if err := price(ctx, s.o.Pricer, f.batch.Records); err != nil {
		return &shipError{failPrice, fmt.Errorf("price usage: %w", err)}
	}
	began := time.Now() //nolint:forbidigo // the clock is read here, at the edge, and handed on
	err := s.o.Book.Post(ctx, f.batch)
	s.metrics.postSeconds.Observe(time.Since(began).Seconds()) //nolint:forbidigo // the clock is read here, at the edge, and handed on
	switch {
	case err == nil:
		s.metrics.posted(f.batch.Records)
		s.o.Intents.posted(f.batch.Records)
		f.posted()
		f.retry = backoff{}
		return nil
	case errors.Is(err, ErrFenced):
		f.placed = false
		return &shipError{failFenced, fmt.Errorf("post usage: %w", err)}
	default:
		f.placed = false
		return &shipError{failPost, fmt.Errorf("post usage: %w", err)}
	}
}

// read fills the batch from the log. It reports whether the batch is full.
func (s *Shipper) read(f *logFile, now time.Time) (full bool, err error) {
	b := &f.batch
	f.lines.limit = f.info.Size()
	s.lend(f)
	rows, bytes := s.room(f)
	for {
		if len(b.Records) >= rows || b.To-b.From >= bytes {
			return true, nil
		}
		l, ok, err := f.lines.next()
		if err != nil {
			return false, err
		}
		if !ok {
			if l, ok = f.lines.unended(wholeLines); !ok {
				return false, nil
			}
		}
		if !f.pending() {
			f.since = now
		}
		s.stirred = true
		s.line(f, l, now)
		b.To = l.end
		f.seen = max(f.seen, l.end)
	}
}

// line takes in what a physical line tells.
func (s *Shipper) line(f *logFile, l physicalLine, now time.Time) {
	if l.at > l.start {
		s.bad(f, l.start, l.at, fmt.Errorf("%w: longer than %d bytes", ErrLine, maxLine))
	}
	good := func(line *Line, c *counted, at int64) {
		if err := s.take(f, line, c, at, now); err != nil {
			s.bad(f, l.start, at, err)
		}
	}
	var c counted
	if quickLine(l.text, &s.found, &c) {
		good(&s.found, &c, l.end)
		return
	}
	splitLine(l.text, &s.found,
		func(line *Line, end int) {
			at := l.at + int64(end)
			if end == len(l.text) {
				at = l.end
			}
			c.tokens, c.ok = ParseCounts(line.Usage)
			good(line, &c, at)
		},
		func(from, to int, err error) { s.bad(f, l.at+int64(from), l.at+int64(to), err) })
}

// take takes in one line that ends at the offset end, and whose usage says what c does.
func (s *Shipper) take(f *logFile, l *Line, c *counted, end int64, now time.Time) error {
	if l.Kind == KindExchange && !l.Final() {
		if t, err := s.tickets.Read(l.Ticket); err == nil {
			s.o.Intents.alive(t.Exchange)
		}
		return nil
	}
	fresh := end > f.seen
	if l.Kind == KindAttempt {
		return s.attempt(l, fresh, now)
	}
	if l.Ticket == "" {
		if fresh {
			s.metrics.unadmitted.Inc()
		}
		s.o.Intents.undelivered(l.Exchange)
		return nil
	}
	t, err := s.tickets.Read(l.Ticket)
	if err != nil {
		return err
	}
	r := s.record(f)
	r.of(l, c, t, s.guess)
	r.Seq = end
	if fresh {
		s.o.Intents.finished(r)
	}
	return nil
}

// record returns where the record of a line goes: to the batch, unless it is only to be told of.
func (s *Shipper) record(f *logFile) *Record {
	if s.peeking {
		return &s.peeked
	}
	f.batch.Records = append(f.batch.Records, Record{})
	return &f.batch.Records[len(f.batch.Records)-1]
}

// attempt takes in the line of a failed attempt.
func (s *Shipper) attempt(l *Line, fresh bool, now time.Time) error {
	id, err := uuid.Parse(l.Exchange)
	if err != nil {
		return fmt.Errorf("%w: an attempt of no exchange", ErrLine)
	}
	s.o.Intents.alive(id)
	if fresh {
		s.o.OnAttempt(NewAttempt(l, id, now))
	}
	return nil
}

// maxWarnings is how many bad lines of a log are logged one by one; the rest is only counted.
const maxWarnings = 20

// bad reports a piece of a log that is no line.
func (s *Shipper) bad(f *logFile, from, to int64, err error) {
	if to <= f.seen {
		return
	}
	s.metrics.badLines.Inc()
	if f.audit.warned++; f.audit.warned > maxWarnings {
		return
	}
	s.log.Error("usage log holds something else than a line", "path", f.path, "writer", f.batch.Writer,
		"offset", from, "bytes", to-from, "last_warning", f.audit.warned == maxWarnings, "err", err)
}
