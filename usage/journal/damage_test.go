// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
)

// damagedJournal is a journal of several segments in which somebody has been.
type damagedJournal struct {
	m      *memory
	rng    *rand.Rand
	names  []string // of segments, oldest first
	silent bool     // what was done cannot be told from a journal that ended there
}

// wholeJournal returns the disk of a journal that was killed, with the numbers of what is open.
func wholeJournal(t *testing.T) (*memory, map[int]bool) { //nolint:thelper // the case itself, not a helper of it
	m, open := newMemory(), make(map[int]bool)
	synctest.Test(t, func(t *testing.T) {
		j, _, err := Open("j", Options{fs: m, SegmentBytes: 1500})
		if err != nil {
			t.Fatal(err)
		}
		for n := range 60 {
			mustAppend(t, j, n, n+1)
			open[n] = true
			if n%7 == 3 {
				j.Settle(intent(n-3).Exchange, intent(n-1).Exchange)
				delete(open, n-3)
				delete(open, n-1)
			}
			time.Sleep(time.Millisecond) //nolint:forbidigo // the time of a synctest bubble
		}
		time.Sleep(time.Second) //nolint:forbidigo // the time of a synctest bubble
		m = m.kill()
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	})
	return m, open
}

func (d *damagedJournal) pick() (path string, f *memoryFile) {
	i := d.rng.IntN(len(d.names))
	path = filepath.Join("j", d.names[i])
	return path, d.m.files[path]
}

// harm does something to a segment, or to the head.
func (d *damagedJournal) harm() {
	path, f := d.pick()
	newest := filepath.Base(path) == d.names[len(d.names)-1]
	switch d.rng.IntN(8) {
	case 0, 1: // a bit
		f.data[d.rng.IntN(len(f.data))] ^= 1 << d.rng.IntN(8)
	case 2: // cut short
		f.data = f.data[:d.rng.IntN(len(f.data))]
		d.silent = d.silent || newest
	case 3: // a stretch of zeros
		at := d.rng.IntN(len(f.data))
		clear(f.data[at:min(len(f.data), at+1+d.rng.IntN(600))])
	case 4: // copied to another name
		id, _ := parseName(filepath.Base(path))
		id.number += uint64(1 + d.rng.IntN(100))
		if d.rng.IntN(2) == 0 {
			id.nonce = d.rng.Uint64()
		}
		d.m.files[filepath.Join("j", id.name())] = &memoryFile{data: bytes.Clone(f.data)}
	case 5: // deleted
		delete(d.m.files, path)
		d.names = slices.DeleteFunc(d.names, func(n string) bool { return n == filepath.Base(path) })
	case 6: // a stretch taken out, or put in twice
		from := d.rng.IntN(len(f.data))
		to := from + d.rng.IntN(len(f.data)-from)
		if d.rng.IntN(2) == 0 {
			f.data = slices.Delete(f.data, from, to)
			d.silent = d.silent || newest
		} else {
			f.data = slices.Insert(f.data, from, bytes.Clone(f.data[from:to])...)
		}
	case 7: // the head
		if h := d.m.files["j/head"]; h != nil {
			h.data[d.rng.IntN(len(h.data))] ^= 1 << d.rng.IntN(8)
		}
	}
}

func TestDamageIsReportedAndNothingIsMadeUp(t *testing.T) {
	whole, open := wholeJournal(t)
	damaged, torn, of := 0, 0, manySeeds()*15/2
	for seed := range uint64(of) {
		synctest.Test(t, func(t *testing.T) {
			var said bytes.Buffer
			d := &damagedJournal{m: whole.kill(), rng: rand.New(rand.NewPCG(seed, 5))}
			names, _ := d.m.List("j")
			for _, n := range names {
				if strings.HasSuffix(n, segmentSuffix) {
					d.names = append(d.names, n)
				}
			}
			for range 1 + d.rng.IntN(3) {
				if len(d.names) > 0 {
					d.harm()
				}
			}
			harmed := make(map[string][]byte)
			for path, f := range d.m.files {
				harmed[path] = bytes.Clone(f.data)
			}
			j, r, err := Open("j", Options{fs: d.m, ParkAbove: 1 + d.rng.IntN(50), Logger: logger(&said)})
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			defer func() { _ = j.Close() }()
			got := all(j)
			for n, in := range got {
				if in != intent(n) || n >= 60 {
					t.Errorf("seed %d: intent %d is %+v", seed, n, in)
				}
			}
			lost, back := 0, 0
			for n := range 60 {
				if _, is := got[n]; is && !open[n] {
					back++
				} else if !is && open[n] {
					lost++
				}
			}
			if lost+back > 0 && len(r.Damage) == 0 && r.Torn == 0 && !d.silent {
				t.Errorf("seed %d: %d intents are lost and %d came back, and nothing was reported", seed, lost, back)
			}
			if len(r.Damage) > 0 {
				damaged++
			} else if r.Torn > 0 {
				torn++
			}
			for _, one := range r.Damage {
				if kept := d.m.contents(one.Copy); one.Copy != "" && !bytes.Equal(kept, harmed[one.File]) {
					t.Errorf("seed %d: the copy of %s is not what was there", seed, one.File)
				}
			}
			time.Sleep(10 * time.Second) //nolint:forbidigo // the time of a synctest bubble, in which what was damaged is replaced
			if err := j.Close(); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			again, r, err := Open("j", Options{fs: d.m.kill()})
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if len(r.Damage) > 0 || r.Open != len(got) {
				t.Errorf("seed %d: opened once more: %d intents, want %d, %v; the journal said:\n%s", seed, r.Open, len(got), r.Damage, said.String())
			}
			if err := again.Close(); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("%d of %d damaged, %d torn", damaged, of, torn)
	if damaged < of*2/3 {
		t.Errorf("only %d were damaged", damaged)
	}
}

func TestDamagedSegmentIsCopiedAndWhatIsBehindTheDamageIsRead(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{})
	mustAppend(t, j, 0, 10)
	mustClose(t, j)
	path := segments(t, dir)[0]
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[headerSize+intentSize(0, 4)+30] ^= 0x10 // in the fifth
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	j, r, err := Open(dir, Options{Logger: logger(&said)})
	if err != nil || len(r.Damage) != 1 || r.Open != 9 {
		t.Fatalf("got %+v, %v", r, err)
	}
	one := r.Damage[0]
	if one.Offset != int64(headerSize+intentSize(0, 4)) || one.Bytes != int64(intentSize(4, 5)) || one.File != path {
		t.Errorf("got %+v", one)
	}
	if kept, err := os.ReadFile(one.Copy); err != nil || !bytes.Equal(kept, b) {
		t.Errorf("the copy in %s is not what was there: %v", one.Copy, err)
	}
	if !strings.Contains(said.String(), one.Error()) {
		t.Errorf("the damage was not logged:\n%s", said.String())
	}
	want(t, j, append(numbers(0, 4), numbers(5, 10)...)...)
	eventually(t, func() bool { return !slices.Contains(segments(t, dir), path) })
	mustClose(t, j)
	want(t, open(t, dir, Options{}), append(numbers(0, 4), numbers(5, 10)...)...)
}

// eventually waits until something is so.
func eventually(t *testing.T, is func() bool) {
	t.Helper()
	deadline, tick := time.After(10*time.Second), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-deadline:
			t.Fatal("it did not come to be in 10 s")
		case <-tick.C:
		}
	}
}

