// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
)

// intent returns the n-th intent of a test.
func intent(n int) Intent {
	return Intent{Exchange: exchange(n), Bytes: int64(n) * 37, Ticket: fmt.Sprintf("ticket-%d-%s", n, strings.Repeat("x", 80+n%60))}
}

func exchange(n int) (id uuid.UUID) {
	binary.BigEndian.PutUint64(id[:], uint64(n)*0x9E3779B97F4A7C15)
	binary.BigEndian.PutUint64(id[8:], uint64(n))
	return id
}

func number(id uuid.UUID) int { return int(binary.BigEndian.Uint64(id[8:])) }

// open opens a journal that is closed at the end of the test, and that had no damage.
func open(t testing.TB, dir string, o Options) *Journal {
	t.Helper()
	j, r, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Damage) > 0 {
		t.Fatalf("damage: %v", r.Damage)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j
}

func mustAppend(t testing.TB, j *Journal, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		if err := j.Append(intent(n)); err != nil {
			t.Fatalf("append %d: %v", n, err)
		}
	}
}

func mustClose(t testing.TB, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

// all returns everything that is open, by number.
func all(j *Journal) map[int]Intent {
	got := make(map[int]Intent)
	for _, in := range j.Quiet(j.opened.Add(1<<62), 1<<30) {
		got[number(in.Exchange)] = in
	}
	return got
}

// want checks that exactly the intents with these numbers are open.
func want(t testing.TB, j *Journal, numbers ...int) {
	t.Helper()
	expect := make(map[int]Intent)
	for _, n := range numbers {
		expect[n] = intent(n)
	}
	if d := cmp.Diff(expect, all(j)); d != "" {
		t.Fatalf("open intents (-want +got):\n%s", d)
	}
	if got := j.Open(); got != len(numbers) {
		t.Fatalf("Open: got %d, want %d", got, len(numbers))
	}
}

func numbers(from, to int) (out []int) {
	for n := from; n < to; n++ {
		out = append(out, n)
	}
	return out
}

// segments returns the paths of the segments in a folder, oldest first.
func segments(t testing.TB, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func TestOpenIntentsAreThereAfterARestart(t *testing.T) {
	for _, d := range []Durability{Async, Fsync} {
		t.Run(string(d), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state", "journal")
			j := open(t, dir, Options{Durability: d})
			mustAppend(t, j, 0, 20)
			if got := j.Settle(intent(3).Exchange, uuid.Max, intent(4).Exchange, intent(3).Exchange); got != 2 {
				t.Errorf("settled %d, want 2", got)
			}
			mustClose(t, j)
			again, r, err := Open(dir, Options{Durability: d})
			if err != nil || r.Open != 18 || r.Segments != 1 || r.Torn != 0 || r.Damage != nil {
				t.Fatalf("got %+v, %v", r, err)
			}
			want(t, again, append(numbers(0, 3), numbers(5, 20)...)...)
			for n := range 20 {
				again.Settle(intent(n).Exchange)
			}
			mustClose(t, again)
			want(t, open(t, dir, Options{}))
		})
	}
}

func TestSecondProcessIsKeptOut(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{})
	if _, _, err := Open(dir, Options{}); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("got %v", err)
	}
	mustClose(t, j)
	open(t, dir, Options{})
}

func TestClosedJournalTakesNothing(t *testing.T) {
	j := open(t, t.TempDir(), Options{})
	mustAppend(t, j, 0, 2)
	mustClose(t, j)
	if err := j.Append(intent(2)); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
	if got := j.Settle(intent(0).Exchange); got != 1 {
		t.Errorf("settled %d", got)
	}
	mustClose(t, j)
}

