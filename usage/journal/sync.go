// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// retryInterval is how long after a failure of the disk it is tried again.
const retryInterval = time.Second

// keepTail is the size above which a buffer is not kept for the next sync.
const keepTail = 1 << 20

// synced is how far the disk is.
type synced struct {
	mu   sync.Mutex
	cond *sync.Cond
	mark int64 // in bytes, as writer.written
	err  error // the disk lost what is behind the mark
}

// wait returns when everything up to mark is on the disk, or is known not to be.
func (s *synced) wait(mark int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.mark < mark && s.err == nil {
		s.cond.Wait()
	}
	if s.mark >= mark {
		return nil
	}
	return s.err
}

func (s *synced) set(mark int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mark, s.err = max(s.mark, mark), err
	s.cond.Broadcast()
}

// run syncs and tidies up until the journal is closed. Only it calls flush and tidy, and Close behind it.
func (j *Journal) run() {
	defer close(j.done)
	wait := time.NewTimer(0)
	defer wait.Stop()
	pause := func(d time.Duration) bool {
		wait.Reset(d)
		select {
		case <-j.stop:
			return false
		case <-wait.C:
			return true
		}
	}
	var retryTidy time.Time
	for {
		select {
		case <-j.stop:
			return
		case <-j.wake:
		}
		if j.o.Durability == Async && !pause(j.o.SyncInterval) {
			return
		}
		if err := j.flush(); err != nil {
			if !pause(retryInterval) {
				return
			}
			j.wakeUp()
			continue
		}
		if now := time.Now(); !now.Before(retryTidy) && !j.tidyUp() { //nolint:forbidigo // the clock is read here, at the edge, and handed on
			retryTidy = now.Add(retryInterval)
			time.AfterFunc(retryInterval, j.wakeUp)
		}
	}
}

// tidyUp reports whether there is nothing left that the disk keeps it from.
func (j *Journal) tidyUp() bool {
	tidied, parked := j.tidy() == nil, j.park()
	return tidied && parked
}

// flush makes what has been written durable. While the disk works on it, others append.
func (j *Journal) flush() error {
	w := &j.w
	j.io.Lock()
	if w.broken != nil {
		defer j.io.Unlock()
		return j.rescueLocked(w.broken)
	}
	if len(w.dirty) == 0 {
		j.io.Unlock()
		return nil
	}
	dirty, mark, tail := w.dirty, w.written, w.tail
	w.dirty, w.tail, w.spare = nil, w.spare, nil
	sizes := make([]int64, len(dirty))
	for i, s := range dirty {
		s.dirty = false
		sizes[i] = s.size
	}
	j.io.Unlock()
	began := time.Now() //nolint:forbidigo // the clock is read here, at the edge, and handed on
	err := j.syncAll(dirty)
	j.metrics.sync.Observe(time.Since(began).Seconds()) //nolint:forbidigo // the clock is read here, at the edge, and handed on

	j.io.Lock()
	defer j.io.Unlock()
	if err != nil {
		j.metrics.failed(opSync)
		w.tail = slices.Concat(tail, w.tail)
		for _, s := range dirty {
			if !s.dirty {
				w.dirty = append(w.dirty, s)
			}
		}
		return j.rescueLocked(err)
	}
	if cap(tail) <= keepTail {
		w.spare = tail[:0]
	}
	for i, s := range dirty {
		s.synced, s.listed = sizes[i], true
		if s != w.active && !s.dirty {
			err = errors.Join(err, s.close())
		}
	}
	j.synced.set(mark, nil)
	if err != nil {
		j.log.Warn("journal segment was not closed", "err", err)
	}
	j.noteHeadLocked()
	return nil
}

// noteHeadLocked writes down which segment is the newest.
func (j *Journal) noteHeadLocked() {
	s := j.w.active
	if s == nil || s.number == j.head.newest || !s.listed {
		return
	}
	if err := j.head.write(max(j.head.oldest, j.w.segments[0].number), s.number, false); err != nil {
		j.log.Warn("journal head was not written", "err", err)
	}
}

