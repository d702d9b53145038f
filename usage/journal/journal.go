// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
)

// Durability says what an appended intent outlives. Its values are in configuration files.
type Durability string

// How durable an intent is when [Journal.Append] returns.
const (
	// Async intents outlive the process; power loss only when a sync, within [Options].SyncInterval, has passed over them.
	Async Durability = "async"
	// Fsync intents outlive power loss: Append waits for the disk, together with all who append in the meantime.
	Fsync Durability = "fsync"
)

// Defaults of [Options].
const (
	DefaultSyncInterval = 5 * time.Millisecond
	DefaultSegmentBytes = 16 << 20
	DefaultParkAbove    = 25_000
)

// maxSegmentBytes keeps offsets below 4 GiB, with room for a group that does not fit.
const maxSegmentBytes = 1 << 30

// Options say how a journal works. The zero value is fit for production.
type Options struct {
	Durability   Durability            // empty means Async
	SyncInterval time.Duration         // from a first write to the sync in the background; zero means DefaultSyncInterval
	SegmentBytes int64                 // a segment that would become longer is followed by the next; zero means DefaultSegmentBytes
	ParkAbove    int                   // how many open intents are in memory while others may be parked, see Park; zero means DefaultParkAbove
	Logger       *slog.Logger          // nil discards
	Registerer   prometheus.Registerer // nil: no metrics

	fs fileSystem // nil: the real one
}

