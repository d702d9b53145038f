// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"sync/atomic"
	"time"
)

// settled is how long an account must not have been reserved from until it is looked at less often.
const settled = 2 * refresh

// calm says whether [Book.Next] may be called late.
type calm struct {
	resting atomic.Bool // nothing has happened since the last call
	until   time.Time   // when something is due that time alone brings; owned by whoever calls Next, as is the next
	polled  bool        // the bank is also asked with nothing to ask for
	synced  time.Time   // when it was asked last
}

// Rest returns for how long there is no need to call [Book.Next], after it was called and the bank was asked: unless Wake is called, which it is as soon as
// anything happens. Zero means that it is to be called again soon.
func (b *Book) Rest() time.Duration {
	if !b.calm.resting.Load() {
		return 0
	}
	until := b.calm.until
	if due := b.calm.synced.Add(poll); b.calm.polled && due.Before(until) {
		until = due
	}
	return max(until.Sub(b.o.Clock()), 0)
}

// stir ends a rest, since something has happened.
func (b *Book) stir() {
	if b.calm.resting.Load() && b.calm.resting.CompareAndSwap(true, false) {
		b.o.Wake()
	}
}

// restLocked sets for how long Next has nothing to ask; b.mu is held. What happens from when Next began counts as having happened behind it.
func (b *Book) restLocked(now time.Time, drained bool) {
	until := now.Add(idle)
	for _, a := range b.accounts {
		a.mu.Lock()
		calm := a.calmLocked(now)
		for _, due := range [...]time.Time{a.last.Add(idle), a.wanted.Add(recalled), a.at.Add(recalled), time.Unix(a.end, 0).Add(-rollover), time.Unix(a.end, 0)} {
			if due.After(now) && due.Before(until) {
				until = due
			}
		}
		a.mu.Unlock()
		if !calm {
			b.calm.resting.Store(false)
			return
		}
	}
	if !drained {
		b.calm.resting.Store(false)
	}
	b.calm.until, b.calm.polled = until, len(b.accounts) > 0
}

// calmLocked reports whether only time will bring something to ask.
func (a *account) calmLocked(now time.Time) bool {
	quiet := now.Sub(a.last)
	return a.known && !a.frozen && a.need == 0 && a.answered == nil && a.told == a.mark && !a.last.After(a.at) && quiet >= settled &&
		(!a.short && !a.partial || quiet >= idle) && now.Sub(a.wanted) >= 2*again
}
