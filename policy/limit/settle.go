// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"github.com/google/uuid"

	"github.com/weir-proxy/weir/policy"
)

// forget takes an exchange out of those that are under way.
func (l *Limiter) forget(exchange uuid.UUID) (taken, bool) {
	if !l.early.over.Load() {
		l.early.mu.Lock()
		defer l.early.mu.Unlock()
		delete(l.early.waiting, exchange)
	}
	s := l.takenOf(exchange)
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.m[exchange]
	if ok {
		delete(s.m, exchange)
		l.inFlight.Add(-1)
		return t, true
	}
	return t, false
}

// Cancel implements [policy.Accountant]. It may also be called for an exchange that Envoy never heard of. One that is not known is passed over, here and below.
func (l *Limiter) Cancel(exchange uuid.UUID) {
	if t, ok := l.forget(exchange); ok {
		l.giveBack(&t, l.now())
	}
}

// Release tells that an exchange is no longer under way. What it used is told by Settle, earlier or later.
func (l *Limiter) Release(exchange uuid.UUID) {
	s := l.takenOf(exchange)
	s.mu.Lock()
	t, ok := s.m[exchange]
	first := ok && !t.released
	if first {
		t.released = true
		s.m[exchange] = t
	}
	s.mu.Unlock()
	if first {
		now := l.now()
		for _, h := range t.from {
			l.with(h, now, func(b *bucket, _ float64) { b.flight = max(b.flight-1, 0) })
		}
	}
}

// Settle tells what an exchange has used, and ends it. Whatever it took beyond that comes back; what it used beyond what it took is taken.
func (l *Limiter) Settle(exchange uuid.UUID, in, out int64) {
	t, ok := l.forget(exchange)
	if !ok {
		return
	}
	used := [meters]float64{input: float64(max(in, 0)), output: float64(max(out, 0))}
	used[total] = used[input] + used[output]
	var more [meters]float64
	for m := input; m < meters; m++ {
		more[m] = t.amount[m] - used[m]
	}
	now := l.now()
	for _, h := range t.from {
		l.with(h, now, func(b *bucket, share float64) {
			b.give(&more, share)
			b.learn(&used, t.thought)
			if !t.released {
				b.flight = max(b.flight-1, 0)
			}
		})
	}
}

// End ends an exchange of which nobody knows what it has used: it keeps what it took.
func (l *Limiter) End(exchange uuid.UUID) {
	l.Release(exchange)
	l.forget(exchange)
}

// maxWaiting is how many exchanges are remembered until there are limits. After an outage of the database a processor may find any number that are not
// settled, most of which ended long ago.
const maxWaiting = 50_000

// Restore notes an exchange that an earlier life of the processor admitted, and that may still be under way. What it uses is taken when it is settled. It may
// be called before there are limits; of very many then the first are noted.
func (l *Limiter) Restore(d *policy.Demand) {
	l.early.mu.Lock()
	defer l.early.mu.Unlock()
	if l.early.over.Load() {
		l.restore(d.Exchange, d)
		return
	}
	if l.early.waiting == nil {
		l.early.waiting = make(map[uuid.UUID]policy.Demand)
	}
	if len(l.early.waiting) < maxWaiting {
		l.early.waiting[d.Exchange] = *d
	}
}

func (l *Limiter) restore(exchange uuid.UUID, d *policy.Demand) {
	hits := l.table.Load().match(nil, d)
	s := l.takenOf(exchange)
	s.mu.Lock()
	_, known := s.m[exchange]
	if !known && len(hits) > 0 {
		s.m[exchange] = taken{from: hits}
	}
	s.mu.Unlock()
	if known || len(hits) == 0 {
		return
	}
	l.inFlight.Add(1)
	now := l.now()
	for _, h := range hits {
		l.with(h, now, func(b *bucket, _ float64) { b.flight++ })
	}
}
