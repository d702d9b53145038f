// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Damage is a part of the journal that is not as it was written. It is an error, but not one that keeps a journal from being opened.
type Damage struct {
	File   string // the segment, or the head
	Offset int64  // of the first bad byte
	Bytes  int64  // how many are bad or missing; -1 when that is not known. The intents that were in them are lost
	Reason string
	Copy   string // in quarantine; empty when there is none
}

// Error implements error.
func (d *Damage) Error() string {
	s := d.File + ": " + d.Reason
	if d.Bytes >= 0 {
		s = fmt.Sprintf("%s: %d bytes at %d", s, d.Bytes, d.Offset)
	}
	return s
}

// Recovered is what [Open] found.
type Recovered struct {
	Open     int       // intents that are open; their lives begin anew
	Segments int       // files that were read
	Torn     int64     // bytes of a write that the process or the machine did not live to finish, passed over
	Damage   []*Damage // everything else that was bad; also logged, one by one
}

// QuarantineDir is the folder within the journal's that copies of damaged segments are kept in.
const QuarantineDir = "quarantine"

// Open opens the journal in a folder, which is made if need be, and recovers what is open. The error wraps [ErrLocked] when another process
// has it open, and [ErrVersion] when a newer version of Weir wrote it. Damage is no error; neither is a disk that is full: then Append fails
// until it is not.
func Open(dir string, o Options) (*Journal, Recovered, error) {
	if err := o.setDefaults(); err != nil {
		return nil, Recovered{}, err
	}
	lock, err := o.fs.Lock(dir)
	if err != nil {
		return nil, Recovered{}, fmt.Errorf("lock journal: %w", err)
	}
	j := &Journal{
		o: o, dir: dir, log: o.Logger, metrics: newMetrics(o.Registerer), opened: time.Now(), lock: lock, table: newTable(), //nolint:forbidigo // the clock is read here, at the edge, and handed on
		background: newBackground(),
	}
	j.synced.cond = sync.NewCond(&j.synced.mu)
	r, err := j.recover()
	if err != nil {
		return nil, Recovered{}, errors.Join(fmt.Errorf("recover journal: %w", err), j.head.close(), lock.Close())
	}
	for _, d := range r.Damage {
		j.metrics.damage.Inc()
		j.log.Error("journal is damaged: the intents in there are lost", "damage", d.Error(), "copy", d.Copy)
	}
	j.table.mu.Lock()
	j.countLocked()
	j.table.mu.Unlock()
	j.wakeUp() // there may be something to tidy up
	go j.run()
	return j, r, nil
}

// recover fills the table from the segments and begins a new one.
func (j *Journal) recover() (Recovered, error) {
	known, size, err := j.head.open(j.o.fs, j.dir)
	if err != nil {
		return Recovered{}, fmt.Errorf("open head: %w", err)
	}
	rd, err := readSegments(newReading(j.o.fs, j.dir, j.o.ParkAbove), &j.head, known)
	if err != nil {
		return Recovered{}, err
	}
	if !known && size == headSize { // a shorter one was never finished
		rd.damage = append(rd.damage, &Damage{File: filepath.Join(j.dir, headName), Bytes: int64(size), Reason: "the head is damaged"})
	}
	w := &j.w
	w.next = max(rd.newest+1, j.head.newest+1, j.head.oldest)
	for _, s := range rd.segments {
		if s.damaged {
			s.keep = !j.quarantine(s, rd.damage)
		}
		if s.obsolete || s.empty() {
			if s.keep {
				continue
			}
			if err := j.o.fs.Remove(s.path); err != nil {
				j.log.Warn("journal segment cannot be deleted", "segment", s.path, "err", err)
			}
			continue
		}
		s.old = true
		w.segments = append(w.segments, &s.segment)
		if length, ended := rd.ends[s.number]; !ended || s.size < length {
			w.ends = append(w.ends, end{s.number, s.size}) // what is missing now need not be reported again
		}
	}
	for _, number := range rd.gone {
		w.ends = append(w.ends, end{number, 0})
	}
	for id, p := range rd.open {
		j.table.put(id, p)
	}
	for number, p := range rd.parked {
		j.table.putParked(number, p)
		j.parking.on.Store(true)
	}
	if _, err := j.roomLocked(0); err != nil {
		j.w.refusing = true
		j.log.Error("journal refuses intents, and so requests, until the disk is well", "err", err)
	}
	return Recovered{Open: len(rd.open) + j.table.resting, Segments: len(rd.segments), Torn: rd.torn, Damage: rd.damage}, nil
}

