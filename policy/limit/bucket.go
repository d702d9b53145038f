// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"math"
	"time"
)

// Bucket names a bucket: that of a limit, or of one key under it.
type Bucket struct {
	Limit   ID
	Subject int64 // zero: of the whole limit
}

// part is what a replica holds of every bucket that it has no claim on.
type part struct {
	fraction float64       // of all; 1 when it is alone
	before   float64       // what it was before it grew
	grown    time.Duration // when it grew last
}

// lease is a claim on a bucket that stands on the board.
type lease struct {
	share float64
	until time.Duration // when a share larger than the equal part ends
	back  time.Duration // when a share smaller than that ends
}

// bucket is what is left of a limit here. Its shard's lock guards it.
type bucket struct {
	rule  *rule
	level [meters]float64 // as of at; negative: in debt
	at    time.Duration
	lease *lease // nil: the equal part is held

	flight int64           // exchanges at once
	asked  [meters]float64 // since the last round, granted or not
	most   int64           // exchanges at once that were asked for since the last round
	guess  [meters]float64 // tokens that an exchange takes, as learnt of those that ended
	ratio  float64         // of the tokens of input that exchanges had to those that they were thought to have; zero: not known yet
	listed bool            // among those that run short
	want   float64         // of the whole limit, as of the last round
	steady float64         // what is claimed for it: see settle
	over   [meters]float64 // what there was no room for since the last round
	spilt  [meters]float64 // what there was no room for in the round before
}

// newBucket returns one that nobody has used for long. It is as full as it would be if it had always been there.
func newBucket(r *rule, p part, now time.Duration) *bucket {
	b := &bucket{rule: r, at: now}
	for m := range meters {
		since := max(0, (now - p.grown).Seconds())
		b.level[m] = min(b.cap(m, p.fraction), r.burst[m]*min(p.before, p.fraction)+r.perSecond(m)*p.fraction*since)
	}
	if p.fraction > 0 && r.rate[requests] > 0 {
		b.level[requests] = max(b.level[requests], 1)
	}
	return b
}

// cap returns how much a meter holds at most: a share of the burst, and one at least.
func (b *bucket) cap(m meter, share float64) float64 { return max(1, b.rule.burst[m]*share) }

// share returns what is held of the limit; advance must have been called.
func (b *bucket) share(p part) float64 {
	if b.lease != nil {
		return b.lease.share
	}
	return p.fraction
}

// advance fills the bucket up to now, and ends a lease that is over.
func (b *bucket) advance(now time.Duration, p part) {
	if l := b.lease; l != nil {
		end := l.until
		if l.share <= p.fraction {
			end = l.back
		}
		if now < end {
			b.fill(now, l.share)
			return
		}
		b.fill(end, l.share)
		b.lease = nil
	}
	b.fill(now, p.fraction)
}

// fill adds what falls due until now with a share that has not changed since.
func (b *bucket) fill(now time.Duration, share float64) {
	if seconds := (now - b.at).Seconds(); seconds > 0 {
		for m := range meters {
			b.level[m] += b.rule.perSecond(m) * share * seconds
		}
		b.at = now
	}
	for m, over := range b.trim(share) {
		b.over[m] += over
	}
}

// trim takes out what is above the burst of a share.
func (b *bucket) trim(share float64) (over [meters]float64) {
	for m := range meters {
		if c := b.cap(m, share); b.level[m] > c {
			over[m], b.level[m] = b.level[m]-c, c
		}
	}
	return over
}

// follow makes the bucket one of another version of its limit.
func (b *bucket) follow(r *rule) {
	if b.rule == r {
		return
	}
	for m := range meters {
		if b.rule.rate[m] == 0 || b.rule.burst[m] == 0 { // not counted until now
			b.level[m] = r.burst[m]
			continue
		}
		if b.level[m] > 0 { // as full as it was
			b.level[m] *= r.burst[m] / b.rule.burst[m]
		}
	}
	b.rule = r
}

// lack is why a bucket refuses an exchange.
type lack struct {
	meter meter         // meters: exchanges at once
	wait  time.Duration // until there is enough; zero: there never will be
	need  float64
	left  float64
	rule  *rule
	doubt bool // counting might show that there is enough
}

// mostDoubt is how many times the limit of a minute an estimate may be and still be worth counting: who is refused must not make work without bound.
const mostDoubt = 8

// doubtful reports whether the input was perhaps taken for much more than it is: nobody has used the bucket yet that would show, or it seems larger than it can
// ever have been.
func (l *lack) doubtful(b *bucket) bool {
	return (l.meter == input || l.meter == total) && (b.ratio == 0 || l.wait == 0) && l.need <= mostDoubt*b.rule.rate[l.meter]
}

// take takes what an exchange needs, all of it or nothing. What nobody limits is not counted.
func (b *bucket) take(need *[meters]float64, share float64) *lack {
	b.most = max(b.most, b.flight+1)
	var worst *lack
	for m := range meters {
		if b.rule.rate[m] == 0 {
			continue
		}
		b.asked[m] += need[m]
		if need[m] > b.rule.rate[m] {
			return &lack{meter: m, need: need[m], left: b.level[m]}
		}
		if short := min(need[m], b.cap(m, share)) - b.level[m]; short > 1e-9 {
			if l := (&lack{meter: m, need: need[m], left: b.level[m], wait: b.wait(m, short, share)}); worst == nil || l.wait > worst.wait {
				worst = l
			}
		}
	}
	if worst != nil {
		return worst
	}
	if c := b.rule.limit.Concurrent; c > 0 && b.flight >= b.rule.slots(share) {
		return &lack{meter: meters, left: 0, wait: time.Second}
	}
	for m := range meters {
		if b.rule.rate[m] > 0 {
			b.level[m] -= need[m]
		}
	}
	b.flight++
	return nil
}

