// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/weir-proxy/weir/policy"
)

func TestGateClosesBeforeTheVolumeIsFullAndOpensByItself(t *testing.T) {
	h := newSpoolHarness(t)
	h.so.MinFree = 100 << 20
	h.restart()
	for i, c := range []struct {
		free   int64
		closed bool
	}{{200, false}, {100, false}, {99, true}, {100, true}, {124, true}, {125, false}, {101, false}, {0, true}, {1000, false}} {
		h.vol.free = c.free << 20
		h.pass(time.Second)
		if got := h.spool.Denial() != nil; got != c.closed {
			t.Errorf("%d: with %d MiB free: closed %v, want %v", i, c.free, got, c.closed)
		}
	}
	if d := h.spool.Denial(); d != nil {
		t.Error(d)
	}
	if got := h.metric("weir_usage_gate_closings_total space"); got != 2 {
		t.Errorf("closed %v times, want 2", got)
	}
	h.vol.free = 0
	if d := NewSpool(SpoolOptions{Dir: h.dir, volume: h.so.volume}).Denial(); d == nil || d.Code != policy.CodeUnavailable || d.Status != 503 {
		t.Errorf("a new spool on a full volume: got %v", d)
	}
}

func TestLeastFreeSpaceSuitsTheVolume(t *testing.T) {
	h := newSpoolHarness(t)
	for size, want := range map[int64]int64{64 << 20: 64 << 20 / 20, 1 << 40: DefaultMinFree} {
		h.vol = volume{size: size, free: want}
		h.pass(time.Second)
		if h.spool.Denial() != nil {
			t.Errorf("volume of %d: closed with %d free", size, want)
		}
		h.vol.free--
		h.pass(time.Second)
		if h.spool.Denial() == nil {
			t.Errorf("volume of %d: open with %d free", size, want-1)
		}
		h.vol.free = size
		h.pass(time.Second)
	}
}

func TestGateClosesWhenTooMuchIsUnshippedAndNothingOfItIsDeleted(t *testing.T) {
	h := newSpoolHarness(t)
	h.so.MaxBytes = 20_000
	h.now = time.Now() // by which files have their age
	h.restart()
	h.book.fail = func() fault { return faultRefused }
	n := 0
	for h.spool.Denial() == nil && n < 1000 {
		h.envoys[0].write(lines(n, n+10))
		n += 10
		h.pass(time.Second)
	}
	if size := len(lines(0, n)); size < 20_000 || size > 30_000 {
		t.Errorf("closed at %d bytes, want a little above 20,000", size)
	}
	if h.metric("weir_usage_gate_closed") != 1 || h.metric("weir_usage_gate_closings_total backlog") != 1 {
		t.Error("the metrics do not say so")
	}
	if age := h.metric("weir_usage_oldest_unshipped_seconds"); age <= 0 {
		t.Errorf("the oldest unshipped exchange is %v s old", age)
	}
	h.pass(2 * time.Hour)
	h.book.fail = nil
	h.pass(30 * time.Second)
	if h.spool.Denial() != nil {
		t.Error("closed, though all is shipped")
	}
	h.wantExchanges(0, n)
	if got := h.metric("weir_usage_logs_deleted_total"); got == 0 || got != h.metric("weir_usage_logs_deleted_early_total") {
		t.Errorf("%v logs were deleted, want some, all of them early since there are too many", got)
	}
	if got := h.metric("weir_usage_log_bytes"); got > 20_000 {
		t.Errorf("%v bytes of logs are left, want no more than 20,000", got)
	}
}

func TestWholeLogsGoEarlyWhenTheVolumeGetsFull(t *testing.T) {
	h := newSpoolHarness(t)
	h.so.MinFree = 100 << 20
	h.restart()
	e := h.envoys[0]
	for i := range 4 {
		e.write(lines(20*i, 20*i+20))
		h.pass(2 * time.Second)
	}
	h.pass(30 * time.Second)
	if n := len(h.logs()); n != 5 {
		t.Fatalf("got %v", h.logs())
	}
	h.vol.free = 200<<20 - 1 // a byte short of twice the least: the oldest suffices
	h.pass(2 * time.Second)
	h.vol.free = 200 << 20
	h.pass(20 * time.Second)
	if got := h.metric("weir_usage_logs_deleted_early_total"); got > 1 {
		t.Errorf("%v logs were deleted early, want at most the oldest", got)
	}
	h.vol.free = 150 << 20
	h.pass(20 * time.Second)
	h.wantLogs(ActiveLog)
	if h.spool.Denial() != nil {
		t.Error("the gate is closed")
	}
	h.wantExchanges(0, 80)
}

func TestGateClosesWhenEnvoyCouldNotWriteAndOpensWhenTheVolumeTakesWrites(t *testing.T) {
	h := newSpoolHarness(t)
	e := h.envoys[0]
	e.failures = 7 // before this processor: said, but no reason to refuse anybody
	h.pass(time.Second)
	if h.spool.Denial() != nil {
		t.Fatal("closed for what happened before")
	}
	h.wantSaid("before this processor started")
	e.failures = 9
	h.pass(time.Second)
	if h.spool.Denial() == nil {
		t.Fatal("open")
	}
	if got := h.metric("weir_usage_log_write_failures_total"); got != 2 {
		t.Errorf("got %v failures, want 2", got)
	}
	h.must(os.Mkdir(h.path(probeFile), 0o700)) // nothing can be written there
	h.pass(time.Minute)
	if h.spool.Denial() == nil {
		t.Fatal("open, though nothing can be written")
	}
	h.must(os.Remove(h.path(probeFile)))
	h.pass(6 * time.Second)
	if h.spool.Denial() != nil {
		t.Fatal("closed, though the volume takes writes")
	}
	if _, err := os.Stat(h.path(probeFile)); err == nil {
		t.Error("the probe was left behind")
	}
	e.failures = 0 // an Envoy that was started anew
	h.pass(time.Second)
	if h.spool.Denial() != nil {
		t.Fatal("closed, since an Envoy counts from zero again")
	}
	e.failures = 1 // it failed soon; the gate stays closed for longer
	h.pass(time.Second)
	h.pass(7 * time.Second)
	if h.spool.Denial() == nil {
		t.Error("open after 8 s the second time")
	}
	h.pass(5 * time.Second)
	if h.spool.Denial() != nil {
		t.Error("closed after 13 s the second time")
	}
	if got := h.metric("weir_usage_log_write_failures_total"); got != 3 {
		t.Errorf("got %v failures, want 3", got)
	}
}

func TestStatVolumeTellsOfARealVolume(t *testing.T) {
	v, err := statVolume(t.TempDir())
	if err != nil || v.size <= 0 || v.free < 0 || v.free > v.size {
		t.Errorf("got %+v, %v", v, err)
	}
	if _, err := statVolume(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("no error for a missing folder")
	}
}