// quarantine copies a damaged segment, unless that was done by an earlier recovery.
func (j *Journal) quarantine(s *readSegment, damage []*Damage) bool {
	path := filepath.Join(j.dir, QuarantineDir, filepath.Base(s.path))
	b, err := readAll(j.o.fs, s.path, nil)
	if err == nil {
		err = j.writeCopy(path, b)
	}
	if err != nil {
		j.log.Error("damaged journal segment cannot be copied, and is kept", "segment", s.path, "err", err)
		return false
	}
	for _, d := range damage {
		if d.File == s.path {
			d.Copy = path
		}
	}
	return true
}

func (j *Journal) writeCopy(path string, b []byte) error {
	f, err := j.o.fs.Open(path, newFile)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, j.o.fs.Remove(path))
	}
	return nil
}

// readSegment is a segment as recovery sees it.
type readSegment struct {
	segment
	created  time.Time
	damaged  bool
	ended    bool // a newer segment says where it ends
	obsolete bool // left over by a crash while it was deleted
	parked   bool // what is open in it is not in reading.open
	frames   [4]int
}

// empty reports whether there is nothing in the file: it was never begun, or it is not what its name says.
func (s *readSegment) empty() bool { return s.created.IsZero() && s.frames == [len(s.frames)]int{} }

// reading is what recovery gathers, from the newest segment to the oldest.
type reading struct {
	disk     fileSystem
	dir      string
	keep     int            // when so many are open in the newer segments, those of older ones are parked
	segments []*readSegment // oldest first
	open     map[uuid.UUID]place
	parked   map[uint32]*parked // by segment
	settled  map[uuid.UUID]struct{}
	ends     map[uint64]int64
	gone     []uint64 // segments that must have been there
	newest   uint64   // number of a segment that there is, or was
	began    bool     // a segment was read; those that come now are older
	torn     int64
	damage   []*Damage
	buf      []byte // the segment that is being read
}

// readSegments reads a folder. What is before h.oldest does not count, if h is known.
func readSegments(r *reading, h *head, known bool) (*reading, error) {
	names, err := r.disk.List(r.dir)
	if err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	for _, name := range names {
		id, ok := parseName(name)
		path := filepath.Join(r.dir, name)
		switch {
		case ok:
			r.segments = append(r.segments, &readSegment{segment: segment{segmentID: id, sum: id.seed(), path: path}})
		case strings.HasSuffix(name, segmentSuffix):
			r.damage = append(r.damage, &Damage{File: path, Bytes: -1, Reason: "not a segment's name; it is left alone"})
		}
	}
	slices.SortFunc(r.segments, func(a, b *readSegment) int {
		return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.nonce, b.nonce))
	})
	for _, s := range slices.Backward(r.segments) {
		r.newest = max(r.newest, s.number)
		if s.obsolete = known && s.number < h.oldest; s.obsolete {
			continue
		}
		if err := r.read(s); err != nil {
			return nil, err
		}
	}
	r.park()
	r.missing(h, known)
	return r, nil
}

