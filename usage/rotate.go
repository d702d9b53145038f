// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	// askTimeout is for one call of an Envoy, which is on this machine and answers at once or not at all.
	askTimeout = time.Second
	// An Envoy that has not opened its log anew is asked again. One that has nothing to write does so with its next line only.
	reopenFirst, reopenMost = time.Second, time.Minute
)

// stem is the logs of one Envoy.
type stem struct {
	active os.FileInfo // as last seen
	born   time.Time   // when it was first seen with something in it
	reopen backoff
}

// ask asks the Envoys how their writing goes, and returns those that answer by the stem of their logs.
func (s *Spool) ask(ctx context.Context, now time.Time) map[string]LogWriter {
	answering := make(map[string]LogWriter)
	for _, w := range s.o.Writers() {
		log := w.LogName()
		name, ok := parseLogName(log)
		if !ok || !name.active {
			s.warn("ask an Envoy of its log", fmt.Errorf("%q is no log", log))
			continue
		}
		one, cancel := context.WithTimeout(ctx, askTimeout)
		n, err := w.WriteFailures(one)
		cancel()
		if err != nil {
			continue // it may be starting; what follows from its silence is said when a log is due
		}
		answering[name.stem] = w
		before, known := s.failures[log]
		s.failures[log] = n
		if n < before { // another Envoy
			before = 0
		}
		switch {
		case !known && n > 0:
			s.log.Warn("a usage log could not be written to before this processor started; exchanges may be missing in it", "log", log, "failures", n)
		case known && n > before:
			s.writesFailed(log, n-before, now)
		}
	}
	return answering
}

// rotate renames the logs that are due, and reminds Envoys that have not opened another yet.
func (s *Spool) rotate(ctx context.Context, now time.Time, d logDir, writers map[string]LogWriter) {
	stems := make(map[string]bool)
	for file := range d.logs {
		name, _ := parseLogName(file)
		stems[name.stem] = true
	}
	waiting := 0
	for key := range stems {
		st := s.stems[key]
		if st == nil {
			st = &stem{}
			s.stems[key] = st
		}
		w := writers[key]
		active := d.logs[key+".jsonl"]
		if active == nil {
			st.active = nil
			if w != nil && d.rotated[key] > 0 {
				waiting++
				s.reopen(ctx, now, st, w)
			}
			continue
		}
		if s.due(st, active, now) {
			s.rename(ctx, now, logName{stem: key, active: true}, w)
		}
	}
	for key := range s.stems {
		if !stems[key] {
			delete(s.stems, key)
		}
	}
	s.metrics.waiting.Set(float64(waiting))
}

// due reports whether the active log is to be rotated, and keeps track of its age. The age of a log that is older than this processor
// counts from its last line: from there on it is idle for certain.
func (s *Spool) due(st *stem, active os.FileInfo, now time.Time) bool {
	if st.active == nil || !os.SameFile(st.active, active) {
		st.born, st.reopen = time.Time{}, backoff{}
	}
	st.active = active
	if active.Size() == 0 {
		return false
	}
	if st.born.IsZero() { // told from now, whose monotonic clock goes on when the time of day is set
		st.born = now.Add(-max(now.Sub(active.ModTime()), 0))
	}
	return active.Size() >= s.o.RotateBytes || now.Sub(st.born) >= s.o.RotateAge
}

// rename rotates one log. Its Envoy must answer, or be gone: renaming it under one that cannot be told would be no harm, but of no use. And
// the shipper must know the log, which it does from its first whole line on.
func (s *Spool) rename(ctx context.Context, now time.Time, name logName, w LogWriter) {
	from := filepath.Join(s.o.Dir, name.stem+".jsonl")
	if !s.identified(from) {
		return
	}
	if w == nil && s.o.held(from) != heldNo {
		s.warn("rotate "+from, errors.New("its Envoy does not answer on its admin address; the log grows until it does"))
		return
	}
	to, err := s.vacant(name, now)
	if err == nil {
		err = os.Rename(from, to)
	}
	s.warn("rotate "+from, err)
	if err != nil {
		return
	}
	s.metrics.rotations.Inc()
	s.log.Info("usage log rotated", "from", from, "to", to)
	if st := s.stems[name.stem]; w != nil {
		st.active = nil
		s.reopen(ctx, now, st, w)
	}
}

func (s *Spool) identified(path string) bool {
	logs, _ := s.known()
	for _, l := range logs {
		if l.Path == path {
			return l.Writer != [16]byte{}
		}
	}
	return false
}

// vacant returns a path for a rotated log that no file has. Only this process makes such names.
func (s *Spool) vacant(name logName, now time.Time) (string, error) {
	for i := 1; ; i++ {
		path := filepath.Join(s.o.Dir, name.rotatedTo(now, i))
		_, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return path, nil
		}
		if err != nil {
			return "", fmt.Errorf("look for a free name: %w", err)
		}
	}
}

// reopen asks an Envoy to open its log anew, unless it was asked a moment ago.
func (s *Spool) reopen(ctx context.Context, now time.Time, st *stem, w LogWriter) {
	if now.Before(st.reopen.at) {
		return
	}
	st.reopen.fail(now, reopenFirst, reopenMost)
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	s.warn("have "+w.LogName()+" opened anew", w.Reopen(ctx))
}
