// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-proxy/weir/policy"
)

// Defaults of [SpoolOptions].
const (
	// DefaultRotateBytes keeps the number of logs small at any rate of requests (a log a minute at 5,000 a second), and what is freed at
	// once small against any volume.
	DefaultRotateBytes = 256 << 20
	// DefaultRotateAge has a quiet gateway's lines leave the disk too, and bounds what a reader must go through to find a recent one.
	DefaultRotateAge = 10 * time.Minute
	// DefaultKeep is longer than a fail-over of Postgres takes to be noticed and decided, also by people.
	DefaultKeep = 30 * time.Minute
	// DefaultMaxBytes is some twelve million lines: three hours without a database at 1,000 requests a second.
	DefaultMaxBytes = 8 << 30
	// DefaultMinFree is the room that is left for the lines of exchanges that are under way, and for others on the volume. On a small
	// volume it is a twentieth of it.
	DefaultMinFree = 256 << 20
)

// LogWriter is who writes a log: an Envoy, or an [Appender] for Envoys that send their lines.
type LogWriter interface {
	// LogName is the name of the file that it opens, without its directory.
	LogName() string
	// Reopen asks it to close its log and to open it anew. Success says that it was asked, not that it has done so.
	Reopen(ctx context.Context) error
	// WriteFailures returns how often it could not write to or open a log since it started.
	WriteFailures(ctx context.Context) (int64, error)
}

// SpoolOptions say how a [Spool] works. Zero values mean the defaults; only Dir has none.
type SpoolOptions struct {
	Dir     string             // where the logs are
	Writers func() []LogWriter // those that are known at the moment; nil: none

	RotateBytes int64         // a log is rotated when it is so large
	RotateAge   time.Duration // or so old, and not empty
	Keep        time.Duration // how long a log stays after the database was first seen to have all of it
	MaxBytes    int64         // of all logs; shipped ones go early above it, and at so much unshipped the gate closes
	MinFree     int64         // bytes; with less on the volume the gate closes
	Flush       time.Duration // how long Envoys hold back a line; 100 ms

	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil: no metrics
	Clock      func() time.Time      // nil means time.Now

	interval time.Duration // between two looks
	volume   func(dir string) (volume, error)
	held     func(path string) held
}

