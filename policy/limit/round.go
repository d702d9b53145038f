// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// boardState is what Round remembers; it is its own, but for met.
type boardState struct {
	met    atomic.Bool // once at least
	begun  bool        // it has held a part
	rounds int
	last   time.Duration     // when wants were measured last
	claims map[Bucket]*claim // what has been on the board since the last round, as far as is known
}

// claim is one bucket in a round.
type claim struct {
	Bucket
	rule  *rule
	share float64 // as of before the round
	next  float64 // once it is written
	drop  bool    // no claim is needed any more
	want  float64
	level [meters]float64
	gain  [meters]float64 // from the pot
	cut   [meters]float64 // to the pot
}

// maxClaims bounds what one replica puts on the board. What is beyond it is shared equally.
const maxClaims = 10_000

// Joined reports whether the replica holds a part of everything that others know of.
func (l *Limiter) Joined() bool { return l.joined.Load() }

// Part returns what the replica holds of every limit without a claim, to be kept for [Options].Part.
func (l *Limiter) Part() float64 { return math.Float64frombits(l.part.Load()) }

// Round goes to the board once: it tells what is wanted, lowers shares that others want more of, and raises its own as far as there is room. It is called each
// [Interval]; after an error shares stay as they are until their leases end.
func (l *Limiter) Round(ctx context.Context, b Board) error {
	sent := l.now()
	l.sweep(l.board.rounds)
	l.board.rounds++
	wanted := l.measure(sent)
	var p *plan
	err := b.Meet(ctx, l.o.Replica, func(s *State) *Notice {
		p = l.decide(s, wanted)
		return p.notice
	})
	if err != nil {
		l.keepShort(wanted)
		return fmt.Errorf("go to the board of limits: %w", err)
	}
	if p != nil {
		l.raise(p, sent)
		l.heard.Store(int64(sent))
		l.board.met.Store(true)
		l.joined.Store(p.notice.Part > 0)
	}
	return nil
}

// measure takes down the buckets that run short here, or on which there is a claim.
func (l *Limiter) measure(now time.Duration) map[Bucket]bool {
	wanted := make(map[Bucket]bool)
	for at := range l.board.claims {
		wanted[at] = false
	}
	for i := range l.buckets {
		s := &l.buckets[i]
		s.mu.Lock()
		for _, at := range s.short {
			if b := s.m[at]; b != nil {
				b.listed = false
			}
			wanted[at] = true
		}
		s.short = s.short[:0]
		s.mu.Unlock()
	}
	for at := range wanted {
		s := l.shardOf(at)
		s.mu.Lock()
		if b := s.m[at]; b != nil {
			b.advance(now, s.part)
			b.ask(now-l.board.last, b.share(s.part))
		}
		s.mu.Unlock()
	}
	l.board.last = now
	return wanted
}

// keepShort sees to it that what runs short is still known in the next round.
func (l *Limiter) keepShort(wanted map[Bucket]bool) {
	for at, short := range wanted {
		if !short {
			continue
		}
		s := l.shardOf(at)
		s.mu.Lock()
		if b := s.m[at]; b != nil && !b.listed {
			b.listed = true
			s.short = append(s.short, at)
		}
		s.mu.Unlock()
	}
}

// setPart changes what is held of everything without a claim.
func (l *Limiter) setPart(p part) {
	l.part.Store(math.Float64bits(p.fraction))
	now := l.now()
	for i := range l.buckets {
		s := &l.buckets[i]
		s.mu.Lock()
		for _, b := range s.m {
			b.advance(now, s.part) // by what it was until now
		}
		s.part = p
		for _, b := range s.m {
			b.advance(now, s.part)
		}
		s.mu.Unlock()
	}
}

// plan is what a round does.
type plan struct {
	notice *Notice
	claims map[Bucket]*claim
}