// intentSize is the length of the frames of intents.
func intentSize(from, to int) (size int) {
	for n := from; n < to; n++ {
		in := intent(n)
		size += in.size()
	}
	return size
}

func TestTornTailIsPassedOver(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{})
	mustAppend(t, j, 0, 5)
	mustClose(t, j)
	path := segments(t, dir)[0]
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range intentSize(4, 5) - 1 {
		b := whole[:len(whole)-cut-1]
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)), b, 0o600); err != nil {
			t.Fatal(err)
		}
		j, r, err := Open(dir, Options{})
		if err != nil || r.Open != 4 || r.Torn != int64(intentSize(4, 5)-cut-1) || r.Damage != nil {
			t.Fatalf("%d bytes are missing: got %+v, %v", cut+1, r, err)
		}
		mustAppend(t, j, 5, 6)
		mustClose(t, j)
		want(t, open(t, dir, Options{}), 0, 1, 2, 3, 5)
	}
}

func TestFilesOfOthersAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"notes.txt", "backup.seg"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	j, r, err := Open(dir, Options{})
	if err != nil || len(r.Damage) != 1 || !strings.Contains(r.Damage[0].Error(), "backup.seg: not a segment's name") {
		t.Fatalf("got %+v, %v", r, err)
	}
	mustClose(t, j)
	for _, name := range []string{"notes.txt", "backup.seg"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != "mine" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

// FuzzScan reads anything as a segment: what it finds must be valid frames and the bytes between them, each byte once.
func FuzzScan(f *testing.F) {
	id := segmentID{number: 3, nonce: 0xFEED}
	b := segmentHeader(id, time.Unix(0, 0))
	b = appendEnd(b, end{2, 99}, id.seed())
	for n := range 3 {
		in := intent(n)
		b = appendIntent(b, &in, id.seed())
	}
	b = appendSettled(b, []uuid.UUID{intent(1).Exchange}, id.seed())
	f.Add(b, uint16(0), []byte{})
	f.Add(b, uint16(80), []byte{0xF7, 0x5A, 1, 0, 0xFF, 0xFF, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte, at uint16, patch []byte) {
		b = bytes.Clone(b)
		copy(b[min(int(at), len(b)):], patch)
		next := int64(min(headerSize, len(b)))
		scan(b, id.seed(), func(fr frame) {
			if fr.at != next || frameSum(b[fr.at:fr.at+fr.size()], id.seed()) != binary.LittleEndian.Uint32(b[fr.at+8:]) {
				t.Fatalf("frame at %d, behind %d", fr.at, next)
			}
			next += fr.size()
		}, func(from, to int64) {
			if from != next || to <= from {
				t.Fatalf("bad bytes from %d to %d, behind %d", from, to, next)
			}
			next = to
		})
		if next != int64(len(b)) {
			t.Fatalf("ended at %d of %d", next, len(b))
		}
		m := newMemory()
		m.files[filepath.Join("j", id.name())] = &memoryFile{data: b}
		r, err := readSegments(newReading(m, "j", math.MaxInt), &head{}, false)
		if err != nil {
			return // of another version
		}
		for exchange, p := range r.open {
			fr, ok := parseFrame(b[p.at:], id.seed())
			if in, err := parseIntent(fr.payload); !ok || err != nil || in.Exchange != exchange {
				t.Fatalf("%s is not at %d: %v", exchange, p.at, err)
			}
		}
		if len(maps.Collect(maps.All(r.ends))) > len(b)/frameHeader {
			t.Fatal(fmt.Sprint("more ends than frames: ", r.ends))
		}
	})
}
