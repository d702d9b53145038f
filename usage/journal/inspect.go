// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Report is what [Inspect] found.
type Report struct {
	Segments []Segment // oldest first
	Open     []Intent  // in the order of their ids, which is that of their admission
	Torn     int64     // bytes of an unfinished write at the end; one may just be under way
	Damage   []*Damage
}

// Segment is a file of the journal.
type Segment struct {
	File    string
	Number  uint64
	Created time.Time // zero when the header is damaged
	Bytes   int64     // that count
	Intents int       // frames: an intent that was moved is in several segments
	Settled int       // frames, of many exchanges each
	Open    int       // intents whose place is here
	Damaged bool
}

// Inspect reads a journal's folder, or one segment, without changing or locking anything. A processor may have it open: then the report is
// of some moment in the meantime. Of a segment alone only that is known as settled which the segment itself says.
func Inspect(path string) (Report, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Report{}, fmt.Errorf("inspect journal: %w", err)
	}
	var r *reading
	if info.IsDir() {
		r, err = readFolder(path)
	} else {
		r, err = readFile(path)
	}
	if err != nil {
		return Report{}, fmt.Errorf("inspect journal: %w", err)
	}
	return r.report()
}

func readFolder(dir string) (*reading, error) {
	var h head
	b, err := os.ReadFile(filepath.Join(dir, headName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return readSegments(newReading(disk{}, dir, math.MaxInt), &h, h.parse(b))
}

// oneFile is a folder with a single file in it.
type oneFile struct {
	disk
	name string
}

func (f oneFile) List(string) ([]string, error) { return []string{f.name}, nil }

func readFile(path string) (*reading, error) {
	name := filepath.Base(path)
	if _, ok := parseName(name); !ok {
		return nil, fmt.Errorf("%s is not the name of a segment, as in %s", name, segmentID{number: 7, nonce: 0x5eed}.name())
	}
	return readSegments(newReading(oneFile{name: name}, filepath.Dir(path), math.MaxInt), &head{}, false)
}

func (r *reading) report() (Report, error) {
	out := Report{Torn: r.torn, Damage: r.damage}
	for _, s := range r.segments {
		if s.obsolete {
			continue
		}
		one := Segment{
			File: s.path, Number: s.number, Created: s.created, Bytes: s.size, Intents: s.frames[kindIntent], Settled: s.frames[kindSettled],
			Damaged: s.damaged,
		}
		b, err := readAll(disk{}, s.path, nil)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted in the meantime
		}
		if err != nil {
			return Report{}, err
		}
		scan(b[:min(int64(len(b)), s.size)], s.sum, func(f frame) {
			if f.kind != kindIntent {
				return
			}
			in, err := parseIntent(f.payload)
			if p, open := r.open[in.Exchange]; err == nil && open && p.segment == uint32(s.number) && int64(p.at) == f.at {
				one.Open++
				out.Open = append(out.Open, in)
			}
		}, func(int64, int64) {})
		out.Segments = append(out.Segments, one)
	}
	slices.SortFunc(out.Open, func(a, b Intent) int { return bytes.Compare(a.Exchange[:], b.Exchange[:]) })
	return out, nil
}