func (o *SpoolOptions) setDefaults() {
	o.RotateBytes = cmp.Or(o.RotateBytes, DefaultRotateBytes)
	o.RotateAge = cmp.Or(o.RotateAge, DefaultRotateAge)
	o.Keep = cmp.Or(o.Keep, DefaultKeep)
	o.MaxBytes = cmp.Or(o.MaxBytes, DefaultMaxBytes)
	o.Flush = cmp.Or(o.Flush, 100*time.Millisecond)
	o.interval = cmp.Or(o.interval, time.Second)
	o.Clock = clockOr(o.Clock)
	if o.Writers == nil {
		o.Writers = func() []LogWriter { return nil }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.volume == nil {
		o.volume = statVolume
	}
	if o.held == nil {
		o.held = heldForWriting
	}
}

// Spool looks after the logs in a directory, between Envoy, which writes them, and the [Shipper], which reads them. The life of a log:
//
//	written      exchanges.jsonl, by one Envoy
//	renamed      exchanges-TIME-N.jsonl, when it is large or old enough; Envoy goes on writing to it
//	finished     Envoy was told to open its log anew, and no process has this one open for writing
//	whole        the shipper has read in the database that all of it is there
//	deleted      Keep later, after the shipper has read it once more in that moment
//
// A log is renamed only when its Envoy answers, and not again before it has opened another: without an active log there is nothing to
// rename. However long that takes, nothing is lost, since the shipper follows files and not names. When the database forgets rows, as after
// a fail-over to a standby that lagged, the log is no longer whole, and its time begins again once it is.
//
// Nothing that is not in the database is ever deleted. When room gets short, logs that are whole go before their time; when that is not
// enough the [Gate] closes, and requests are refused for which there might be no room in the log. It opens by itself.
type Spool struct {
	o       SpoolOptions
	log     *slog.Logger
	metrics *spoolMetrics
	gate    Gate

	logs   atomic.Pointer[[]Log] // from the shipper
	excess atomic.Int64          // bytes that are to be freed before their time

	stems    map[string]*stem // the rest is owned by Run
	failures map[string]int64 // of each Envoy's log, as last told
	warned   map[string]bool
	room     room
	writes   writeTrouble
}

// NewSpool returns a spool that has looked at the directory once, so that its gate is right from the beginning. Nothing happens to the logs
// until Run is called.
func NewSpool(o SpoolOptions) *Spool {
	o.setDefaults()
	s := &Spool{
		o: o, log: o.Logger.With("dir", o.Dir), metrics: newSpoolMetrics(o.Registerer),
		stems: make(map[string]*stem), failures: make(map[string]int64), warned: make(map[string]bool),
	}
	now := s.o.Clock()
	if d, err := s.scan(); err == nil {
		s.measure(d, now)
	}
	s.decide(now)
	return s
}

// Denial returns how to refuse a billed request for which there might be no room in the log, or nil. It is one atomic load.
func (s *Spool) Denial() *policy.Denial { return s.gate.Denial() }

// Run looks after the logs until ctx ends. Call it once.
func (s *Spool) Run(ctx context.Context) error {
	tick := time.NewTicker(s.o.interval)
	defer tick.Stop()
	for {
		s.look(ctx, s.o.Clock())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look does once what Run does all the time.
func (s *Spool) look(ctx context.Context, now time.Time) {
	d, err := s.scan()
	s.warn("read the directory of the logs", err)
	if err == nil {
		s.measure(d, now)
	}
	s.decide(now) // before the Envoys are asked, which may take its time
	writers := s.ask(ctx, now)
	if err == nil && ctx.Err() == nil {
		s.rotate(ctx, now, d, writers)
	}
	s.decide(now)
}

// warn logs a failure of something that is done again and again, once until it succeeds.
func (s *Spool) warn(what string, err error) {
	if err != nil && !s.warned[what] {
		s.log.Warn("usage logs cannot be looked after", "doing", what, "err", err)
	}
	s.warned[what] = err != nil
}

// logDir is what the directory holds.
type logDir struct {
	logs    map[string]os.FileInfo // by file name
	rotated map[string]int         // logs of each stem that wait to be deleted
}

func (s *Spool) scan() (logDir, error) {
	entries, err := os.ReadDir(s.o.Dir)
	if err != nil {
		return logDir{}, err
	}
	d := logDir{logs: make(map[string]os.FileInfo), rotated: make(map[string]int)}
	for _, e := range entries {
		name, ok := parseLogName(e.Name())
		if !ok {
			continue
		}
		info, err := os.Stat(filepath.Join(s.o.Dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return logDir{}, fmt.Errorf("look at log: %w", err)
		}
		if !info.Mode().IsRegular() {
			continue
		}
		d.logs[e.Name()] = info
		if name.rotated {
			d.rotated[name.stem]++
		}
	}
	return d, nil
}

// known returns what the shipper knows of the logs; ok is false as long as it has not looked.
func (s *Spool) known() (logs []Log, ok bool) {
	if l := s.logs.Load(); l != nil {
		return *l, true
	}
	return nil, false
}

// Abandoned reports whether an Envoy has written the log of that name, and no process has any log of the directory open for writing now:
// all Envoys that wrote here have ended. Where it cannot be seen who has a log open, it is false, and as long as lines of Envoys lie here that send
// them: it cannot be seen whether those live. It may be called from any goroutine.
func (s *Spool) Abandoned(log string) bool {
	of, ok := parseLogName(log)
	d, err := s.scan()
	if !ok || err != nil {
		return false
	}
	sent, _ := parseLogName(SentLog)
	written := false
	for file := range d.logs {
		name, _ := parseLogName(file)
		if name.stem == sent.stem || s.o.held(filepath.Join(s.o.Dir, file)) != heldNo {
			return false
		}
		written = written || name.stem == of.stem
	}
	return written
}

// minQuiet is how long nothing must have been written to a log for it to be finished where it cannot be seen who has it open.
const minQuiet = time.Minute

// expired says that a log may go, all of which the book has just been seen to have. The shipper calls it.
func (s *Spool) expired(l Log, now time.Time) bool {
	name, ok := parseLogName(filepath.Base(l.Path))
	if !ok || !name.rotated || l.Gone {
		return false
	}
	old := now.Sub(l.Whole) >= s.o.Keep
	if !old && s.excess.Load() <= 0 || !s.finished(l.Path, name, now) {
		return false
	}
	if !old {
		s.excess.Add(-l.Size)
		s.metrics.early.Inc()
		s.log.Warn("usage log goes before its time, since room is short; the database has all of it", "path", l.Path, "bytes", l.Size)
	}
	return true
}

// finished reports whether nobody will write to a rotated log any more. Where it cannot be seen who has it open, that is when its Envoy has
// opened the next one, which it does after it has closed this one, and its last flush is long past.
func (s *Spool) finished(path string, name logName, now time.Time) bool {
	switch s.o.held(path) {
	case heldNo:
		return true
	case heldYes:
		return false
	}
	if _, err := os.Stat(filepath.Join(s.o.Dir, name.stem+".jsonl")); err != nil {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && now.Sub(info.ModTime()) >= max(2*s.o.Flush, minQuiet)
}