func (o *Options) setDefaults() error {
	o.Durability = cmp.Or(o.Durability, Async)
	if o.Durability != Async && o.Durability != Fsync {
		return fmt.Errorf("open journal: durability %q is neither %s nor %s", o.Durability, Async, Fsync)
	}
	o.SyncInterval = cmp.Or(o.SyncInterval, DefaultSyncInterval)
	o.SegmentBytes = min(cmp.Or(o.SegmentBytes, DefaultSegmentBytes), maxSegmentBytes)
	o.ParkAbove = cmp.Or(o.ParkAbove, DefaultParkAbove)
	if o.fs == nil {
		o.fs = disk{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// ErrClosed is returned by [Journal.Append] after [Journal.Close].
var ErrClosed = errors.New("the journal is closed")

// Journal is the set of exchanges that were admitted here and are not known to be in the books. All of its methods may be called by many
// goroutines at once.
type Journal struct {
	o       Options
	dir     string
	log     *slog.Logger
	metrics *metrics
	opened  time.Time // what is measured in durations begins here; its monotonic clock does not jump
	lock    io.Closer
	head    head // owned by run
	table   *table
	parking parking
	groups  groups
	synced  synced

	io sync.Mutex // guards w, and is taken before the table's lock
	w  writer

	background
}

// background is how others speak with run.
type background struct {
	wake chan struct{} // there is something to sync or to tidy up
	stop chan struct{}
	done chan struct{} // run has ended
}

func newBackground() background {
	return background{wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
}

// group is a number of callers of Append whose intents go to the disk in one write.
type group struct {
	intents []Intent
	written bool  // or failed
	mark    int64 // how much has to be synced until the group is
	err     error
	left    int // callers that have taken note
}

// groups is where callers gather while another's write is under way.
type groups struct {
	mu        sync.Mutex
	gathering *group // nil: the next caller begins one
	free      *group // to be used again
}

func (q *groups) join(in Intent) *group {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.gathering == nil {
		q.gathering, q.free = q.free, nil
		if q.gathering == nil {
			q.gathering = &group{}
		}
	}
	g := q.gathering
	g.intents = append(g.intents, in)
	return g
}

// close lets nobody join the group any more.
func (q *groups) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.gathering = nil
}

// leave is called by each who joined, while it holds Journal.io.
func (q *groups) leave(g *group) {
	if g.left++; g.left < len(g.intents) {
		return
	}
	clear(g.intents)
	*g = group{intents: g.intents[:0]}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.free = g
}

// Append makes an intent open. An exchange is appended once in its life.
//
// With an error the intent is not open, and its exchange must not be admitted: the disk is full or fails, or the journal is closed. That
// may be tried again at any time, and succeeds as soon as the disk is well.
func (j *Journal) Append(in Intent) error {
	if err := in.check(); err != nil {
		return err
	}
	g := j.groups.join(in)
	j.io.Lock()
	if !g.written { // the first of the group to get here writes for all of it
		j.groups.close()
		g.err = j.commitLocked(g.intents)
		g.mark = j.w.written
		g.written = true
	}
	mark, err := g.mark, g.err
	j.groups.leave(g)
	j.io.Unlock()
	if err == nil && j.o.Durability == Fsync {
		if err = j.synced.wait(mark); err != nil {
			j.io.Lock()
			j.table.mu.Lock()
			j.table.remove(in.Exchange) // so that it is not written again when the disk is well
			j.table.mu.Unlock()
			j.io.Unlock()
		}
	}
	if err != nil {
		return fmt.Errorf("append to journal: %w", err)
	}
	return nil
}

// Settle closes the intents of exchanges that are in the books, or never will be. It returns how many of them were open or held; ids that are not,
// because other processors admitted them, cost a look into a map; while intents are parked, see [Journal.Park], each call may read segments. What it writes is not waited for: after a crash a settled intent may be
// open again.
func (j *Journal) Settle(ids ...uuid.UUID) int {
	n, _ := j.settle(ids, nil, false)
	return n
}

// SettleFirst settles as Settle does, appends to out those that were open and never held, in the order of ids, and returns it.
func (j *Journal) SettleFirst(out, ids []uuid.UUID) []uuid.UUID {
	_, out = j.settle(ids, out, true)
	return out
}

func (j *Journal) settle(ids, first []uuid.UUID, collect bool) (int, []uuid.UUID) {
	j.parking.mu.Lock()
	defer j.parking.mu.Unlock()
	parked := j.takeParked(ids)
	j.io.Lock()
	defer j.io.Unlock()
	ours := j.w.ids[:0]
	j.table.mu.Lock()
	for _, id := range ids {
		p, ok := j.table.take(id)
		if !ok && parked[id] {
			ok = true
			parked[id] = false // once
		}
		if ok {
			ours = append(ours, id)
			if collect && !p.told {
				first = append(first, id)
			}
		}
	}
	j.countLocked()
	j.table.mu.Unlock()
	j.w.ids = ours
	if len(ours) == 0 {
		return 0, first
	}
	if err := j.settleLocked(ours); err != nil {
		j.metrics.failed(opSettle)
	}
	return len(ours), first
}

// Renew notes that an exchange still lives, if it was last seen at the time since or later. It reports whether that is so.
//
// While intents are parked, a sign of life of one is taken for one of all in its segment, and an exchange may be taken for one of them that is not.
func (j *Journal) Renew(id uuid.UUID, since time.Time) bool {
	return j.table.renew(id, j.since(since), j.since(time.Now())) //nolint:forbidigo // the clock is read here, at the edge, and handed on
}

// Quiet returns up to limit open intents that were appended, recovered and last renewed before a time, in no order. What is parked comes back for
// that, a segment at a time. An intent whose frame can no longer be read from the disk is reported as [Damage] in the log, and is no longer open.
func (j *Journal) Quiet(before time.Time, limit int) []Intent {
	j.parking.mu.Lock() // what is found must not be parked or moved before it is read
	defer j.parking.mu.Unlock()
	at := j.since(before)
	quiet := j.table.quiet(at, limit)
	for len(quiet) < limit && j.unpark(at) {
		quiet = j.table.quiet(at, limit)
	}
	return j.read(quiet)
}

// Lost returns the exchanges whose intents could not be read from the disk since it was last called. They are not open any more. Of those that were
// parked it is not known which they were.
func (j *Journal) Lost() []uuid.UUID {
	j.table.mu.Lock()
	defer j.table.mu.Unlock()
	lost := j.table.lost
	j.table.lost = nil
	return lost
}

// Open returns how many intents are open.
func (j *Journal) Open() int {
	open, _ := j.table.len()
	return open
}

// since is a time as the table keeps it.
func (j *Journal) since(t time.Time) time.Duration { return t.Sub(j.opened) }

// Close makes everything durable and lets go of the folder. What is open stays so for who opens it next.
func (j *Journal) Close() error {
	j.io.Lock()
	if j.w.closed {
		j.io.Unlock()
		return nil
	}
	j.w.closed = true
	j.io.Unlock()
	close(j.stop)
	<-j.done
	err := j.flush()
	j.tidy() //nolint:errcheck // what it cannot tidy now is tidied by the next life
	j.io.Lock()
	defer j.io.Unlock()
	for _, s := range j.w.segments {
		err = errors.Join(err, s.close())
	}
	if err = errors.Join(err, j.head.close(), j.lock.Close()); err != nil {
		return fmt.Errorf("close journal: %w", err)
	}
	return nil
}