// decide is the heart of a round: it reads the board, lowers at once what has to be lower, and says what is to be written.
func (l *Limiter) decide(s *State, wanted map[Bucket]bool) *plan {
	parts, n := l.others(s)
	rest := 1.0
	for _, p := range parts {
		rest -= p
	}
	fair := 1 / float64(len(parts)+1)
	n.Part = min(fair, max(0, rest))
	if n.Part < 1e-9 {
		n.Part = 0
	}
	old := l.Part()
	if n.Part < old {
		l.setPart(part{fraction: n.Part, before: n.Part})
		old = n.Part
	}
	out := &plan{notice: n, claims: make(map[Bucket]*claim)}
	others := l.claimsOf(s, parts, wanted)
	known := l.knownOf(s)
	pots := make(map[Bucket]Pot, len(s.Pots))
	for _, p := range s.Pots {
		pots[p.Bucket] = p
	}
	table := l.table.Load()
	for at := range others {
		r := table.rule(at.Limit)
		if r == nil || len(out.claims) >= maxClaims {
			continue
		}
		c := l.claimLocked(at, r)
		c.share = min(c.share, known(at))
		c.divide(others[at], parts, max(old, n.Part), wanted[at])
		l.lower(c)
		if pot, left := c.pour(pots[at], others[at], parts); left {
			n.Pots = append(n.Pots, pot)
		}
		out.claims[at] = c
		if !c.drop {
			mine := Claim{Replica: l.o.Replica, Bucket: at, Share: c.next, Want: c.want, Level: c.level}
			for m := range meters {
				mine.Level[m] += c.gain[m]
			}
			n.Claims = append(n.Claims, mine)
		}
	}
	slices.SortFunc(n.Claims, func(a, b Claim) int {
		return cmp.Or(cmp.Compare(a.Limit, b.Limit), cmp.Compare(a.Subject, b.Subject))
	})
	return out
}

// others returns what the other replicas that live hold of everything.
func (l *Limiter) others(s *State) (map[uuid.UUID]float64, *Notice) {
	n, parts := &Notice{}, make(map[uuid.UUID]float64)
	for _, m := range s.Members {
		switch {
		case m.Replica == l.o.Replica:
		case min(m.Age, s.Awake) > Gone:
			n.Gone = append(n.Gone, m.Replica)
		default:
			parts[m.Replica] = m.Part
		}
	}
	return parts, n
}

// knownOf returns what the others believe this replica to hold of a bucket. It may hold less; more it must not keep, as it might if it was taken for dead.
func (l *Limiter) knownOf(s *State) func(Bucket) float64 {
	registered := 0.0
	for _, m := range s.Members {
		if m.Replica == l.o.Replica {
			registered = m.Part
		}
	}
	own := make(map[Bucket]float64)
	for _, c := range s.Claims {
		if c.Replica == l.o.Replica && c.Age < Lease {
			own[c.Bucket] = c.Share
		}
	}
	return func(at Bucket) float64 {
		if share, ok := own[at]; ok {
			return share
		}
		return registered
	}
}

// claimsOf returns the claims of others that count, for every bucket that this round is about.
func (l *Limiter) claimsOf(s *State, parts map[uuid.UUID]float64, wanted map[Bucket]bool) map[Bucket][]Claim {
	all := make(map[Bucket][]Claim)
	for at := range wanted {
		all[at] = nil
	}
	for _, c := range s.Claims {
		switch _, lives := parts[c.Replica]; {
		case c.Replica == l.o.Replica:
			if _, known := all[c.Bucket]; !known { // of an earlier life
				all[c.Bucket] = nil
			}
			l.adopt(c)
		case lives && c.Age < Lease:
			all[c.Bucket] = append(all[c.Bucket], c)
		}
	}
	return all
}

// adopt takes over a claim of an earlier life of this replica: what it had given to others is still theirs.
func (l *Limiter) adopt(c Claim) {
	if l.board.met.Load() || c.Age > lent {
		return
	}
	r := l.table.Load().rule(c.Limit)
	if r == nil {
		return
	}
	l.with(hit{rule: r, subject: c.Subject}, l.now(), func(b *bucket, share float64) {
		if c.Share < share {
			b.lease = &lease{share: c.Share, back: l.now() + lent}
			b.trim(c.Share)
		}
	})
}

// claimLocked takes down a bucket as it is.
func (l *Limiter) claimLocked(at Bucket, r *rule) *claim {
	c := &claim{Bucket: at, rule: r}
	l.with(hit{rule: r, subject: at.Subject}, l.now(), func(b *bucket, share float64) {
		c.share, c.want, c.level, c.cut = share, b.steady, b.level, b.spilt
	})
	return c
}

// divide finds the share that is fair, and how much of it can be had at once.
//
// Who wants less than an equal part of what there is gets what it wants, the others share the rest equally; if there is more than all want, what is left over is divided equally. A replica that has put up no claim does not take part: it has its equal part until it does.
func (c *claim) divide(others []Claim, parts map[uuid.UUID]float64, part float64, short bool) {
	least := leastWanted / float64(len(parts)+1)
	wants := []float64{max(c.want, least)}
	pool, taken, quiet := 1.0, 0.0, len(parts) == 0 || !short && c.want < part/2
	claimed := make(map[uuid.UUID]bool, len(others))
	for _, o := range others {
		claimed[o.Replica] = true
		wants = append(wants, max(o.Want, least))
		taken += o.Share
		quiet = quiet && o.Want < parts[o.Replica]/2
	}
	for replica, p := range parts {
		if !claimed[replica] {
			pool -= p
			taken += p
		}
	}
	target := part
	if !quiet {
		target = fairShare(wants, max(0, pool))
	}
	c.next = min(target, max(c.share, 1-taken))
	// Without a claim the equal part is held: then there must be room for that.
	c.drop = quiet && c.share <= part && taken+part <= 1+1e-9
	if c.drop {
		c.next = part
	}
}