// wait returns how long it takes until a meter has gained so much, a millisecond at least.
func (b *bucket) wait(m meter, amount, share float64) time.Duration {
	perSecond := b.rule.perSecond(m) * share
	if perSecond <= 0 {
		return time.Second
	}
	seconds := min(amount/perSecond, float64(math.MaxInt64/2)/float64(time.Second))
	return max(time.Duration(math.Ceil(seconds*1000))*time.Millisecond, time.Millisecond)
}

// give gives back what was taken beyond what was used; a negative amount takes more. The bucket may be in debt after that.
func (b *bucket) give(amount *[meters]float64, share float64) {
	for m := range meters {
		if b.rule.rate[m] > 0 {
			b.level[m] += amount[m]
		}
	}
	b.trim(share)
}

// low reports whether the bucket is used faster than a share allows, or soon would be.
func (b *bucket) low(share float64) bool {
	for m := range meters {
		if b.rule.rate[m] > 0 && b.level[m] < b.cap(m, share)/2 {
			return true
		}
	}
	return b.rule.limit.Concurrent > 0 && 2*b.flight > b.rule.slots(share)
}

// idle reports whether a new bucket would be the same.
func (b *bucket) idle(p part) bool {
	if b.flight > 0 || b.lease != nil || b.listed {
		return false
	}
	for m := range meters {
		if b.rule.rate[m] > 0 && b.level[m] < b.cap(m, p.fraction) {
			return false
		}
	}
	return true
}

// ask turns what was asked for since the last round into a part of the whole limit.
func (b *bucket) ask(since time.Duration, share float64) {
	var want float64
	weight := rested
	if seconds := since.Seconds(); seconds > 0 {
		for m := range meters {
			if b.rule.rate[m] > 0 {
				want = max(want, b.asked[m]/(b.rule.perSecond(m)*seconds), b.debt(m))
				if b.level[m] < b.cap(m, share) {
					weight = recent
				}
			}
		}
	}
	if c := b.rule.limit.Concurrent; c > 0 {
		want = max(want, float64(max(b.most, b.flight))/float64(c))
	}
	if want = min(want, mostWanted); b.want > 0 {
		want = b.want + (want-b.want)*weight
	}
	b.want = want
	b.settle()
	b.asked, b.most = [meters]float64{}, b.flight
	b.spilt, b.over = b.over, [meters]float64{}
}

// settle keeps what is claimed as it is while it is about what is wanted. Each time that shares move between replicas, who gives has less a round before who takes has
// more; if they followed each gust of demand, that would be lost. A little too much does no harm: what runs over goes to others through the pot.
func (b *bucket) settle() {
	if b.want > b.steady || b.want < b.steady-slack {
		b.steady = min(mostWanted, b.want+headroom)
	}
}

// debt returns which part of the limit it takes to be out of debt within [repay].
func (b *bucket) debt(m meter) float64 {
	return max(0, -b.level[m]) / (b.rule.perSecond(m) * repay.Seconds())
}

const (
	// mostWanted bounds what one replica may ask for: no more than all.
	mostWanted = 1
	// recent is how much the last round counts among those before it: demand is noisy, and a share that follows each gust is wasted at the next lull. Where
	// the bucket has run over, more was held than was needed, and the last round counts as rested.
	recent, rested = 0.1, 0.2
	// headroom is how much more of the limit is claimed than is wanted when a claim changes, and slack how far what is wanted may fall below the claim until it does again.
	headroom, slack = 0.03, 0.08
	// repay is how soon a debt should be paid off.
	repay = 10 * time.Second
)

// expect puts in what an exchange is likely to use where its estimate says nothing, or only how much it could be at the very most: an answer is mostly
// much shorter than it might be, and what is wrong is put right when it has ended.
func (b *bucket) expect(need *[meters]float64, hits []hit, bound bool) {
	switch {
	case need[input] == unknown:
		need[input] = b.guess[input]
	case bound && b.ratio > 0: // that holds whatever the text is
		need[input] *= b.ratio
	}
	most := need[output]
	need[output] = b.guess[output]
	if need[output] == 0 {
		need[output] = firstGuess
	}
	if most != unknown {
		need[output] = min(need[output], most)
	}
	for _, h := range hits { // a guess alone must not make a request too large
		if r := h.rule.rate[output]; r > 0 {
			need[output] = min(need[output], r)
		}
		if r := h.rule.rate[total]; r > 0 {
			need[output] = max(0, min(need[output], r-need[input]))
		}
	}
	need[total] = need[input] + need[output]
}

const (
	// firstGuess is how many tokens an answer is taken for until one has ended.
	firstGuess = 500
	// learning is how much of a difference to the guess the next one takes up.
	learning = 0.1
	// margin is how much more than the average is reserved.
	margin = 1.25
	// mostRatio bounds what one exchange can teach.
	mostRatio = 4
)

// learn makes the next guess better. Guesses of output have a margin.
func (b *bucket) learn(used *[meters]float64, thought float64) {
	if thought > 0 && used[input] > 0 {
		ratio := min(used[input]/thought, mostRatio)
		if b.ratio > 0 {
			ratio = b.ratio + learning*(ratio-b.ratio)
		}
		b.ratio = ratio
	}
	for m, factor := range [...]float64{input: 1, output: margin} {
		if m == int(requests) {
			continue
		}
		if b.guess[m] == 0 {
			b.guess[m] = used[m] * factor
			continue
		}
		b.guess[m] += learning * (used[m]*factor - b.guess[m])
	}
}
