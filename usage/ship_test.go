// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
)

// said checks that the shipper logged something.
func (h *harness) wantSaid(what string) {
	h.Helper()
	if !strings.Contains(h.said.String(), what) {
		h.Errorf("the shipper did not say %q, but:\n%s", what, h.said.String())
	}
}

// writer returns the identity of a log of the directory.
func (h *harness) writer(name string) uuid.UUID {
	h.Helper()
	b, err := os.ReadFile(h.path(name))
	h.must(err)
	first, _, _ := bytes.Cut(b, []byte("\n"))
	return WriterOf(first)
}

func TestBatchWaitsUntilItIsFullOrOldEnough(t *testing.T) {
	h := newHarness(t)
	h.o.BatchRows, h.o.BatchInterval = 10, 250*time.Millisecond
	h.restart()
	h.write(ActiveLog, lines(0, 9))
	h.step(0)
	h.step(200 * time.Millisecond)
	if h.book.posts != 0 {
		t.Fatalf("posted after 200 ms")
	}
	h.step(50 * time.Millisecond)
	h.wantExchanges(0, 9)
	h.write(ActiveLog, lines(9, 29))
	h.step(0)
	h.wantExchanges(0, 19)
	if h.ship.Drained() || !h.ship.step(t.Context(), h.now) || h.book.posts != 3 {
		t.Errorf("a full batch is not followed by the next at once: %d posts", h.book.posts)
	}
	h.wantExchanges(0, 29)
}

func TestBytesOfABatchAreBoundedToo(t *testing.T) {
	h := newHarness(t)
	h.o.BatchBytes = 1000
	h.restart()
	periodic := strings.ReplaceAll(lines(0, 1), logTypeEnd, "DownstreamPeriodic")
	h.write(ActiveLog, strings.Repeat(periodic, 100))
	h.step(0)
	if got := h.book.positions[h.writer(ActiveLog)]; got < 1000 || got > 1000+int64(len(periodic)) {
		t.Errorf("got position %d", got)
	}
	h.settle()
	if got, want := h.book.positions[h.writer(ActiveLog)], int64(100*len(periodic)); got != want {
		t.Errorf("got position %d at the end, want %d", got, want)
	}
	h.wantExchanges(0, 0)
}

func TestPositionBeyondTheLogIsAnErrorAndNothingIsSkipped(t *testing.T) {
	h := newHarness(t)
	h.write(ActiveLog, lines(0, 3))
	writer := h.writer(ActiveLog)
	h.book.positions[writer] = 1 << 20
	for range 20 {
		h.step(10 * time.Second)
	}
	h.wantSaid("position does not fit the log")
	if h.ship.Drained() || h.book.posts != 0 {
		t.Errorf("drained %v after %d posts", h.ship.Drained(), h.book.posts)
	}
	h.book.positions[writer] = 7 // in the middle of a line
	h.step(10 * time.Second)
	h.wantSaid("no line begins at 7")
	h.book.positions[writer] = int64(len(lines(0, 1)))
	h.settle()
	h.wantExchanges(1, 3)
}

func TestOneLogThatCannotBeShippedDoesNotHoldUpTheOthers(t *testing.T) {
	h := newHarness(t)
	h.write(ActiveLog+".1", lines(0, 3))
	h.write(ActiveLog, lines(3, 6))
	h.book.positions[h.writer(ActiveLog+".1")] = 1 << 20
	for range 5 {
		h.step(10 * time.Second)
	}
	h.wantExchanges(3, 6)
}

func TestDatabaseThatWasRolledBackGetsTheRowsAgain(t *testing.T) {
	h := newHarness(t)
	h.write(ActiveLog, lines(0, 4))
	h.settle()
	writer := h.writer(ActiveLog)
	h.book.positions[writer], h.book.rows[writer] = int64(len(lines(0, 2))), h.book.rows[writer][:2]
	h.write(ActiveLog, lines(4, 5))
	h.settle()
	h.wantExchanges(0, 5)
	h.wantSaid("position moved by another writer")
}

