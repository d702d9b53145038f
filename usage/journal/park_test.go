// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

// timed returns the n-th intent of a test whose ids grow with the time of admission, as those of version 7 do.
func timed(n int) Intent {
	in := intent(n)
	in.Exchange = timedID(n)
	return in
}

func timedID(n int) (id uuid.UUID) {
	binary.BigEndian.PutUint64(id[:], uint64(n))
	return id
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// heap returns the bytes that are alive, without what the journal just reads a segment into: the least of some looks.
func heap() int64 {
	least := int64(math.MaxInt64)
	for range 5 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		least = min(least, int64(m.HeapAlloc))
	}
	return least
}

// inMemory returns how many open or held intents are in the table.
func inMemory(j *Journal) int {
	j.table.mu.Lock()
	defer j.table.mu.Unlock()
	return len(j.table.open)
}

// hasOld reports whether there are segments of an earlier process.
func (j *Journal) hasOld() bool {
	j.io.Lock()
	defer j.io.Unlock()
	return slices.ContainsFunc(j.w.segments, func(s *segment) bool { return s.old })
}

// parkedSoon waits until no more than so many are in memory, and all is on the disk.
func parkedSoon(t testing.TB, j *Journal, most int) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	unsynced := func() bool {
		j.io.Lock()
		defer j.io.Unlock()
		return len(j.w.tail) > 0
	}
	for inMemory(j) > most || unsynced() {
		if time.Now().After(deadline) {
			t.Fatalf("%d intents are in memory, %d are parked", inMemory(j), j.Parked())
		}
		runtime.Gosched()
	}
}

func TestMemoryDoesNotGrowWithWhatWaitsForTheBooks(t *testing.T) {
	first, second := 300_000, 600_000
	if testing.Short() {
		first, second = 100_000, 200_000
	}
	dir := t.TempDir()
	j := open(t, dir, Options{})
	j.Park(true)
	at := make(map[int]int64)
	for n := range second {
		if err := j.Append(timed(n)); err != nil {
			t.Fatal(err)
		}
		if (n+1)%DefaultParkAbove == 0 { // a map does not shrink: what comes faster than it can be parked is for it to keep
			parkedSoon(t, j, 2*DefaultParkAbove+5)
		}
		if n+1 == first || n+1 == second {
			at[n+1] = heap()
			t.Logf("%d open: %d in memory, %d KiB alive", n+1, inMemory(j), at[n+1]>>10)
		}
	}
	if grown := at[second] - at[first]; grown > 3<<20 {
		t.Errorf("memory grew by %d bytes from %d to %d open intents", grown, first, second)
	}
	if got := j.Open(); got != second {
		t.Errorf("%d are open", got)
	}
	mustClose(t, j)
	before := heap()
	j, r, err := Open(dir, Options{})
	if err != nil || r.Open != second {
		t.Fatal(r, err)
	}
	most := 0
	for deadline := time.Now().Add(time.Minute); j.hasOld(); { // what an earlier process wrote is written again
		if most = max(most, inMemory(j)); time.Now().After(deadline) {
			t.Fatal("old segments stay")
		}
		runtime.Gosched()
	}
	t.Logf("opened again: %d in memory at most", most)
	if grown := heap() - before; most > 4*DefaultParkAbove || grown > 15<<20 {
		t.Errorf("a journal of %d open intents has up to %d in memory and takes %d bytes when it is opened", second, most, grown)
	}
	left := 0
	j.Each(func(Intent) { left++ })
	if left != second {
		t.Errorf("%d of %d are handed out", left, second)
	}
	ids, began := make([]uuid.UUID, 0, 50_000), cpuTime()
	for n := range second {
		if ids = append(ids, timed(n).Exchange); len(ids) == cap(ids) {
			if got := j.Settle(ids...); got != len(ids) {
				t.Fatalf("settled %d of %d", got, len(ids))
			}
			ids = ids[:0]
		}
	}
	t.Logf("settling took %v of CPU", cpuTime()-began)
	wantCounts(t, j, 0, 0)
	j.Park(false)
	mustClose(t, j)
}

