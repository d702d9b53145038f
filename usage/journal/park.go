// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// parking moves intents between the table and the disk.
type parking struct {
	on atomic.Bool
	// mu is held while intents are moved, and by who must find them wherever they are. It is taken before Journal.io. Who appends never takes it.
	mu     sync.Mutex
	buf    []byte             // of the scan that is under way
	wanted map[uuid.UUID]bool // exchanges that are looked for, and whether they were found
}

// Park says whether intents may leave memory: on is for times in which many wait for the books, as in an outage of these. Then no more than
// [Options].ParkAbove, and those of the segment that is being written to, are in memory; the others are on the disk alone and are looked for there when
// they are settled. Off brings all of them back, in the background. It is cheap to be called with what was said before.
//
// A journal that has more than that when it is opened begins with on.
func (j *Journal) Park(on bool) {
	if j.parking.on.Swap(on) != on {
		j.wakeUp()
	}
}

// Parked returns how many of the open intents are on the disk alone.
func (j *Journal) Parked() int {
	j.table.mu.Lock()
	defer j.table.mu.Unlock()
	return j.table.resting
}

// park does what Park says, and reports whether the disk let it. Only run calls it: so no segment becomes dirty, or is evacuated or dropped, meanwhile.
func (j *Journal) park() bool {
	if !j.parking.on.Load() {
		return j.unparkAll()
	}
	for {
		s := j.parkable()
		if s == nil {
			return true
		}
		before := j.Parked()
		if err := j.parkSegment(s); err != nil {
			j.readFailed(s.path, err)
			return false
		}
		s.stays = j.Parked() == before // frames that cannot be read must not be looked for again and again
	}
}

// parkable returns the oldest segment that intents are to be parked of, if any is. Those whose frames may have to be written again because the disk
// fails are left alone.
func (j *Journal) parkable() *segment {
	j.io.Lock()
	defer j.io.Unlock()
	t := j.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.open)-t.held <= j.o.ParkAbove || j.w.broken != nil {
		return nil
	}
	for _, s := range j.w.segments {
		if s != j.w.active && !s.dirty && !s.stays && t.parkable(uint32(s.number)) > j.o.ParkAbove/64 {
			return s
		}
	}
	return nil
}

// parkStep is how many frames are looked at while others wait for the table.
const parkStep = 256