func TestLogThatIsOverwrittenIsPostedAsFarAsItWasReadAndThenLeft(t *testing.T) {
	for name, regrown := range map[string]int{"shorter": 4, "longer": 40} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			h.write(ActiveLog, lines(0, 3))
			h.step(0) // read, but not posted
			h.must(os.Truncate(h.path(ActiveLog), 0))
			h.write(ActiveLog, lines(3, regrown))
			h.settle()
			h.wantExchanges(0, regrown)
			h.wantSaid("overwritten in place")
			if n := len(h.ship.Logs()); n != 1 {
				t.Errorf("got %d logs", n)
			}
		})
	}
}

func TestCopyOfALogIsShippedOnlyWhenTheLogIsGone(t *testing.T) {
	h := newHarness(t)
	h.write(ActiveLog, lines(0, 3))
	h.settle()
	h.write(ActiveLog+".copy", lines(0, 3)+lines(3, 5))
	h.settle()
	h.wantExchanges(0, 3)
	if !h.ship.Drained() {
		t.Errorf("a copy counts as lag: %+v", h.ship.Logs())
	}
	// As logrotate's copytruncate does it.
	h.must(os.Truncate(h.path(ActiveLog), 0))
	h.write(ActiveLog, lines(5, 6))
	h.settle()
	h.wantExchanges(0, 6)
}

func TestDeletedLogIsReadUntilEnvoyWritesToAnother(t *testing.T) {
	h := newHarness(t)
	envoy, err := os.Create(h.path(ActiveLog))
	h.must(err)
	write := func(from, to int) {
		_, err := envoy.WriteString(lines(from, to))
		h.must(err)
	}
	write(0, 1)
	h.step(0)
	h.must(os.Remove(h.path(ActiveLog)))
	write(1, 2)
	h.settle()
	write(2, 3)
	h.settle()
	h.wantExchanges(0, 3)
	if l := h.ship.Logs(); len(l) != 1 || !l[0].Gone {
		t.Errorf("got %+v", l)
	}
	write(3, 4)
	_, err = envoy.WriteString(`{"kind":`)
	h.must(err)
	h.must(envoy.Close())
	h.write(ActiveLog, lines(4, 5))
	h.settle()
	h.wantExchanges(0, 5)
	h.wantSaid("the log ends in the middle of it")
	if l := h.ship.Logs(); len(l) != 1 || l[0].Gone {
		t.Errorf("got %+v", l)
	}
}

func TestLinesWithoutRowsAreCounted(t *testing.T) {
	h := newHarness(t)
	registry := prometheus.NewRegistry()
	h.o.Registerer = registry
	var attempts []int
	h.o.OnAttempt = func(a Attempt) { attempts = append(attempts, a.Number) }
	h.restart()
	refused := `{"kind":"exchange","ticket":null,"status":401,"log_type":"DownstreamEnd"}` + "\n"
	forged := `{"kind":"exchange","ticket":"AAAA","status":200}` + "\n"
	overlong := strings.Repeat("x", maxLine+1) + lines(1, 2)
	noUsage := strings.Replace(lines(2, 3), `"usage":`, `"other":`, 1)
	h.write(ActiveLog, lines(0, 1)+refused+attemptLine(1)+forged+"torn"+attemptLine(2)+overlong+noUsage)
	failed := false
	h.book.fail = func() fault {
		if h.book.posts == 1 && !failed {
			failed = true
			h.book.positions[h.writer(ActiveLog)] = int64(len(lines(0, 1))) // another writer: everything behind it is read again
		}
		return faultNone
	}
	h.settle()
	h.wantExchanges(1, 3)
	if d := cmp.Diff([]int{1, 2}, attempts); d != "" {
		t.Errorf("attempts (-want +got):\n%s", d)
	}
	want := map[string]float64{
		"weir_usage_bad_lines_total": 4, "weir_usage_estimated_rows_total": 1, "weir_usage_unadmitted_lines_total": 1,
		"weir_usage_overwritten_logs_total": 0, "weir_usage_unshipped_bytes": 0, "weir_usage_logs_deleted_total": 0, "weir_usage_logs_set_back_total": 0, "weir_usage_logs": 1,
		"weir_usage_rows_total ok": 2, "weir_usage_rows_total client_closed": 0, "weir_usage_rows_total timeout": 0,
		"weir_usage_rows_total upstream_error": 0, "weir_usage_ship_failures_total fenced": 1, "weir_usage_ship_failures_total post": 0,
		"weir_usage_ship_failures_total position": 0, "weir_usage_ship_failures_total read": 0, "weir_usage_ship_failures_total price": 0,
	}
	if d := cmp.Diff(want, gather(t, registry)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// gather returns the counters and gauges of a registry by name and label.
func gather(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			switch {
			case m.GetCounter() != nil:
				values[name] = m.GetCounter().GetValue()
			case m.GetGauge() != nil:
				values[name] = m.GetGauge().GetValue()
			}
		}
	}
	return values
}