// read takes in a segment.
func (r *reading) read(s *readSegment) error {
	length, ended := r.ends[s.number]
	if s.ended = ended; ended && length == 0 {
		return nil
	}
	b, err := readAll(r.disk, s.path, r.buf)
	r.buf = b
	if errors.Is(err, os.ErrNotExist) { // deleted while it is being inspected
		s.obsolete = true
		return nil
	}
	if err != nil { // what was read of it counts
		r.bad(s, int64(len(b)), -1, "it cannot be read: "+err.Error())
	}
	id, created, headerErr := parseHeader(b)
	switch {
	case errors.Is(headerErr, ErrVersion):
		return fmt.Errorf("%s: %w", s.path, headerErr)
	case headerErr != nil && len(b) < headerSize && !r.began && !ended && err == nil:
		r.torn += int64(len(b)) // it was just being made
		return nil
	case headerErr != nil:
		r.bad(s, 0, int64(min(len(b), headerSize)), headerErr.Error())
	case id != s.segmentID:
		r.bad(s, 0, int64(len(b)), "it is a copy of "+id.name())
		return nil
	}
	s.created, s.parked = created, len(r.open) >= r.keep
	if ended && int64(len(b)) < length {
		r.bad(s, int64(len(b)), length-int64(len(b)), "its end is missing")
	}
	if ended {
		b = b[:min(int64(len(b)), length)]
	}
	scan(b, s.sum, func(f frame) {
		s.size = f.at + f.size()
		r.frame(s, f)
	}, func(from, to int64) {
		if to == int64(len(b)) && !ended && !r.began {
			r.torn += to - from
			return
		}
		r.bad(s, from, to-from, "bytes that are no frame")
	})
	s.size = max(s.size, int64(min(len(b), headerSize)))
	s.synced, s.listed = s.size, true
	r.began = r.began || s.size > headerSize
	return nil
}

func (r *reading) frame(s *readSegment, f frame) {
	if int(f.kind) < len(s.frames) {
		s.frames[f.kind]++
	}
	switch f.kind {
	case kindIntent:
		in, err := peekIntent(f.payload)
		if err != nil {
			r.bad(s, f.at, f.size(), err.Error())
			return
		}
		if s.parked {
			return
		}
		_, settled := r.settled[in.Exchange]
		if p, newer := r.open[in.Exchange]; !settled && (!newer || p.segment == uint32(s.number)) {
			r.open[in.Exchange] = placeIn(&s.segment, f.at, f.size(), 0)
		}
	case kindSettled:
		for b := f.payload; len(b) >= 16; b = b[16:] {
			id := uuid.UUID(b[:16])
			r.settled[id] = struct{}{}
			delete(r.open, id)
		}
	case kindEnd:
		e, ok := parseEnd(f.payload)
		if !ok || e.number >= s.number {
			r.bad(s, f.at, f.size(), "an end that cannot be")
			return
		}
		length, known := r.ends[e.number]
		if !known || e.length < length {
			r.ends[e.number] = e.length
		}
	default:
		r.bad(s, f.at, f.size(), fmt.Sprintf("a frame of unknown kind %d", f.kind))
	}
}

func (r *reading) bad(s *readSegment, offset, bytes int64, reason string) {
	s.damaged = true
	r.damage = append(r.damage, &Damage{File: s.path, Offset: offset, Bytes: bytes, Reason: reason})
}

// missing reports segments that others name and that are not there.
func (r *reading) missing(h *head, known bool) {
	there := make(map[uint64]bool)
	oldest := uint64(0)
	for _, s := range r.segments {
		if !s.obsolete {
			there[s.number] = true
			if oldest == 0 {
				oldest = s.number
			}
		}
	}
	if known {
		oldest = h.oldest
		if h.newest >= oldest && !there[h.newest] {
			r.ends[h.newest] = max(r.ends[h.newest], headerSize+1)
		}
	}
	for number, length := range r.ends {
		r.newest = max(r.newest, number)
		if number < oldest || oldest == 0 || there[number] || length <= headerSize {
			continue
		}
		r.gone = append(r.gone, number)
		r.damage = append(r.damage, &Damage{
			File: filepath.Join(r.dir, fmt.Sprintf("%012d-*%s", number, segmentSuffix)), Bytes: -1, Reason: "the segment is missing",
		})
	}
}
