// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// volume is a file system, in bytes. free is what a process without privileges may still take.
type volume struct{ size, free int64 }

func statVolume(dir string) (volume, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return volume{}, fmt.Errorf("ask for the free space of %s: %w", dir, err)
	}
	block := int64(st.Bsize)                                                           //nolint:unconvert // another type on other systems
	return volume{size: int64(st.Blocks) * block, free: int64(st.Bavail) * block}, nil //nolint:gosec // volumes are smaller
}

// room is how much there is for logs, as of the last look.
type room struct {
	volume
	known     bool // volume is
	minFree   int64
	total     int64
	unshipped int64
	low, full bool // too little is free, or too much unshipped, until it is a good deal better
}

// measure finds out how much room there is.
func (s *Spool) measure(d logDir, now time.Time) {
	r := &s.room
	v, err := s.o.volume(s.o.Dir)
	s.warn("measure the volume", err)
	if r.known = err == nil; r.known {
		r.volume = v
		r.minFree = s.o.MinFree
		if r.minFree <= 0 {
			r.minFree = min(DefaultMinFree, v.size/20)
		}
		r.low = v.free < r.minFree || r.low && v.free < r.minFree+r.minFree/4
		s.metrics.free.Set(float64(v.free))
	}
	r.total = 0
	for _, info := range d.logs {
		r.total += info.Size()
	}
	var oldest time.Time
	r.unshipped, oldest = s.backlog(d)
	r.full = r.unshipped >= s.o.MaxBytes || r.full && r.unshipped > s.o.MaxBytes/5*4
	age := 0.0
	if !oldest.IsZero() {
		age = max(now.Sub(oldest).Seconds(), 0)
	}
	s.metrics.bytes.Set(float64(r.total))
	s.metrics.oldest.Set(age)

	// Logs that are whole go early long before requests have to be refused.
	excess := r.total - s.o.MaxBytes
	if r.known {
		excess = max(excess, 2*r.minFree-r.free)
	}
	s.excess.Store(max(excess, 0))
}

// backlog returns how much is not in the database, and since about when. What has been written since the shipper looked counts too: it may
// be waiting for a database that does not answer. As long as it has not looked, all may be unshipped.
func (s *Spool) backlog(d logDir) (bytes int64, oldest time.Time) {
	logs, ok := s.known()
	if !ok {
		return s.room.total, time.Time{}
	}
	for _, l := range logs {
		bytes += l.Lag
		if info := d.logs[filepath.Base(l.Path)]; info != nil {
			bytes += max(info.Size()-l.Size, 0)
		}
		if !l.Oldest.IsZero() && (oldest.IsZero() || l.Oldest.Before(oldest)) {
			oldest = l.Oldest
		}
	}
	return bytes, oldest
}

const (
	// The gate stays closed for so long after an Envoy could not write a line, longer if it happens again and again. What is refused in that
	// time is lost for certain, and what is risked afterwards is some estimates: so not much longer.
	writeHoldFirst, writeHoldMost = 5 * time.Second, 30 * time.Second
	// writeCalm is how long all must have gone well for that to be forgotten.
	writeCalm = 10 * time.Minute
	probeFile = ".weir-probe"
	probeSize = 64 << 10
)

// writeTrouble is that Envoys could not write.
type writeTrouble struct {
	on    bool
	until time.Time     // not over before
	last  time.Time     // when it was last told of
	hold  time.Duration // of the last time
}

// writesFailed notes that an Envoy could not write lines: those are lost. No further request is admitted before the volume is seen to take
// what is written.
func (s *Spool) writesFailed(log string, n int64, now time.Time) {
	t := &s.writes
	switch {
	case t.on: // exchanges that were admitted before
	case now.Sub(t.last) > writeCalm:
		t.hold = writeHoldFirst
	default:
		t.hold = min(2*t.hold, writeHoldMost)
	}
	t.on, t.last, t.until = true, now, now.Add(t.hold)
	s.metrics.writeFailures.Add(float64(n))
	s.log.Error("a usage log could not be written to; what an Envoy lost of its own becomes unresolved rows; requests are refused",
		"log", log, "failures", n, "for", t.hold)
}

// recover ends the trouble once its time is over and the volume takes what is written.
func (s *Spool) recover(now time.Time) {
	t := &s.writes
	if !t.on || now.Before(t.until) {
		return
	}
	err := s.probe()
	s.warn("write to the volume of the logs", err)
	if err != nil {
		t.until = now.Add(t.hold)
		return
	}
	t.on = false
}

// probe writes a file to the volume and deletes it. A quota, or a file system that has become read-only, does not show in its free space.
func (s *Spool) probe() (err error) {
	path := filepath.Join(s.o.Dir, probeFile)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, probeSize))
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), os.Remove(path))
}

// decide opens or closes the gate.
func (s *Spool) decide(now time.Time) {
	s.recover(now)
	var reasons []string
	for _, r := range []struct {
		closed bool
		why    string
	}{{s.room.low, closedSpace}, {s.room.full, closedBacklog}, {s.writes.on, closedWrite}} {
		if r.closed {
			reasons = append(reasons, r.why)
		}
	}
	was := s.gate.Denial() != nil
	for _, r := range s.gate.set(reasons) {
		s.metrics.closings.WithLabelValues(r).Inc()
		s.log.Error("requests are refused, because there might be no room for their lines in the usage log", "reason", r,
			"free", s.room.free, "min_free", s.room.minFree, "unshipped", s.room.unshipped, "max_bytes", s.o.MaxBytes)
	}
	closed := 0.0
	if len(reasons) > 0 {
		closed = 1
	} else if was {
		s.log.Info("requests are admitted again; the usage log has room", "free", s.room.free, "unshipped", s.room.unshipped)
	}
	s.metrics.closed.Set(closed)
}