// leastWanted is what all replicas together keep of a limit, though they do not want it, so that the first request that comes to one is not refused.
const leastWanted = 0.01

// fairShare returns the first one's part of a pool.
func fairShare(wants []float64, pool float64) float64 {
	sum := 0.0
	for _, w := range wants {
		sum += w
	}
	if sum <= pool {
		return wants[0] + (pool-sum)/float64(len(wants))
	}
	sorted := slices.Sorted(slices.Values(wants))
	rest, level := pool, 0.0
	for i, w := range sorted {
		if level = rest / float64(len(sorted)-i); w > level {
			break
		}
		rest -= w
	}
	return min(wants[0], level)
}

// lower gives up what others are to have, before they are told.
func (l *Limiter) lower(c *claim) {
	now := l.now()
	l.with(hit{rule: c.rule, subject: c.Subject}, now, func(b *bucket, share float64) {
		if c.next >= share { // a lease has ended in between
			return
		}
		until := now // a lease that was granted ends when it was to: it is not certain that this round is written
		if b.lease != nil {
			until = b.lease.until
		}
		b.lease = &lease{share: c.next, until: until, back: now + lent}
		for m, over := range b.trim(c.next) {
			c.cut[m] += over
		}
		c.level = b.level
	})
}

// pour puts what there was no room for into the pot, and takes from it what there is room for. Together there is never more in the buckets and the pot than
// the burst.
func (c *claim) pour(pot Pot, others []Claim, parts map[uuid.UUID]float64) (Pot, bool) {
	if pot.Age > Lease {
		pot.Tokens = [4]float64{}
	}
	pot.Bucket = c.Bucket
	before := pot.Tokens
	for m := range meters {
		if c.rule.rate[m] == 0 {
			continue
		}
		have := min(pot.Tokens[m]+c.cut[m], max(0, c.free(m, others, parts)))
		room := max(0, max(1, c.rule.burst[m]*c.next)-c.level[m])
		if c.drop {
			room = 0
		}
		c.gain[m] = min(have, room)
		pot.Tokens[m] = have - c.gain[m]
	}
	return pot, pot.Tokens != before || pot.Tokens != [4]float64{}
}

// free returns how much of the burst is in nobody's bucket.
func (c *claim) free(m meter, others []Claim, parts map[uuid.UUID]float64) float64 {
	free := c.rule.burst[m] - c.level[m]
	claimed := make(map[uuid.UUID]bool, len(others))
	for _, o := range others {
		claimed[o.Replica] = true
		free -= min(max(1, c.rule.burst[m]*o.Share), o.Level[m]+c.rule.perSecond(m)*o.Share*o.Age.Seconds())
	}
	for replica, p := range parts {
		if !claimed[replica] {
			free -= c.rule.burst[m] * p
		}
	}
	return free
}

// raise takes what the board has granted. The leases count from before it was asked.
func (l *Limiter) raise(p *plan, sent time.Duration) {
	if now := l.now(); p.notice.Part > l.Part() {
		grown := part{fraction: p.notice.Part, before: l.Part(), grown: now}
		if !l.board.begun { // nobody has had this part before, and its buckets are full
			grown.before = grown.fraction
		}
		l.setPart(grown)
	}
	l.board.begun = l.board.begun || p.notice.Part > 0
	clear(l.board.claims)
	if l.board.claims == nil {
		l.board.claims = make(map[Bucket]*claim)
	}
	now := l.now()
	for at, c := range p.claims {
		l.with(hit{rule: c.rule, subject: at.Subject}, now, func(b *bucket, _ float64) {
			if c.drop {
				b.lease, b.want, b.steady = nil, 0, 0
			} else {
				b.lease = &lease{share: c.next, until: sent + mine(Lease), back: now + lent}
			}
			for m := range meters {
				b.level[m] += c.gain[m]
			}
			b.trim(b.share(part{fraction: p.notice.Part}))
		})
		if !c.drop {
			l.board.claims[at] = c
		}
	}
	l.claims.Store(int64(len(l.board.claims)))
}
