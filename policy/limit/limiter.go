// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/policy"
)

// Options are what a [Limiter] needs from outside.
type Options struct {
	Clock   func() time.Time // nil means time.Now; only how much of it passes counts
	Replica uuid.UUID        // who this is on the board: the same after a restart
	// Part is what this replica held of everything when it was last on the board; zero: it never was, and is alone until it is.
	Part float64
	// Strict stops a replica that is cut off for so long that others take its part.
	Strict bool
}

// Limiter holds exchanges to the limits of a [Table]. All of its methods may be called by many goroutines at once, but for [Limiter.Round], which belongs
// to one.
type Limiter struct {
	o     Options
	clock func() time.Time
	start time.Time
	table atomic.Pointer[Table]
	early early

	buckets  [shards]bucketShard
	taken    [shards]takenShard
	refused  [meters + 1]atomic.Int64
	inFlight atomic.Int64

	board  boardState // of Round
	joined atomic.Bool
	heard  atomic.Int64 // when the board was last heard of, as a time.Duration
	part   atomic.Uint64
	claims atomic.Int64
}

// shards is how many locks share the load.
const shards = 64

type bucketShard struct {
	mu    sync.Mutex
	m     map[Bucket]*bucket
	part  part
	short []Bucket // run short, as of the last round
}

type takenShard struct {
	mu sync.Mutex
	m  map[uuid.UUID]taken
}

// taken is what an exchange has taken.
type taken struct {
	from     []hit
	amount   [meters]float64
	thought  float64 // tokens of input, as estimated; zero: nothing is known, or they were counted
	at       time.Duration
	released bool // it is no longer under way
}

var _ policy.Accountant = (*Limiter)(nil)

// New returns a limiter without limits.
func New(o Options) *Limiter {
	l := &Limiter{o: o, clock: o.Clock}
	if l.clock == nil {
		l.clock = time.Now //nolint:forbidigo // the one place where the clock's default is named
	}
	l.start = l.clock()
	p := part{fraction: o.Part, before: o.Part}
	if o.Part <= 0 || o.Part > 1 {
		p = part{fraction: 1, before: 1}
	}
	for i := range l.buckets {
		l.buckets[i].m, l.buckets[i].part = make(map[Bucket]*bucket), p
		l.taken[i].m = make(map[uuid.UUID]taken)
	}
	l.setPart(p)
	l.table.Store(&Table{})
	return l
}

// early is what was restored before there were limits.
type early struct {
	mu      sync.Mutex
	over    atomic.Bool
	waiting map[uuid.UUID]policy.Demand
}

// SetTable puts limits in force. Buckets of those that stay are as full as they were. The table is the limiter's from then on.
func (l *Limiter) SetTable(t *Table) {
	l.table.Store(t)
	l.begin()
}

// Change changes the limits that are in force. See [Table.Change].
func (l *Limiter) Change(c Change) error {
	if err := l.table.Load().Change(c); err != nil {
		return err
	}
	l.begin()
	return nil
}

// Table returns the limits that are in force. It must not be changed.
func (l *Limiter) Table() *Table { return l.table.Load() }

// begin takes in what was restored before there were limits.
func (l *Limiter) begin() {
	if l.early.over.Load() {
		return
	}
	l.early.mu.Lock()
	defer l.early.mu.Unlock()
	for exchange, d := range l.early.waiting {
		l.restore(exchange, &d)
	}
	l.early.waiting = nil
	l.early.over.Store(true)
}

// now is how long the limiter has been there.
func (l *Limiter) now() time.Duration { return l.clock().Sub(l.start) }

func (l *Limiter) shardOf(b Bucket) *bucketShard {
	h := (uint64(b.Limit)*0x9E3779B97F4A7C15 ^ uint64(b.Subject)*0xC2B2AE3D27D4EB4F) >> 20
	return &l.buckets[h%shards]
}

func (l *Limiter) takenOf(exchange uuid.UUID) *takenShard { return &l.taken[exchange[15]%shards] }

// bucketLocked returns a bucket as of now.
func (s *bucketShard) bucketLocked(h hit, now time.Duration) *bucket {
	at := Bucket{Limit: h.rule.limit.ID, Subject: h.subject}
	b := s.m[at]
	if b == nil {
		b = newBucket(h.rule, s.part, now)
		s.m[at] = b
	}
	b.follow(h.rule)
	b.advance(now, s.part)
	return b
}

// view is what is left of the bucket that has least, for the client.
type view struct {
	limit, left float64
	full        time.Duration // until nothing is missing
	set         bool
}

// views are of requests, tokens, and exchanges at once.
type views struct{ requests, tokens, slots view }

// Reserve implements [policy.Accountant].
func (l *Limiter) Reserve(d *policy.Demand) ([]policy.Header, *policy.Denial) {
	var room [8]hit
	hits := l.table.Load().match(room[:0], d)
	if len(hits) == 0 {
		return nil, nil
	}
	return l.reserve(d, append(make([]hit, 0, len(hits)), hits...))
}

