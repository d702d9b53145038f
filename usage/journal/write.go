// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/google/uuid"
)

// segment is a file of frames.
type segment struct {
	segmentID
	sum    uint32 // its seed
	path   string
	file   file  // nil unless it is written to or has to be synced
	size   int64 // where the last frame that counts ends
	synced int64 // so much of size is known to be on the disk
	dirty  bool  // it is in writer.dirty
	listed bool  // the folder is known to name it on the disk
	old    bool  // of an earlier process: to be emptied at once and deleted, since nobody knows how much of it is on the disk
	keep   bool  // but not deleted: it is damaged, and could not be copied
	added  int   // intents that this process wrote to it
	stays  bool  // in memory: none of what is open in it can be parked; owned by run
}

func (s *segment) close() error {
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file = nil
	return f.Close()
}

// writer is what is being written to. Journal.io guards it.
type writer struct {
	segments []*segment // oldest first
	active   *segment   // the last of segments, or nil when there must be a new one before the next write
	next     uint64     // number of the next segment
	ends     []end      // to be written to the beginning of the next segment
	dirty    []*segment // with bytes that are not known to be on the disk
	tail     []byte     // the frames in those bytes
	spare    []byte     // becomes the tail while the disk works on the other
	written  int64      // bytes of frames ever written; synced counts the same
	broken   error      // the disk lost what it had been given, and did not take it again
	refusing bool       // the last append failed
	closed   bool
	buf      []byte
	ids      []uuid.UUID
}

// maxUnsynced is how many bytes may wait for the disk. They are kept in memory, to be written again if it fails.
const maxUnsynced = 64 << 20

// commitLocked writes intents and makes them open, all or none. In this file, the suffix means Journal.io.
func (j *Journal) commitLocked(intents []Intent) error {
	err := j.appendLocked(intents)
	switch {
	case err != nil:
		j.metrics.failed(opAppend)
		if !j.w.refusing && !j.w.closed {
			j.log.Error("journal refuses intents, and so requests, until the disk is well", "err", err)
		}
	case j.w.refusing:
		j.log.Info("journal takes intents again")
	}
	j.w.refusing = err != nil
	return err
}

func (j *Journal) appendLocked(intents []Intent) error {
	size := 0
	for i := range intents {
		size += intents[i].size()
	}
	s, err := j.roomLocked(size)
	if err != nil {
		return err
	}
	buf := j.w.buf[:0]
	for i := range intents {
		buf = appendIntent(buf, &intents[i], s.sum)
	}
	j.w.buf = buf
	at := s.size
	if err := j.writeLocked(s, buf); err != nil {
		return err
	}
	s.added += len(intents)
	now := j.since(time.Now()) //nolint:forbidigo // the clock is read here, at the edge, and handed on
	j.table.mu.Lock()
	for i := range intents {
		n := intents[i].size()
		j.table.put(intents[i].Exchange, placeIn(s, at, int64(n), now))
		at += int64(n)
	}
	j.countLocked()
	j.table.mu.Unlock()
	j.metrics.appends.Add(float64(len(intents)))
	return nil
}

func placeIn(s *segment, at, size int64, seen time.Duration) place {
	return place{segment: uint32(s.number), at: uint32(at), size: uint32(size), seen: seen}
}

func (j *Journal) settleLocked(ids []uuid.UUID) error {
	s, err := j.roomLocked((len(ids)/maxSettled+1)*frameHeader + 16*len(ids))
	if err != nil {
		return err
	}
	j.w.buf = appendSettled(j.w.buf[:0], ids, s.sum)
	return j.writeLocked(s, j.w.buf)
}

// roomLocked returns a segment to which so many bytes can be written.
func (j *Journal) roomLocked(size int) (*segment, error) {
	w := &j.w
	if w.closed {
		return nil, ErrClosed
	}
	if w.broken != nil {
		return nil, w.broken
	}
	if len(w.tail)+size > maxUnsynced {
		return nil, fmt.Errorf("the disk is behind by %d bytes", len(w.tail))
	}
	s := w.active
	full := s != nil && s.added >= j.o.ParkAbove && j.parking.on.Load() // what is written to cannot be parked
	if s != nil && s.size+int64(size) <= j.o.SegmentBytes && !full {
		return s, nil
	}
	ends := w.ends
	if s != nil {
		ends = append(ends, end{s.number, s.size})
	}
	next, err := j.createLocked(ends)
	if err != nil {
		return nil, err
	}
	w.ends = nil
	return next, nil
}

// createLocked makes a segment that begins with the ends of others, and the active one.
func (j *Journal) createLocked(ends []end) (*segment, error) {
	w := &j.w
	id := segmentID{number: w.next, nonce: rand.Uint64()}
	s := &segment{segmentID: id, sum: id.seed(), path: filepath.Join(j.dir, id.name())}
	w.next++
	f, err := j.o.fs.Open(s.path, newFile)
	if err != nil {
		return nil, fmt.Errorf("make segment: %w", err)
	}
	b := segmentHeader(id, time.Now()) //nolint:forbidigo // the clock is read here, at the edge, and handed on
	for _, e := range ends {
		b = appendEnd(b, e, s.sum)
	}
	s.file, s.size = f, int64(len(b))
	if _, err := f.WriteAt(b, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("write segment: %w", err), j.abandonLocked(s))
	}
	w.segments = append(w.segments, s)
	w.active = s
	j.wroteLocked(s, b[headerSize:])
	return s, nil
}

// abandonLocked deletes a segment that could not be begun. If that fails too, its successor says that nothing in it counts.
func (j *Journal) abandonLocked(s *segment) error {
	err := s.close()
	if removeErr := j.o.fs.Remove(s.path); removeErr != nil {
		j.w.ends = append(j.w.ends, end{s.number, 0})
		err = errors.Join(err, removeErr)
	}
	return err
}

// writeLocked writes frames behind what counts of a segment, all or nothing.
func (j *Journal) writeLocked(s *segment, frames []byte) error {
	w := &j.w
	if _, err := s.file.WriteAt(frames, s.size); err != nil {
		err = fmt.Errorf("write segment: %w", err)
		// Some may be there now, and must not be found by a later recovery.
		if cutErr := s.file.Truncate(s.size); cutErr != nil {
			w.ends = append(w.ends, end{s.number, s.size})
			w.active = nil
			err = errors.Join(err, cutErr)
		}
		return err
	}
	s.size += int64(len(frames))
	j.wroteLocked(s, frames)
	return nil
}

// wroteLocked notes that frames wait for the disk.
func (j *Journal) wroteLocked(s *segment, frames []byte) {
	w := &j.w
	if !s.dirty {
		s.dirty = true
		w.dirty = append(w.dirty, s)
	}
	w.tail = append(w.tail, frames...)
	w.written += int64(len(frames))
	j.wakeUp()
}

// wakeUp makes run look.
func (j *Journal) wakeUp() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}
