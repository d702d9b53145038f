// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

func le32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }

// liveShare is how many times as large as what is open in it the journal may become, with two segments on top.
const liveShare = 4

// tidy deletes the oldest segments as long as nothing is open in them. When the journal is much larger than what is open in all of it, the
// oldest is emptied first: so a few long exchanges do not keep gigabytes of short ones. Each byte that this writes frees three.
func (j *Journal) tidy() error {
	for {
		s, empty := j.oldest()
		if s == nil {
			return nil
		}
		if !empty {
			if err := j.evacuate(s); err != nil {
				j.metrics.failed(opCompact)
				j.log.Warn("journal segment cannot be emptied", "segment", s.path, "err", err)
				return err
			}
		}
		if err := j.drop(s); err != nil {
			j.metrics.failed(opDelete)
			j.log.Warn("journal segment cannot be deleted", "segment", s.path, "err", err)
			return err
		}
		if !empty {
			j.park() // what was moved is in memory now
		}
	}
}

// oldest returns the oldest segment if it is to go, and whether nothing is open in it.
func (j *Journal) oldest() (s *segment, empty bool) {
	j.io.Lock()
	defer j.io.Unlock()
	w := &j.w
	size := int64(0)
	for _, s := range w.segments {
		size += s.size
	}
	j.metrics.bytes.Set(float64(size))
	if len(w.segments) == 0 || w.broken != nil {
		return nil, false
	}
	s = w.segments[0]
	if s == w.active || s.dirty || s.keep {
		return nil, false
	}
	inside, all := j.table.tally(uint32(s.number))
	if inside.open == 0 {
		return s, true
	}
	if !w.closed && (s.old || size > 2*j.o.SegmentBytes+liveShare*all.bytes) {
		return s, false
	}
	return nil, false
}

// evacuateStep is how many bytes are moved while callers of Append wait.
const evacuateStep = 64 << 10

// evacuate writes what is open in s to the active segment, and makes that durable.
func (j *Journal) evacuate(s *segment) error {
	j.parking.mu.Lock()
	defer j.parking.mu.Unlock()
	if j.table.isParked(uint32(s.number)) {
		if err := j.unparkSegment(uint32(s.number)); err != nil {
			return fmt.Errorf("read segment: %w", err)
		}
	}
	var (
		step     []frame
		payloads = make([]byte, 0, evacuateStep+maxFrame) // of step; never grows, since they point into it
		size     int64
		failed   error
	)
	move := func() {
		if failed == nil {
			failed = j.move(s, step, size)
		}
		step, payloads, size = step[:0], payloads[:0], 0
	}
	err := j.scan(s, func(f frame) {
		if f.kind != kindIntent {
			return
		}
		at := len(payloads)
		payloads = append(payloads, f.payload...)
		f.payload = payloads[at:]
		if step, size = append(step, f), size+f.size(); size >= evacuateStep {
			move()
		}
	})
	if err != nil {
		return fmt.Errorf("read segment: %w", err)
	}
	if move(); failed != nil {
		return failed
	}
	if err := j.flush(); err != nil {
		return err
	}
	for _, f := range j.table.of(uint32(s.number)) {
		j.lose(f)
	}
	return nil
}

// move writes those of the intents that are open, and still where the frames say, to the active segment.
func (j *Journal) move(from *segment, frames []frame, size int64) error {
	j.io.Lock()
	defer j.io.Unlock()
	to, err := j.roomLocked(int(size))
	if err != nil {
		return err
	}
	buf, at := j.w.buf[:0], to.size
	var gone []found
	j.table.mu.Lock()
	for _, f := range frames {
		id := [16]byte(f.payload)
		p, ok := j.table.has(id, uint32(from.number), f.at)
		if !ok {
			continue
		}
		start := len(buf)
		buf = beginFrame(buf, f.kind, len(f.payload))
		buf = endFrame(append(buf, f.payload...), start, to.sum)
		gone = append(gone, found{id, placeIn(to, at+int64(start), f.size(), p.seen)})
	}
	j.table.mu.Unlock()
	j.w.buf = buf
	if len(gone) == 0 {
		return nil
	}
	if err := j.writeLocked(to, buf); err != nil {
		return err
	}
	to.added += len(gone)
	j.table.mu.Lock()
	defer j.table.mu.Unlock()
	for _, f := range gone {
		j.table.put(f.id, f.place)
	}
	return nil
}

// drop deletes the oldest segment. That it is not missed is on the disk before it goes.
func (j *Journal) drop(s *segment) error {
	j.io.Lock()
	next := j.w.next
	if len(j.w.segments) > 1 {
		next = j.w.segments[1].number
	}
	j.io.Unlock()
	if err := j.head.write(next, j.head.newest, true); err != nil {
		return err
	}
	if err := errors.Join(s.close(), j.o.fs.Remove(s.path)); err != nil {
		return err
	}
	j.io.Lock()
	j.w.segments = j.w.segments[1:]
	j.io.Unlock()
	return j.o.fs.SyncDir(j.dir)
}

// read returns the intents at places, and reports those that cannot be read.
func (j *Journal) read(places []found) (out []Intent) {
	for _, f := range places {
		in, err := j.readOne(f)
		for errors.Is(err, errFrame) && j.moved(&f) {
			in, err = j.readOne(f)
		}
		switch {
		case err == nil:
			out = append(out, in)
		case errors.Is(err, errFrame):
			j.lose(f)
		default:
			j.metrics.failed(opRead)
			j.log.Warn("journal cannot read an intent", "exchange_id", f.id, "segment", f.segment, "offset", f.at, "err", err)
		}
	}
	return out
}

// moved brings f up to date, and reports whether the intent is in another place now.
func (j *Journal) moved(f *found) bool {
	j.table.mu.Lock()
	defer j.table.mu.Unlock()
	p, open := j.table.open[f.id]
	if !open || p.segment == f.segment && p.at == f.at {
		return false
	}
	f.place = p
	return true
}

// errFrame says that there is no frame where one should be.
var errFrame = errors.New("the frame is damaged")

func (j *Journal) readOne(f found) (in Intent, err error) {
	j.io.Lock()
	var s *segment
	for _, one := range j.w.segments {
		if uint32(one.number) == f.segment {
			s = one
		}
	}
	j.io.Unlock()
	if s == nil {
		return Intent{}, errFrame
	}
	h, err := j.o.fs.Open(s.path, forReading)
	if errors.Is(err, fs.ErrNotExist) {
		return Intent{}, errFrame
	}
	if err != nil {
		return Intent{}, err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	b := make([]byte, f.size)
	n, err := h.ReadAt(b, int64(f.at))
	if err != nil && !errors.Is(err, io.EOF) {
		return Intent{}, err
	}
	one, ok := parseFrame(b[:n], s.sum)
	if !ok || one.kind != kindIntent {
		return Intent{}, errFrame
	}
	if in, err = parseIntent(one.payload); err != nil || in.Exchange != f.id {
		return Intent{}, errFrame
	}
	return in, nil
}

// lose gives up an intent whose frame cannot be read any more.
func (j *Journal) lose(f found) {
	j.table.mu.Lock()
	lost := false
	if p := j.table.open[f.id]; p.segment == f.segment && p.at == f.at {
		var was place
		if was, lost = j.table.take(f.id); lost && !was.told {
			j.table.lost = append(j.table.lost, f.id)
		}
	}
	j.table.mu.Unlock()
	if lost {
		j.metrics.damage.Inc()
		j.log.Error("journal lost an intent: its frame cannot be read", "exchange_id", f.id, "segment", f.segment, "offset", f.at)
	}
}