// syncAll syncs segments, and the folder if it does not name them yet.
func (j *Journal) syncAll(dirty []*segment) error {
	listed := true
	for _, s := range dirty {
		if err := s.file.Sync(); err != nil {
			return fmt.Errorf("sync segment: %w", err)
		}
		listed = listed && s.listed
	}
	if !listed {
		if err := j.o.fs.SyncDir(j.dir); err != nil {
			return fmt.Errorf("sync journal folder: %w", err)
		}
	}
	return nil
}

// rescueLocked writes what the disk may have lost to a new segment, from memory. A file whose sync has failed is not used again: the kernel
// forgets such a failure, and what it has dropped. If the new one fails too, nothing is appended until one does not.
func (j *Journal) rescueLocked(cause error) error {
	w := &j.w
	for _, s := range w.dirty {
		w.ends = append(w.ends, end{s.number, s.synced})
		s.size, s.dirty = s.synced, false
		if err := s.close(); err != nil {
			j.log.Warn("journal segment was not closed", "err", err)
		}
	}
	w.dirty, w.active = nil, nil
	err := j.rewriteLocked()
	if err != nil {
		if w.broken == nil {
			j.log.Error("journal lost intents on the disk and refuses requests until it takes them again", "bytes", len(w.tail), "err", errors.Join(cause, err))
		}
		w.broken = fmt.Errorf("the disk fails: %w", errors.Join(cause, err))
		j.synced.set(0, w.broken)
		return w.broken
	}
	j.log.Warn("journal goes on in a new segment after the disk failed", "segment", w.active.path, "cause", cause)
	w.broken = nil
	j.synced.set(w.written, nil)
	j.noteHeadLocked()
	return nil
}

// rewriteLocked makes a segment of the tail and syncs it. The ends of the segments that failed come last: who finds them finds all the rest.
func (j *Journal) rewriteLocked() (err error) {
	w := &j.w
	tail, written := w.tail, w.written
	s, err := j.createLocked(nil)
	if err != nil {
		return err
	}
	defer func() {
		w.dirty, s.dirty = nil, false
		w.written = written
		if err != nil { // the next attempt begins from the same
			w.tail, w.active = tail, nil
			w.segments = w.segments[:len(w.segments)-1]
			err = errors.Join(err, j.abandonLocked(s))
		}
	}()
	moved := j.reframe(s, tail)
	for _, e := range w.ends {
		moved.frames = appendEnd(moved.frames, e, s.sum)
	}
	if _, err := s.file.WriteAt(moved.frames, s.size); err != nil {
		return fmt.Errorf("write segment: %w", err)
	}
	if err := j.syncAll([]*segment{s}); err != nil {
		return err
	}
	s.size += int64(len(moved.frames))
	s.synced, s.listed = s.size, true
	w.tail, w.ends = nil, nil
	j.table.mu.Lock()
	defer j.table.mu.Unlock()
	for _, f := range moved.intents {
		j.table.put(f.id, f.place)
	}
	return nil
}

// reframed are frames as they are to stand in another segment, and the places that open intents then have.
type reframed struct {
	frames  []byte
	intents []found
}

// reframe prepares the frames of the tail for the end of s. Intents that were settled in the meantime are left out.
func (j *Journal) reframe(s *segment, tail []byte) (m reframed) {
	j.table.mu.Lock()
	defer j.table.mu.Unlock()
	for len(tail) > 0 {
		n := frameHeader + int(le32(tail[4:]))
		one := tail[:n]
		tail = tail[n:]
		start := len(m.frames)
		if one[2] == kindIntent {
			id := [16]byte(one[frameHeader:])
			p, open := j.table.open[id]
			if !open {
				continue
			}
			m.intents = append(m.intents, found{id, placeIn(s, s.size+int64(start), int64(n), p.seen)})
		}
		m.frames = endFrame(append(m.frames, one...), start, s.sum)
	}
	return m
}
