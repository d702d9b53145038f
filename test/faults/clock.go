// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/weir-proxy/weir/internal/app"
	"github.com/weir-proxy/weir/internal/cli"
	"github.com/weir-proxy/weir/internal/config"
)

// clock is a clock that can be set, in a file that processes share: the harness sets it, and the processor goes by it. Only the time of day
// is set, as by an administrator or NTP: the monotonic clock, by which Go measures durations, goes on as ever.
type clock struct{ offset *atomic.Int64 }

// openClock opens the clock in a file, which is made if need be. It stays open until the process ends.
func openClock(path string) (*clock, error) {
	const size = 8
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open clock: %w", err)
	}
	err = f.Truncate(size)
	var b []byte
	if err == nil {
		b, err = syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("open clock: %w", err)
	}
	return &clock{(*atomic.Int64)(unsafe.Pointer(&b[0]))}, nil
}

// set sets the clock ahead of the system's, or behind it.
func (c *clock) set(ahead time.Duration) { c.offset.Store(int64(ahead)) }

// now is what the processor takes for time.Now.
func (c *clock) now() time.Time { return stepped(time.Now(), time.Duration(c.offset.Load())) }

// stepped returns the time of a clock that was set ahead by d. [time.Time.Add] would move the monotonic reading as well, and there is no
// way to move one alone but to know where it is kept.
func stepped(t time.Time, d time.Duration) time.Time {
	type layout struct {
		wall uint64
		ext  int64 // the monotonic reading, as long as the year is between 1885 and 2157
		loc  *time.Location
	}
	s := t.Add(d)
	(*layout)(unsafe.Pointer(&s)).ext = (*layout)(unsafe.Pointer(&t)).ext
	return s
}

// serveCommand is the first argument with which the test's program is the processor; the file of the clock follows, and then the arguments of
// weir.
const serveCommand = "faults-weir"

// serve is weir by the clock in a file. It returns the exit status.
func serve(path string, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c, err := openClock(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		return 1
	}
	return cli.Main(ctx, cli.Programs{Serve: func(ctx context.Context, cfg config.Config, log *slog.Logger) error {
		cfg.Clock = c.now
		return app.Serve(ctx, cfg, log)
	}}, args, cli.Streams{Out: os.Stdout, Err: os.Stderr})
}

const day = 24 * time.Hour

// drawStep chooses by how much a clock is set wrong. Ahead it may be by more than rows are kept (see configuration); behind not, or they
// would be old already when they are written.
func drawStep(r *rand.Rand) time.Duration {
	switch r.IntN(4) {
	case 0:
		return between(r, day, 500*day)
	case 1:
		return -between(r, time.Second, 20*day)
	}
	return between(r, -time.Hour, time.Hour)
}

// step returns by how much the clock is to be set for a fault that begins now.
func (f *Fault) step(now time.Time) time.Duration {
	now = now.UTC()
	const before = 500 * time.Millisecond
	switch f.Kind {
	case Midnight:
		return now.Truncate(day).Add(day - before).Sub(now)
	case MonthEnd:
		return time.Date(now.Year(), now.Month()+1, 1, 0, 0, 0, 0, time.UTC).Add(-before).Sub(now)
	}
	return f.Step
}

// setClock begins a fault of the clock.
func (w *world) setClock(f Fault) {
	ahead := f.step(time.Now())
	w.clock.set(ahead)
	w.ahead = append(w.ahead, ahead)
}