func (l *Limiter) reserve(d *policy.Demand, hits []hit) ([]policy.Header, *policy.Denial) {
	var seen views
	t := taken{amount: sized(&d.Estimate), thought: float64(max(d.Estimate.Input, 0)), at: l.now()}
	lack := l.takeAll(hits, &t, &seen)
	if before := d.Estimate.Input; lack != nil && lack.doubt && d.Exact().Input < before {
		seen, t = views{}, taken{amount: sized(&d.Estimate), at: t.at}
		lack = l.takeAll(hits, &t, &seen)
	}
	if lack != nil {
		l.refused[lack.meter].Add(1)
		return nil, denial(d, lack.rule, lack, &seen)
	}
	s := l.takenOf(d.Exchange)
	s.mu.Lock()
	s.m[d.Exchange] = t
	s.mu.Unlock()
	l.inFlight.Add(1)
	return seen.headers(), nil
}

// takeAll takes from all buckets, or from none.
func (l *Limiter) takeAll(hits []hit, t *taken, seen *views) *lack {
	for i := range hits {
		if lack := l.take(hits, i, t, seen); lack != nil {
			t.from = hits[:i]
			l.giveBack(t, t.at)
			return lack
		}
	}
	t.from = hits
	return nil
}

// unknown stands for tokens of which an estimate says nothing: buckets go by what they have learnt.
const unknown = -1

// sized returns what an exchange takes, as far as its estimate says.
func sized(e *policy.Estimate) (need [meters]float64) {
	need = [meters]float64{requests: 1, input: float64(e.Input), output: unknown, total: unknown}
	if e.Input <= 0 {
		need[input] = unknown
	}
	if e.Asked > 0 { // a limit of the model's own says little of an answer
		need[output] = float64(e.Asked)
	}
	return need
}

// take takes from the i-th bucket. What the first has learnt fixes the amounts for all.
func (l *Limiter) take(hits []hit, i int, t *taken, seen *views) *lack {
	h, now, need := hits[i], t.at, &t.amount
	s := l.shardOf(Bucket{Limit: h.rule.limit.ID, Subject: h.subject})
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bucketLocked(h, now)
	share := l.heldLocked(s, b, now)
	if need[total] == unknown {
		b.expect(need, hits, t.thought > 0)
	}
	lack := b.take(need, share)
	if lack != nil {
		lack.rule = h.rule
		lack.doubt = t.thought > 0 && lack.doubtful(b)
	}
	if (lack != nil || b.low(share)) && !b.listed && s.part.fraction < 1 {
		if b.listed = true; b.lease == nil { // it is measured from now on
			b.asked = *need
		}
		s.short = append(s.short, Bucket{Limit: h.rule.limit.ID, Subject: h.subject})
	}
	seen.look(b, share)
	return lack
}

// heldLocked is the share of a bucket; none for a strict replica that others believe dead.
func (l *Limiter) heldLocked(s *bucketShard, b *bucket, now time.Duration) float64 {
	if l.o.Strict && l.board.met.Load() && now-time.Duration(l.heard.Load()) > mine(Gone) {
		for m := range meters {
			b.level[m] = min(b.level[m], 0)
		}
		return 0
	}
	return b.share(s.part)
}

// giveBack undoes what was taken, and ends the exchange where it has not ended.
func (l *Limiter) giveBack(t *taken, now time.Duration) {
	for _, h := range t.from {
		l.with(h, now, func(b *bucket, share float64) {
			b.give(&t.amount, share)
			if !t.released {
				b.flight = max(b.flight-1, 0)
			}
		})
	}
}

// with does something with a bucket.
func (l *Limiter) with(h hit, now time.Duration, do func(b *bucket, share float64)) {
	s := l.shardOf(Bucket{Limit: h.rule.limit.ID, Subject: h.subject})
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bucketLocked(h, now)
	do(b, b.share(s.part))
}

// Stats are what there is to see of a limiter.
type Stats struct {
	Buckets   int              // in memory
	Exchanges int64            // under way, or not settled yet
	Refused   map[string]int64 // since the start, by what ran out
	Part      float64          // of every limit, held without a claim
	Claims    int64            // buckets shared by claims
	Unheard   time.Duration    // since the board was heard of last; zero if it never was
}

// meterNames are those of [Stats].Refused.
var meterNames = [meters + 1]string{"requests", "input_tokens", "output_tokens", "tokens", "concurrency"}

// Stats returns the state. It takes each lock for a moment.
func (l *Limiter) Stats() Stats {
	st := Stats{Exchanges: l.inFlight.Load(), Refused: make(map[string]int64, len(meterNames)), Part: l.Part(), Claims: l.claims.Load()}
	for i := range l.buckets {
		s := &l.buckets[i]
		s.mu.Lock()
		st.Buckets += len(s.m)
		s.mu.Unlock()
	}
	for m, name := range meterNames {
		st.Refused[name] = l.refused[m].Load()
	}
	if l.board.met.Load() {
		st.Unheard = l.now() - time.Duration(l.heard.Load())
	}
	return st
}

// sweep drops buckets that nobody has used for long, of one shard in some.
func (l *Limiter) sweep(turn int) {
	now, table := l.now(), l.table.Load()
	for i := turn % sweepTurns; i < shards; i += sweepTurns {
		s := &l.buckets[i]
		s.mu.Lock()
		for at, b := range s.m {
			b.advance(now, s.part)
			if b.idle(s.part) || table.rule(at.Limit) == nil && b.flight == 0 {
				delete(s.m, at)
			}
		}
		s.mu.Unlock()
	}
}

// sweepTurns is in how many rounds all buckets are looked at.
const sweepTurns = 8

// Limits returns how many limits are in force.
func (l *Limiter) Limits() int { return l.table.Load().Len() }
