// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// fakeEnvoy writes a log and keeps it open, as Envoy does, until it is told to open it anew.
type fakeEnvoy struct {
	h        *spoolHarness
	name     string
	file     *os.File
	failures int64
	away     bool // its admin interface does not answer
	idle     bool // it opens its log anew with its next line only
	deaf     bool // it does not open its log anew, though it says so
	told     int
	pending  bool
}

func (e *fakeEnvoy) LogName() string { return e.name }

func (e *fakeEnvoy) Reopen(context.Context) error {
	if e.away {
		return errors.New("connection refused")
	}
	e.told++
	e.pending = !e.deaf
	if e.pending && !e.idle {
		e.reopen()
	}
	return nil
}

func (e *fakeEnvoy) WriteFailures(context.Context) (int64, error) {
	if e.away {
		return 0, errors.New("connection refused")
	}
	return e.failures, nil
}

func (e *fakeEnvoy) reopen() {
	e.close()
	e.open()
	e.pending = false
}

func (e *fakeEnvoy) open() {
	f, err := os.OpenFile(e.h.path(e.name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	e.h.must(err)
	e.file = f
}

func (e *fakeEnvoy) close() {
	if e.file != nil {
		e.h.must(e.file.Close())
		e.file = nil
	}
}

// write writes to whatever file is open, whatever it is called by now.
func (e *fakeEnvoy) write(s string) {
	if e.pending {
		e.reopen()
	}
	_, err := e.file.WriteString(s)
	e.h.must(err)
}

// spoolHarness is a spool and a shipper over one directory, with a clock, a volume and Envoys of the test's.
type spoolHarness struct {
	*harness
	spool    *Spool
	so       SpoolOptions
	envoys   []*fakeEnvoy
	vol      volume
	registry *prometheus.Registry
}

func newSpoolHarness(t *testing.T) *spoolHarness { //nolint:thelper // the case itself, not a helper of it
	h := &spoolHarness{harness: newHarness(t), vol: volume{size: 100 << 30, free: 50 << 30}}
	h.so = SpoolOptions{
		Dir: h.dir, RotateBytes: 2000, Logger: h.o.Logger,
		Writers: func() []LogWriter {
			var out []LogWriter
			for _, e := range h.envoys {
				out = append(out, e)
			}
			return out
		},
		volume: func(string) (volume, error) { return h.vol, nil },
	}
	h.envoy(ActiveLog)
	h.restart()
	t.Cleanup(func() {
		for _, e := range h.envoys {
			e.close()
		}
	})
	return h
}

func (h *spoolHarness) envoy(name string) *fakeEnvoy {
	e := &fakeEnvoy{h: h, name: name}
	e.open()
	h.envoys = append(h.envoys, e)
	return e
}

// restart puts new ones in the place of shipper and spool, as after SIGKILL.
func (h *spoolHarness) restart() {
	h.registry = prometheus.NewRegistry()
	h.so.Registerer, h.o.Registerer = h.registry, h.registry
	h.spool = NewSpool(h.so)
	h.o.Spool = h.spool
	h.harness.restart()
}

// pass lets time pass, in steps of a second or of a tenth of the time, while both work.
func (h *spoolHarness) pass(d time.Duration) {
	h.Helper()
	step := min(max(d/10, time.Second), 15*time.Second)
	for ; d > 0; d -= step {
		h.step(min(step, d))
		h.spool.look(h.Context(), h.now)
	}
}

// logs returns the names of the logs in the directory, with the times in them masked.
func (h *spoolHarness) logs() []string {
	h.Helper()
	entries, err := os.ReadDir(h.dir)
	h.must(err)
	var names []string
	for _, e := range entries {
		name, _ := parseLogName(e.Name())
		if name.rotated {
			at := strings.LastIndexByte(e.Name(), '-')
			names = append(names, name.stem+"-T"+e.Name()[at:])
			continue
		}
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names
}

func (h *spoolHarness) wantLogs(want ...string) {
	h.Helper()
	if d := cmp.Diff(want, h.logs()); d != "" {
		h.Fatalf("logs (-want +got):\n%s", d)
	}
}

func (h *spoolHarness) metric(name string) float64 {
	h.Helper()
	v, ok := gather(h.TB.(*testing.T), h.registry)[name]
	if !ok {
		h.Fatalf("no metric %s", name)
	}
	return v
}

func TestNamesOfLogs(t *testing.T) {
	for name, want := range map[string]*logName{ // nil: no log
		"exchanges.jsonl":                                 {stem: "exchanges", active: true},
		"exchanges.b-2.jsonl":                             {stem: "exchanges.b-2", active: true},
		"exchanges-20261122T163700Z-1.jsonl":              {stem: "exchanges", rotated: true},
		"exchanges.b-2-20261122T163700Z-12.jsonl":         {stem: "exchanges.b-2", rotated: true},
		"exchanges.jsonl.1":                               {stem: "exchanges"},
		"exchanges.jsonl.jsonl":                           {stem: "exchanges"},
		"exchanges-old.jsonl":                             {stem: "exchanges"},
		"exchanges.b.jsonl.1":                             {stem: "exchanges.b"},
		"exchanges-20261122T163700Z-1.jsonl.gz":           nil,
		"exchanges.jsonl.1.zst":                           nil,
		"exchanges":                                       nil,
		"exchanges.jsonlx":                                nil,
		"exchanges.UPPER.jsonl":                           nil,
		"exchanges." + strings.Repeat("x", 33) + ".jsonl": nil,
		"admin.log":                                       nil,
		probeFile:                                         nil,
	} {
		got, ok := parseLogName(name)
		if ok != (want != nil) || ok && got != *want {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, ok, want)
		}
	}
	at := time.Date(2026, 11, 22, 17, 37, 0, 0, time.FixedZone("", 3600))
	n, _ := parseLogName("exchanges.b.jsonl")
	if got, want := n.rotatedTo(at, 3), "exchanges.b-20261122T163700Z-3.jsonl"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if r, ok := parseLogName(n.rotatedTo(at, 3)); !ok || !r.rotated || r.stem != n.stem {
		t.Errorf("a rotated log is read as %+v", r)
	}
}

func TestLogIsRotatedBySizeAndByAgeAndDeletedWhenItsTimeIsOver(t *testing.T) {
	h := newSpoolHarness(t)
	e := h.envoys[0]
	e.write(lines(0, 20)) // more than 2000 bytes
	h.pass(2 * time.Second)
	h.wantLogs("exchanges-T-1.jsonl", ActiveLog)
	e.write(lines(20, 21))
	h.pass(9 * time.Minute)
	h.wantLogs("exchanges-T-1.jsonl", ActiveLog)
	h.pass(2 * time.Minute)
	h.wantLogs("exchanges-T-1.jsonl", "exchanges-T-1.jsonl", ActiveLog)
	h.pass(18 * time.Minute)
	if n := len(h.logs()); n != 3 {
		t.Errorf("a log was deleted before its time: %v", h.logs())
	}
	h.pass(20 * time.Minute)
	h.wantLogs(ActiveLog)
	h.wantExchanges(0, 21)
	if e.told != 2 {
		t.Errorf("envoy was told to open its log anew %d times, want 2", e.told)
	}
	for name, want := range map[string]float64{
		"weir_usage_log_rotations_total": 2, "weir_usage_logs_deleted_total": 2, "weir_usage_logs_deleted_early_total": 0,
		"weir_usage_log_bytes": 0, "weir_usage_unshipped_bytes": 0, "weir_usage_oldest_unshipped_seconds": 0, "weir_usage_gate_closed": 0,
		"weir_usage_log_free_bytes": 50 << 30, "weir_usage_logs": 1, "weir_usage_log_reopens_pending": 0,
	} {
		if got := h.metric(name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

func TestEmptyLogIsNeverRotated(t *testing.T) {
	h := newSpoolHarness(t)
	h.pass(3 * time.Hour)
	h.wantLogs(ActiveLog)
}

func TestLogWithoutAWholeLineIsNotRotated(t *testing.T) {
	h := newSpoolHarness(t)
	h.envoys[0].write(strings.Repeat("x", 3000))
	h.pass(time.Hour)
	h.wantLogs(ActiveLog)
}

func TestLogIsRotatedOnlyOnceUntilEnvoyHasOpenedAnother(t *testing.T) {
	h := newSpoolHarness(t)
	e := h.envoys[0]
	e.deaf = true
	e.write(lines(0, 20))
	h.pass(2 * time.Second)
	h.wantLogs("exchanges-T-1.jsonl")
	for i := range 10 {
		e.write(lines(20+20*i, 40+20*i)) // to the renamed log
		h.pass(time.Minute)
	}
	h.wantLogs("exchanges-T-1.jsonl")
	if e.told < 5 || e.told > 30 {
		t.Errorf("told %d times in ten minutes, want again and again, at growing intervals", e.told)
	}
	if got := h.metric("weir_usage_log_reopens_pending"); got != 1 {
		t.Errorf("%v reopens are pending, want 1", got)
	}
	h.pass(2 * time.Hour) // it is shipped, and still being written to
	h.wantLogs("exchanges-T-1.jsonl")
	e.deaf = false
	h.pass(2 * time.Minute)
	h.wantLogs(ActiveLog) // the database has had the other for hours
	e.write(lines(220, 221))
	h.pass(5 * time.Second)
	h.wantExchanges(0, 221)
}

func TestLogOfAnEnvoyThatDoesNotAnswerIsLeftAloneUnlessItIsGone(t *testing.T) {
	h := newSpoolHarness(t)
	e := h.envoys[0]
	e.away = true
	e.write(lines(0, 20))
	h.pass(time.Hour)
	h.wantLogs(ActiveLog)
	h.wantSaid("its Envoy does not answer on its admin address")
	if heldForWriting(h.path(ActiveLog)) == heldUnknown {
		return // here it cannot be seen that it is gone
	}
	e.close()
	h.envoys = nil
	h.pass(2 * time.Second)
	h.wantLogs("exchanges-T-1.jsonl")
	h.pass(time.Hour)
	h.wantLogs()
	h.wantExchanges(0, 20)
	h.pass(time.Minute)
	if l := h.ship.Logs(); len(l) != 0 {
		t.Errorf("a deleted log of an Envoy that is gone is held open: %+v", l)
	}
}

func TestLogThatIsHeldOpenIsNotDeleted(t *testing.T) {
	for name, c := range map[string]struct {
		held held
		next bool // Envoy has opened another
		want bool // it is deleted
	}{
		"held":                     {heldYes, true, false},
		"free":                     {heldNo, false, true},
		"not known":                {heldUnknown, false, false},
		"not known, next log open": {heldUnknown, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newSpoolHarness(t)
			h.so.held = func(string) held { return c.held }
			h.restart()
			e := h.envoys[0]
			e.idle = !c.next
			e.write(lines(0, 20))
			h.pass(2 * time.Second)
			at := time.Unix(1_000_000, 0) // the clock of the test
			rotated, err := filepath.Glob(h.path("exchanges-*"))
			if err != nil || len(rotated) != 1 {
				t.Fatalf("got %v, %v", rotated, err)
			}
			h.must(os.Chtimes(rotated[0], at, at))
			h.pass(time.Hour)
			if _, err := os.Stat(rotated[0]); (err != nil) != c.want {
				t.Errorf("after an hour: got %v, want deleted: %v", err, c.want)
			}
			h.wantExchanges(0, 20)
		})
	}
}

func TestLogsOfOthersAreNotDeleted(t *testing.T) {
	h := newSpoolHarness(t)
	h.write(ActiveLog+".1", lines(0, 3))
	h.write("exchanges-old.jsonl", lines(3, 6))
	h.vol.free = 0
	h.pass(3 * time.Hour)
	h.wantLogs("exchanges-old.jsonl", ActiveLog, ActiveLog+".1")
	h.wantExchanges(0, 6)
}

func TestEachEnvoyHasItsOwnLogs(t *testing.T) {
	h := newSpoolHarness(t)
	second := h.envoy("exchanges.second.jsonl")
	second.idle = true
	h.envoys[0].write(lines(0, 20))
	second.write(lines(20, 40))
	h.pass(2 * time.Second)
	h.wantLogs("exchanges-T-1.jsonl", "exchanges.jsonl", "exchanges.second-T-1.jsonl")
	h.envoys[0].write(lines(40, 60))
	h.pass(2 * time.Second)
	h.wantLogs("exchanges-T-1.jsonl", "exchanges-T-1.jsonl", "exchanges.jsonl", "exchanges.second-T-1.jsonl")
	second.write(lines(60, 61))
	second.idle = false
	h.pass(time.Hour)
	h.wantExchanges(0, 61)
	h.wantLogs("exchanges.jsonl", "exchanges.second.jsonl")
}

// A standby that took over has not received the last transactions. No new line comes, so that nothing fails.
func TestDatabaseThatForgotRowsGetsThemAgainThoughNoLineComes(t *testing.T) {
	h := newSpoolHarness(t)
	e := h.envoys[0]
	e.write(lines(0, 20))
	h.pass(2 * time.Second)
	e.write(lines(20, 25))
	h.pass(20 * time.Minute)
	for w, rows := range h.book.rows { // of each log only the first two rows are left
		h.book.rows[w], h.book.positions[w] = rows[:2], rows[1].Seq
	}
	h.pass(15 * time.Second)
	h.wantExchanges(0, 25)
	if got := h.metric("weir_usage_logs_set_back_total"); got != 2 {
		t.Errorf("%v logs were set back, want 2", got)
	}
	h.wantSaid("the database has forgotten a part of a usage log")
	h.pass(20 * time.Minute) // the time of the logs has begun again
	if n := len(h.logs()); n != 3 {
		t.Errorf("a log was deleted before its time: %v", h.logs())
	}
	h.pass(15 * time.Minute)
	h.wantLogs(ActiveLog)
}

func TestPositionsAreReadAgainRightAfterAnyFailure(t *testing.T) {
	h := newSpoolHarness(t)
	h.o.CheckInterval = time.Hour
	h.restart()
	e := h.envoys[0]
	e.write(lines(0, 20))
	h.pass(2 * time.Second)
	h.wantExchanges(0, 20)
	h.pass(10 * time.Second) // the first reading
	for w, rows := range h.book.rows {
		h.book.rows[w], h.book.positions[w] = nil, 0
		_ = rows
	}
	e.write(lines(20, 21))
	failed := false
	h.book.fail = func() fault {
		if !failed {
			failed = true
			return faultRefused
		}
		return faultNone
	}
	h.pass(10 * time.Second)
	h.wantExchanges(0, 21)
}

func TestLogIsNotDeletedWhileTheDatabaseDoesNotAnswer(t *testing.T) {
	h := newSpoolHarness(t)
	h.envoys[0].write(lines(0, 20))
	h.pass(29 * time.Minute)
	h.book.fail = func() fault { return faultRefused }
	h.pass(2 * time.Hour)
	h.wantLogs("exchanges-T-1.jsonl", ActiveLog)
	h.book.fail = nil
	h.pass(time.Minute)
	h.wantLogs(ActiveLog)
}

func TestDirectoryThatCannotBeReadChangesNothing(t *testing.T) {
	h := newSpoolHarness(t)
	h.so.Dir = h.path("later")
	h.restart()
	h.pass(5 * time.Second)
	if h.spool.Denial() != nil {
		t.Error("closed")
	}
	h.wantSaid("doing=\"read the directory of the logs\"")
	if n := strings.Count(h.said.String(), "read the directory of the logs"); n != 1 {
		t.Errorf("said %d times, want once", n)
	}
}

func TestSpoolRunsUntilItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSpoolHarness(t)
		h.envoys[0].write(lines(0, 20))
		h.step(0)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.spool.Run(ctx) }()
		<-time.After(3 * time.Second) // of the bubble
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		h.wantLogs("exchanges-T-1.jsonl", ActiveLog)
	})
}

func TestHeldForWritingSeesWritersOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // what was read is read
	if got := heldForWriting(path); got == heldNo {
		t.Error("a file that is open for writing is not held")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := heldForWriting(path); got == heldYes {
		t.Error("a file that is only read is held")
	}
	if got := heldForWriting(path + ".missing"); got != heldUnknown {
		t.Errorf("a missing file: got %v", got)
	}
}

func TestLogsAreAbandonedWhenNobodyHasOneOpen(t *testing.T) {
	h := newSpoolHarness(t)
	want := func(log string, want bool, when string) {
		t.Helper()
		if got := h.spool.Abandoned(log); got != want {
			t.Errorf("%s: %s: got %t", when, log, got)
		}
	}
	a := h.envoys[0]
	b := h.envoy("exchanges.b.jsonl")
	a.deaf = true
	a.write(lines(0, 20))
	h.pass(2 * time.Second)
	h.wantLogs("exchanges-T-1.jsonl", "exchanges.b.jsonl")
	want(ActiveLog, false, "both write")
	b.close()
	want("exchanges.b.jsonl", false, "one writes, to a log that was renamed")
	a.close()
	want(ActiveLog, true, "none writes")
	want("exchanges.b.jsonl", true, "none writes")
	want("exchanges.c.jsonl", false, "it never wrote here") // perhaps it writes elsewhere, and is well
	h.write(SentLog, lines(20, 21))
	want(ActiveLog, false, "others send their lines")
	h.must(os.Remove(h.path(SentLog)))
	h.so.held = func(string) held { return heldUnknown }
	h.restart()
	want(ActiveLog, false, "it cannot be seen")
}