// parkSegment parks what is open in a segment.
func (j *Journal) parkSegment(s *segment) error {
	j.parking.mu.Lock()
	defer j.parking.mu.Unlock()
	number := uint32(s.number)
	var some []found
	least := int64(math.MaxInt64)
	if err := j.scan(s, func(f frame) {
		if f.kind == kindIntent && len(f.payload) >= len(uuid.UUID{}) {
			least = min(least, f.size())
			some = append(some, found{uuid.UUID(f.payload[:16]), place{at: uint32(f.at)}})
		}
	}); err != nil {
		return err
	}
	t := j.table
	t.mu.Lock()
	p := t.parked[number]
	if p == nil {
		p = &parked{least: least, seen: longAgo}
		t.parked[number] = p
	}
	t.mu.Unlock()
	for len(some) > 0 {
		step := some[:min(parkStep, len(some))]
		some = some[len(step):]
		t.mu.Lock()
		for _, f := range step {
			t.park(f.id, number, int64(f.at), p)
		}
		t.mu.Unlock()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forgetEmpty(number)
	j.countLocked()
	return nil
}

// unparkAll brings everything back into the table, oldest first, and reports whether it did.
func (j *Journal) unparkAll() bool {
	for j.Parked() > 0 && !j.parking.on.Load() {
		j.parking.mu.Lock()
		more := j.unpark(math.MaxInt64)
		j.parking.mu.Unlock()
		if !more {
			return false
		}
	}
	return true
}

// unpark brings back the intents of the oldest segment of which some may have been seen before a time. It reports whether there was one. The lock of
// parking must be held, as in what follows.
func (j *Journal) unpark(before time.Duration) bool {
	for _, number := range j.table.parkedSegments(func(p *parked) bool { return p.seen < before }) {
		if err := j.unparkSegment(number); err == nil {
			return true
		}
	}
	return false
}

// unparkSegment brings back the intents of a segment.
func (j *Journal) unparkSegment(number uint32) error {
	err := j.scanParked(number, func(p *parked, f found) {
		p.remove(int64(f.at))
		j.table.resting--
		f.seen = p.seen
		j.table.open[f.id] = f.place
		j.table.floor = min(j.table.floor, f.seen)
	})
	j.table.mu.Lock()
	defer j.table.mu.Unlock()
	j.countLocked()
	return err
}

// takeParked takes those of the exchanges off that are parked: they are found in wanted as true. What may be in a segment that cannot be read counts
// as parked there, and is taken off later: so nobody waits for an end because of that.
func (j *Journal) takeParked(ids []uuid.UUID) (wanted map[uuid.UUID]bool) {
	var unread []uint32
	for _, number := range j.want(ids) {
		err := j.scanParked(number, func(p *parked, f found) {
			if _, is := j.parking.wanted[f.id]; is {
				p.remove(int64(f.at))
				j.table.resting--
				j.table.subtract(f.place)
				j.parking.wanted[f.id] = true
			}
		})
		if err != nil {
			unread = append(unread, number)
		}
	}
	j.owe(unread)
	return j.parking.wanted
}

// want notes which of the exchanges are not in the table, and returns the segments that they may be parked in.
func (j *Journal) want(ids []uuid.UUID) (numbers []uint32) {
	t := j.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.resting == 0 {
		j.parking.wanted = nil
		return nil
	}
	if clear(j.parking.wanted); j.parking.wanted == nil {
		j.parking.wanted = make(map[uuid.UUID]bool)
	}
	least, most := uuid.Max, uuid.Nil
	for _, id := range ids {
		if _, here := t.open[id]; here {
			continue
		}
		j.parking.wanted[id] = false
		if bytes.Compare(id[:], least[:]) < 0 {
			least = id
		}
		if bytes.Compare(id[:], most[:]) > 0 {
			most = id
		}
	}
	if len(j.parking.wanted) == 0 {
		return nil
	}
	return t.parkedSegmentsLocked(func(p *parked) bool {
		if bytes.Compare(most[:], p.first[:]) < 0 || bytes.Compare(p.last[:], least[:]) < 0 {
			return false
		}
		return slices.ContainsFunc(ids, func(id uuid.UUID) bool {
			_, wanted := j.parking.wanted[id]
			return wanted && p.within(id)
		})
	})
}

// maxOwed is how many exchanges are owed to a segment that has fewer intents.
const maxOwed = 1 << 12

// owe notes what is wanted, was found nowhere, and may be in segments that cannot be read.
func (j *Journal) owe(unread []uint32) {
	if len(unread) == 0 {
		return
	}
	j.table.mu.Lock()
	defer j.table.mu.Unlock()
	for id, found := range j.parking.wanted {
		if found {
			continue
		}
		for _, number := range unread {
			p := j.table.parked[number]
			if _, owed := p.owed[id]; owed || !p.within(id) || len(p.owed) >= max(p.n, maxOwed) {
				continue
			}
			if p.owed == nil {
				p.owed = make(map[uuid.UUID]struct{})
			}
			p.owed[id] = struct{}{}
			j.parking.wanted[id] = true
		}
	}
}

// scanParked hands out the intents that are parked in a segment, after what is owed was taken off, while it holds the table's lock. Those that are not
// there any more are lost.
func (j *Journal) scanParked(number uint32, each func(p *parked, f found)) error {
	j.table.mu.Lock()
	p := j.table.parked[number]
	j.table.mu.Unlock()
	s := j.segmentOf(number)
	if p == nil || s == nil {
		return fmt.Errorf("segment %d: %w", number, errFrame)
	}
	left := p.n
	err := j.scan(s, func(f frame) {
		if f.kind != kindIntent || len(f.payload) < len(uuid.UUID{}) || !p.has(f.at) {
			return
		}
		left--
		j.table.mu.Lock()
		defer j.table.mu.Unlock()
		one := found{uuid.UUID(f.payload[:16]), placeIn(s, f.at, f.size(), p.seen)}
		if _, owed := p.owed[one.id]; owed {
			p.remove(f.at)
			j.table.resting--
			j.table.subtract(one.place)
			return
		}
		each(p, one)
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		j.readFailed(s.path, err)
		return err
	}
	if left > 0 {
		j.loseParked(s, p)
	}
	j.table.mu.Lock()
	defer j.table.mu.Unlock()
	p.owed = nil
	j.table.forgetEmpty(number)
	return nil
}

// loseParked gives up parked intents whose frames are not there any more. Which exchanges they were of is not known.
func (j *Journal) loseParked(s *segment, p *parked) {
	there := parked{least: p.least}
	_ = j.scan(s, func(f frame) { // what cannot be read now is lost as well
		if f.kind == kindIntent && len(f.payload) >= len(uuid.UUID{}) && p.has(f.at) {
			there.add(uuid.UUID(f.payload[:16]), f.at)
		}
	})
	j.table.mu.Lock()
	gone := p.n - there.n
	p.open, p.n = there.open, there.n
	j.table.resting -= gone
	for range gone {
		j.table.subtract(place{segment: uint32(s.number)})
	}
	j.table.mu.Unlock()
	j.metrics.damage.Inc()
	j.log.Error("journal lost intents: their frames cannot be read", "segment", s.path, "intents", gone)
}

// scan hands out the frames of a segment that are valid.
func (j *Journal) scan(s *segment, each func(frame)) (err error) {
	j.parking.buf, err = scanFile(j.o.fs, s, j.parking.buf, each)
	return err
}

// Each hands out all that is open or held, the newest segment first and as it stands there. Nothing is settled or moved meanwhile.
func (j *Journal) Each(each func(Intent)) {
	j.parking.mu.Lock()
	defer j.parking.mu.Unlock()
	j.io.Lock()
	segments := slices.Clone(j.w.segments)
	j.io.Unlock()
	for _, s := range slices.Backward(segments) {
		number := uint32(s.number)
		of, _ := j.table.tally(number)
		err := j.scan(s, func(f frame) {
			if f.kind != kindIntent || !j.table.hasAt(f, number) {
				return
			}
			if in, err := parseIntent(f.payload); err == nil {
				of.open--
				each(in)
			}
		})
		switch {
		case err != nil:
			j.readFailed(s.path, err)
		case of.open > 0:
			j.read(j.table.of(number)) // says which are lost
			_ = j.scanParked(number, func(*parked, found) {})
		}
	}
}

// segmentOf returns a segment by its number, nil if there is none.
func (j *Journal) segmentOf(number uint32) *segment {
	j.io.Lock()
	defer j.io.Unlock()
	for _, s := range j.w.segments {
		if uint32(s.number) == number {
			return s
		}
	}
	return nil
}

func (j *Journal) readFailed(path string, err error) {
	j.metrics.failed(opRead)
	j.log.Warn("journal segment cannot be read", "segment", path, "err", err)
}
