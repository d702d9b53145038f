// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"math/rand/v2"
	"sync"
	"time"
)

// Health knows which channels had better be left alone for a while. [Cooldowns] is the one in memory.
type Health interface {
	// Cooling reports whether a channel cools down at the given time. It is called for each candidate of each request, by many
	// goroutines at once.
	Cooling(ChannelID, time.Time) bool
}

// pick returns at most [maxChoices] of the candidates that are open to an exchange, in the order of the attempts: by falling
// priority, and within one priority at random, each next one with a chance in proportion to its weight. Channels that cool down
// come behind all others, in the same order among themselves: a bad channel is better than none.
func (e *Engine) pick(o *offer, by *reach, now time.Time) []Choice {
	var hot, cold [maxChoices]candidate // on the stack for all but the largest installations
	ready, cooling := hot[:0], cold[:0]
	for i := range o.channels {
		c := &o.channels[i]
		switch {
		case !by.opens(c):
		case e.health != nil && e.health.Cooling(c.channel, now):
			cooling = append(cooling, *c)
		default:
			ready = append(ready, *c)
		}
	}
	n := min(len(ready)+len(cooling), maxChoices)
	if n == 0 {
		return nil
	}
	choices := make([]Choice, 0, n)
	choices = e.draw(choices, ready)
	return e.draw(choices, cooling)
}

// draw appends candidates, which are sorted by priority, to choices until those are full. It reorders the candidates.
func (e *Engine) draw(choices []Choice, from []candidate) []Choice {
	for len(from) > 0 && len(choices) < cap(choices) {
		var total uint64
		level := 0
		for ; level < len(from) && from[level].priority == from[0].priority; level++ {
			total += uint64(from[level].weight)
		}
		at := 0
		if level > 1 {
			for left := e.random.below(total); left >= uint64(from[at].weight); at++ {
				left -= uint64(from[at].weight)
			}
		}
		choices = append(choices, from[at].choice())
		from[at] = from[0] // the level loses its first, which takes the place of the drawn one
		from = from[1:]
	}
	return choices
}

// choice is the candidate as a ticket names it.
func (c *candidate) choice() Choice {
	return Choice{Channel: c.channel, Upstream: c.upstream, Partial: c.partial}
}

// random is a source of random numbers that many goroutines may use. The zero value is the runtime's, which is the fast one.
type random struct {
	mu     sync.Mutex
	source rand.Source // guarded by mu; nil for the runtime's
}

func (r *random) uint64() uint64 {
	if r.source == nil {
		return rand.Uint64()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.source.Uint64()
}

// below returns a number in [0, n). Its bias is n / 2^64, far below what any weight can express.
func (r *random) below(n uint64) uint64 { return r.uint64() % n }