func TestMalformedIntentsAndOptionsAreRefused(t *testing.T) {
	j := open(t, t.TempDir(), Options{})
	for name, in := range map[string]Intent{
		"no ticket":   {Exchange: uuid.Max},
		"long ticket": {Exchange: uuid.Max, Ticket: strings.Repeat("x", maxTicket+1)},
		"negative":    {Exchange: uuid.Max, Ticket: "x", Bytes: -1},
	} {
		if err := j.Append(in); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	want(t, j)
	if _, _, err := Open(t.TempDir(), Options{Durability: "sometimes"}); err == nil {
		t.Error("an unknown durability was accepted")
	}
}

func TestQuietIntentsAreThoseWithoutASignOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := open(t, "j", Options{fs: newMemory()})
		mustAppend(t, j, 0, 3)
		time.Sleep(time.Minute) //nolint:forbidigo // the time of a synctest bubble
		mustAppend(t, j, 3, 5)
		middle := time.Now()
		time.Sleep(time.Minute) //nolint:forbidigo // the time of a synctest bubble
		if !j.Renew(intent(1).Exchange, time.Time{}) || j.Renew(uuid.Max, time.Time{}) || j.Renew(intent(2).Exchange, middle) {
			t.Error("Renew does not know what is open")
		}
		got := make(map[int]bool)
		for _, in := range j.Quiet(middle, 10) {
			got[number(in.Exchange)] = true
		}
		if d := cmp.Diff(map[int]bool{0: true, 2: true}, got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		if got := len(j.Quiet(time.Now(), 2)); got != 2 {
			t.Errorf("got %d, want the limit of 2", got)
		}
		j.Settle(intent(0).Exchange, intent(2).Exchange)
		if got := j.Quiet(middle, 10); got != nil {
			t.Errorf("got %v", got)
		}
		if got := len(j.Quiet(time.Now(), 10)); got != 2 {
			t.Errorf("got %d, want 2", got)
		}
	})
}

func TestConcurrentAppendsAreAllThere(t *testing.T) {
	for _, d := range []Durability{Async, Fsync} {
		t.Run(string(d), func(t *testing.T) {
			dir := t.TempDir()
			j := open(t, dir, Options{Durability: d, SegmentBytes: 8 << 10})
			var wg sync.WaitGroup
			for w := range 16 {
				wg.Go(func() {
					for n := range 50 {
						if err := j.Append(intent(w*1000 + n)); err != nil {
							t.Error(err)
						}
						if n%5 == 4 {
							j.Settle(intent(w*1000 + n - 2).Exchange)
						}
					}
				})
			}
			wg.Wait()
			var expect []int
			for w := range 16 {
				for n := range 50 {
					if n%5 != 2 {
						expect = append(expect, w*1000+n)
					}
				}
			}
			want(t, j, expect...)
			mustClose(t, j)
			want(t, open(t, dir, Options{}), expect...)
		})
	}
}

func TestSegmentsGoWhenTheirIntentsAreSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		j := open(t, "j", Options{fs: m, SegmentBytes: 4 << 10})
		for n := range 2000 {
			mustAppend(t, j, n, n+1)
			if n >= 10 {
				j.Settle(intent(n - 10).Exchange)
			}
			time.Sleep(time.Millisecond) //nolint:forbidigo // the time of a synctest bubble
		}
		time.Sleep(time.Second) //nolint:forbidigo // the time of a synctest bubble
		want(t, j, numbers(1990, 2000)...)
		names, _ := m.List("j")
		if len(names) > 5 {
			t.Errorf("%d files are left: %v", len(names), names)
		}
		mustClose(t, j)
		want(t, open(t, "j", Options{fs: m}), numbers(1990, 2000)...)
	})
}