func TestDirectoryMayComeLaterAndHoldOtherThings(t *testing.T) {
	h := newHarness(t)
	h.o.Dir = h.path("later")
	h.restart()
	h.step(0)
	h.wantSaid("usage log cannot be followed")
	h.must(os.MkdirAll(h.path("later/exchanges.jsonl.d"), 0o700))
	h.write("later/admin.log", "hello\n")
	h.write("later/"+ActiveLog, lines(0, 2))
	h.settle()
	h.wantExchanges(0, 2)
	h.wantSaid("is not a regular file")
}

func TestRunShipsAndDrainsWhenItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.ship.Run(ctx) }()
		h.write(ActiveLog, lines(0, 10))
		<-time.After(time.Second) // of the bubble
		synctest.Wait()
		h.wantExchanges(0, 10)
		if !h.ship.Drained() {
			t.Error("not drained")
		}
		h.write(ActiveLog, lines(10, 30)+`{"kind":"exch`)
		stop()
		if err := <-done; err != nil {
			t.Errorf("got %v", err)
		}
		h.wantExchanges(0, 30)
	})
}

func TestRunDrainsPastFailuresUntilItsDeadline(t *testing.T) {
	for name, c := range map[string]struct {
		outage time.Duration
		want   string
	}{
		"short outage": {5 * time.Second, ""},
		"long outage":  {time.Hour, "bytes are left"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t)
				began := time.Now()
				h.book.fail = func() fault {
					if time.Since(began) < c.outage {
						return faultRefused
					}
					return faultNone
				}
				h.write(ActiveLog, lines(0, 10))
				ctx, stop := context.WithCancel(t.Context())
				stop()
				err := h.ship.Run(ctx)
				if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
					t.Fatalf("got %v, want %q", err, c.want)
				}
				if took := time.Since(began); took > 11*time.Second {
					t.Errorf("took %v", took)
				}
				if err == nil {
					h.wantExchanges(0, 10)
				}
			})
		})
	}
}

func TestRunNeedsADirectoryAndABook(t *testing.T) {
	if err := NewShipper(Options{Dir: t.TempDir()}).Run(t.Context()); err == nil {
		t.Error("ran without a book")
	}
	if err := NewShipper(Options{Book: newLedger()}).Run(t.Context()); err == nil {
		t.Error("ran without a directory")
	}
}

func TestBackoffGrowsToItsBound(t *testing.T) {
	var b backoff
	now := time.Unix(0, 0)
	for i := range 100 {
		wait := b.fail(now, 100*time.Millisecond, 5*time.Second)
		most := min(5*time.Second, 100*time.Millisecond<<min(i, 20))
		if wait < most/2 || wait > most || !b.at.Equal(now.Add(wait)) {
			t.Fatalf("failure %d: got %v, want %v to %v", i, wait, most/2, most)
		}
	}
}