// parkedJournal is one of several segments with most of its 60 intents parked.
func parkedJournal(t *testing.T, o Options) *Journal {
	t.Helper()
	o.SegmentBytes, o.ParkAbove = 1500, 10
	j, _, err := Open("j", o)
	if err != nil {
		t.Fatal(err)
	}
	j.Park(true)
	for n := range 60 {
		if err := j.Append(timed(n)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) //nolint:forbidigo // the time of a synctest bubble
	}
	synctest.Wait()
	if in, out := inMemory(j), j.Parked(); in > 20 || in+out != 60 {
		t.Fatalf("%d are in memory, %d are parked", in, out)
	}
	return j
}

func TestParkedIntentsAreSettledToldOnceAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		j := parkedJournal(t, Options{fs: m})
		ids := []uuid.UUID{timed(59).Exchange, timed(3).Exchange, uuid.Max, timed(40).Exchange, timed(3).Exchange, timed(0).Exchange}
		want := []uuid.UUID{timed(59).Exchange, timed(3).Exchange, timed(40).Exchange, timed(0).Exchange}
		if d := cmp.Diff(j.SettleFirst(nil, ids), want); d != "" {
			t.Errorf("(-got +want):\n%s", d)
		}
		if got := j.SettleFirst(nil, ids); got != nil {
			t.Errorf("settled once more: %v", got)
		}
		wantCounts(t, j, 56, 0)
		j.Park(false)
		time.Sleep(time.Second) //nolint:forbidigo // the time of a synctest bubble
		if got := j.Parked(); got != 0 {
			t.Errorf("%d are parked", got)
		}
		wantCounts(t, j, 56, 0)
		for n := range 60 {
			j.Settle(timed(n).Exchange)
		}
		wantCounts(t, j, 0, 0)
		time.Sleep(time.Second) //nolint:forbidigo // the time of a synctest bubble
		if names, _ := m.List("j"); len(names) > 3 {
			t.Errorf("files are left: %v", names)
		}
		mustClose(t, j)
	})
}

func TestQuietBringsBackWhatIsParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := parkedJournal(t, Options{fs: newMemory()})
		middle := time.Now()
		time.Sleep(time.Minute) //nolint:forbidigo // the time of a synctest bubble
		if !j.Renew(timed(2).Exchange, time.Time{}) || j.Renew(timed(2).Exchange, time.Now().Add(time.Hour)) || j.Renew(uuid.Max, time.Time{}) {
			t.Error("Renew does not know what is parked")
		}
		got := make(map[uuid.UUID]bool)
		for _, in := range j.Quiet(middle, 100) {
			got[in.Exchange] = true
		}
		if got[timed(2).Exchange] || !got[timed(30).Exchange] || len(got) < 40 {
			t.Errorf("%d are quiet, with what was renewed: %v", len(got), got[timed(2).Exchange])
		}
		if got := len(j.Quiet(time.Now().Add(time.Hour), 100)); got != 60 {
			t.Errorf("%d are open", got)
		}
		if first := j.Hold(timed(0).Exchange); len(first) != 1 {
			t.Errorf("held %v", first)
		}
		time.Sleep(time.Second) //nolint:forbidigo // the time of a synctest bubble
		wantCounts(t, j, 59, 1)
		mustClose(t, j)
	})
}

// failReads lets the segments be read or not.
func failReads(m *memory, fail bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = func(call, path string) error {
		if fail && call == "read" && filepath.Ext(path) == segmentSuffix {
			return syscall.EIO
		}
		return nil
	}
}

func TestParkedIntentsAreSettledThoughTheDiskCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		j := parkedJournal(t, Options{fs: m})
		failReads(m, true)
		if got := j.Settle(timed(0).Exchange, timed(20).Exchange); got != 2 {
			t.Errorf("settled %d", got)
		}
		if got := j.Settle(timed(0).Exchange); got != 0 {
			t.Errorf("settled %d again", got)
		}
		j.Park(false)
		time.Sleep(time.Minute) //nolint:forbidigo // the time of a synctest bubble
		failReads(m, false)
		var got []int
		j.Each(func(in Intent) { got = append(got, timedNumber(in)) })
		slices.Sort(got)
		if want := append(numbers(1, 20), numbers(21, 60)...); !slices.Equal(got, want) {
			t.Errorf("open: %v", got)
		}
		left := m.kill()
		wantCounts(t, j, 58, 0)
		mustClose(t, j)
		again := open(t, "j", Options{fs: left, ParkAbove: 5})
		wantCounts(t, again, 58, 0)
	})
}