func TestAFewLongExchangesDoNotKeepManySegments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		j := open(t, "j", Options{fs: m, SegmentBytes: 4 << 10})
		var long []int
		for n := range 5000 {
			mustAppend(t, j, n, n+1)
			if n%50 == 0 && n < 500 {
				long = append(long, n)
			} else {
				j.Settle(intent(n).Exchange)
			}
			time.Sleep(time.Millisecond) //nolint:forbidigo // the time of a synctest bubble
			if names, _ := m.List("j"); len(names) > 8 {
				t.Fatalf("%d files after %d exchanges", len(names), n)
			}
		}
		want(t, j, long...)
		renewed := time.Now()
		time.Sleep(time.Second) //nolint:forbidigo // the time of a synctest bubble
		j.Renew(intent(50).Exchange, time.Time{})
		if got := len(j.Quiet(renewed, 100)); got != len(long)-1 {
			t.Errorf("%d are quiet, want %d", got, len(long)-1)
		}
		mustClose(t, j)
		want(t, open(t, "j", Options{fs: m}), long...)
	})
}

func TestVersionsThatAreNotKnownAreNotTouched(t *testing.T) {
	dir := t.TempDir()
	mustClose(t, open(t, dir, Options{}))
	id := segmentID{number: 9, nonce: 1}
	b := segmentHeader(id, time.Now())
	binary.LittleEndian.PutUint32(b[8:], formatVersion+1)
	b = binary.LittleEndian.AppendUint32(b[:headerSize-4], checksum(b[:headerSize-4]))
	if err := os.WriteFile(filepath.Join(dir, id.name()), b, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, _, err := Open(dir, Options{}); !errors.Is(err, ErrVersion) {
			t.Fatalf("got %v", err)
		}
	}
}

func TestMetricsTellTheState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, reg := newMemory(), prometheus.NewRegistry()
		j := open(t, "j", Options{fs: m, Registerer: reg})
		mustAppend(t, j, 0, 5)
		j.Settle(intent(0).Exchange)
		m.space = 10
		if err := j.Append(intent(5)); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("got %v", err)
		}
		time.Sleep(time.Second) //nolint:forbidigo // the time of a synctest bubble
		for name, want := range map[string]float64{
			"weir_journal_open_intents": 4, "weir_journal_appends_total": 5, "weir_journal_failures_total{append}": 1,
			"weir_journal_failures_total{sync}": 0, "weir_journal_damage_total": 0, "weir_journal_sync_seconds": 1,
		} {
			if got := metric(t, reg, name); got != want {
				t.Errorf("%s: got %v, want %v", name, got, want)
			}
		}
		if got := metric(t, reg, "weir_journal_bytes"); got < 500 || got > 1500 {
			t.Errorf("weir_journal_bytes: got %v", got)
		}
		m.space = -1
	})
}

// metric returns the value of a gauge or counter, or the count of a histogram; a label's value may stand in braces.
func metric(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			full := f.GetName()
			for _, l := range m.GetLabel() {
				full += "{" + l.GetValue() + "}"
			}
			if full == name {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

func logger(w *bytes.Buffer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

func TestAppendAllocatesNothing(t *testing.T) {
	j := open(t, t.TempDir(), Options{})
	ins := make([]Intent, 20000)
	for n := range ins {
		ins[n] = intent(n)
	}
	n := 0
	allocs := testing.AllocsPerRun(len(ins)-1, func() {
		if err := j.Append(ins[n]); err != nil {
			t.Fatal(err)
		}
		j.Settle(ins[n].Exchange)
		n++
	})
	if allocs > 0 { // AllocsPerRun rounds down: what a segment and a sync cost is spread over thousands
		t.Errorf("got %v allocations for an intent that is appended and settled", allocs)
	}
}

func TestMemoryOfAnOpenIntentIsBounded(t *testing.T) {
	const n = 200_000
	tb := newTable()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range n {
		tb.put(intent(i).Exchange, place{segment: 1, at: uint32(i)})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := float64(after.HeapAlloc-before.HeapAlloc) / n
	open, _ := tb.len()
	t.Logf("%.0f bytes for each of %d open intents", per, open)
	if per > 100 {
		t.Errorf("an open intent takes %.0f bytes of memory", per)
	}
}