func timedNumber(in Intent) int {
	return int(binary.BigEndian.Uint64(in.Exchange[:]))
}

func TestParkedIntentsWhoseFramesAreDamagedAreLostAndTheOthersAreNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		j := parkedJournal(t, Options{fs: m})
		path := filepath.Join("j", mustList(m)[0])
		m.mu.Lock()
		m.files[path].data[headerSize+40]++
		m.mu.Unlock()
		if got := j.Settle(timed(1).Exchange); got != 1 {
			t.Errorf("settled %d", got)
		}
		wantCounts(t, j, 58, 0)
		mustClose(t, j)
	})
}

func mustList(m *memory) []string {
	names, _ := m.List("j")
	slices.Sort(names)
	return names
}

func TestCopyOfAParkedIntentIsNotOpenTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		j := parkedJournal(t, Options{fs: m})
		// A crash while the oldest segment is being emptied: it cannot be deleted.
		m.mu.Lock()
		m.fail = func(call, _ string) error {
			if call == "remove" {
				return syscall.EIO
			}
			return nil
		}
		m.mu.Unlock()
		left := m.kill()
		mustClose(t, j)
		left.fail = m.fail
		again, r, err := Open("j", Options{fs: left, SegmentBytes: 1500, ParkAbove: 10})
		if err != nil || r.Open != 60 {
			t.Fatal(r, err)
		}
		time.Sleep(10 * time.Millisecond) //nolint:forbidigo // the time of a synctest bubble
		crashed := left.kill()
		mustClose(t, again)
		third, r, err := Open("j", Options{fs: crashed, SegmentBytes: 1500, ParkAbove: 10})
		if err != nil || r.Open != 60 {
			t.Fatal(r, err)
		}
		for n := range 60 {
			if got := third.Settle(timed(n).Exchange); got != 1 {
				t.Errorf("settled %d: %d", n, got)
			}
		}
		wantCounts(t, third, 0, 0)
		mustClose(t, third)
	})
}

func TestSegmentScannedInPartsHasTheSameFramesAsTheWhole(t *testing.T) {
	id := segmentID{number: 3, nonce: 0xFEED}
	rng := rand.New(rand.NewPCG(1, 1))
	for round := range 20 {
		b := segmentHeader(id, time.Unix(0, 0))
		for n := 0; len(b) < 3*scanChunk; n++ {
			in := intent(n)
			if rng.IntN(20) == 0 {
				in.Ticket = strings.Repeat("\xf7\x5a", 1+rng.IntN(maxTicket/2))
			}
			b = appendIntent(b, &in, id.seed())
			if rng.IntN(100) == 0 {
				b = appendSettled(b, make([]uuid.UUID, 1+rng.IntN(maxSettled)), id.seed())
			}
		}
		for range round {
			from := rng.IntN(len(b))
			for i := range min(rng.IntN(200_000), len(b)-from) {
				b[from+i] = []byte{0xF7, 0x5A, 0, byte(i)}[rng.IntN(4)]
			}
		}
		type at struct {
			offset int64
			sum    uint32
		}
		var want, got []at
		scan(b, id.seed(), func(f frame) { want = append(want, at{f.at, checksum(f.payload)}) }, func(int64, int64) {})
		m := newMemory()
		m.files["s"] = &memoryFile{data: b}
		s := &segment{segmentID: id, sum: id.seed(), path: "s", size: int64(len(b))}
		if _, err := scanFile(m, s, nil, func(f frame) { got = append(got, at{f.at, checksum(f.payload)}) }); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("round %d: %d frames, want %d", round, len(got), len(want))
		}
	}
}
