// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"sync"
	"time"

	"github.com/weir-proxy/weir/policy"
)

// Times by which a lease is kept as large as it has to be. None of them matters for whether a budget can be overspent.
const (
	ahead     = 3 * time.Second        // of spending that a lease should have room for
	pressed   = time.Second            // the same while others need more than there is
	hurry     = 100 * time.Millisecond // between two asks of one account at least
	again     = time.Second            // between two asks of an account of which there was not enough
	refresh   = 5 * time.Second        // after which the bank is asked how an account stands that is used
	idle      = 30 * time.Second       // after which a lease that is not used goes back
	recalled  = time.Minute            // how long nothing is held ready for later after others needed it
	rollover  = 10 * time.Second       // before the end of a period, the next one is leased from
	standbyOf = 16                     // the part of a budget that is leased before anybody asks for it, as a divisor
)

// account is what this holder has of a budget in a period.
//
//	granted = used + reserved + free
type account struct {
	policy.Account
	amount int64 // of the budget, as it was last known here
	end    int64 // of the period, in seconds since 1970

	mu       sync.Mutex    // guards what follows
	granted  int64         // that may be counted on
	used     int64         // by exchanges that have ended
	reserved int64         // by exchanges that have not
	told     int64         // what exchanges cost whose end was told here, since the process began
	gone     bool          // forgotten: look for another
	answered chan struct{} // closed when the bank has answered, or failed to; nil: nobody waits for that
	learned
	tempo
	asked
}

// learned is what is known from the bank.
type learned struct {
	known  bool  // it has answered once
	credit int64 // then
	spent  int64 // then, by all holders
	frozen bool  // what earlier lives used is not known yet: all that they were granted counts as used
	doubt  bool  // the bank was set back since: what it says was spent may be too little
	least  int64 // if in doubt, used - told at that time
}

// tempo is how fast an account is used.
type tempo struct {
	taken   int64     // reserved since rated
	rate    int64     // nano-dollars a second that are reserved, lately
	biggest int64     // reservation lately
	rated   time.Time // when the rate was last reckoned
	last    time.Time // reservation, or refusal of one
	need    int64     // the smallest that was refused since the last ask; zero: none
	wanted  time.Time // by others, as last heard
	standby bool      // it is to have something before it is asked for
}

// asked is how the last ask went.
type asked struct {
	at      time.Time // when it was made
	short   bool      // there was not enough
	partial bool      // there was less than was wanted
	mark    int64     // told, when the ask under way was made
	fresh   bool      // the answer to the ask under way tells what was used, although it was not known before
}

func (a *account) freeLocked() int64 { return minus(minus(a.granted, a.used), a.reserved) }

// take reserves an amount, or says how much is free.
func (a *account) take(amount int64, now time.Time) (free int64, ok, gone bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone {
		return 0, false, true
	}
	if free = a.freeLocked(); amount > free {
		return free, false, false
	}
	a.last = now
	a.reserved += amount
	a.taken = plus(a.taken, amount)
	a.biggest = max(a.biggest, amount)
	return free, true, false
}

// lack notes that there was not so much.
func (a *account) lack(amount int64, now time.Time) learned {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lackLocked(amount, now)
	return a.learned
}

func (a *account) lackLocked(amount int64, now time.Time) {
	a.last = now
	if a.need == 0 || amount < a.need {
		a.need = amount
	}
}

// hope notes that there was not so much, and returns what is closed when the bank has answered: nil if nothing is to be hoped for from that, since the
// bank has said lately that there is no more.
func (a *account) hope(amount int64, now time.Time) <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone || a.short || a.partial || a.known && minus(a.credit, a.spent) < amount {
		return nil
	}
	a.lackLocked(amount, now)
	if a.answered == nil {
		a.answered = make(chan struct{})
	}
	return a.answered
}

// renewLocked forgets what the bank has said of how much there is: the budget has changed since, or was paid into. It is to be asked at once.
func (a *account) renewLocked() {
	a.at, a.short, a.partial, a.known = time.Time{}, false, false, false
}

// answerWaitersLocked lets everybody look again who waits for the bank.
func (a *account) answerWaitersLocked() {
	if a.answered != nil {
		close(a.answered)
		a.answered = nil
	}
}

// release ends a reservation. What the exchange cost takes its place.
func (a *account) release(amount, cost int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reserved -= amount
	a.used = plus(a.used, cost)
	a.told = plus(a.told, cost)
}

// rateLocked reckons how fast the account is used.
func (a *account) rateLocked(now time.Time) {
	d := now.Sub(a.rated)
	if d < time.Second && !a.rated.IsZero() {
		return
	}
	if now.Sub(a.last) > refresh {
		a.biggest = 0
	}
	lately := int64(float64(a.taken) / max(d.Seconds(), 1))
	a.rate = max(lately, (a.rate+lately)/2)
	a.taken, a.rated = 0, now
}

// wantLocked returns how much should be free.
func (a *account) wantLocked(now time.Time) int64 {
	quiet := now.Sub(a.last) >= idle || now.Unix() >= a.end
	if !a.wanted.IsZero() && now.Sub(a.wanted) < recalled {
		if quiet || a.short {
			return 0
		}
		return max(times(a.rate, pressed), a.biggest)
	}
	standby := int64(0)
	if a.standby && now.Unix() < a.end {
		standby = max(a.amount, a.credit) / standbyOf
	}
	if quiet {
		return standby
	}
	return max(times(a.rate, ahead), 4*min(a.biggest, MaxAmount/4), standby)
}

func times(rate int64, d time.Duration) int64 {
	return int64(min(float64(rate)*d.Seconds(), MaxAmount))
}

// askLocked returns what to ask, if it is time to. What is to be given back is not counted on from then on.
func (a *account) askLocked(now time.Time, drained bool) (ask Ask, due bool) {
	a.rateLocked(now)
	want, free := a.wantLocked(now), a.freeLocked()
	since := now.Sub(a.at)
	pause, patience := hurry, hurry
	if a.short || a.partial {
		pause, patience = again, again
		if now.Sub(a.last) >= idle {
			patience = recalled // nobody waits for more
		}
	}
	thaw := a.frozen && drained
	surplus := free > want && (want == 0 || free-want > want) && !a.frozen
	switch {
	case !a.at.IsZero() && since >= 0 && since < pause: // a clock that was set back does not keep it waiting
		return Ask{}, false
	case thaw, a.need > 0, a.known && a.at.IsZero():
	case surplus && (!a.wanted.IsZero() && now.Sub(a.wanted) < again || now.Sub(a.last) >= idle || now.Unix() >= a.end):
	case (free < want/2 || want > 0 && !a.known) && (a.at.IsZero() || since < 0 || since >= patience):
	case since >= refresh && (a.last.After(a.at) || a.told != a.mark):
	default:
		return Ask{}, false
	}
	keep := plus(a.used, a.reserved)
	switch {
	case a.frozen:
	case a.short && a.need > 0: // what is left is of no use to what is asked for
		a.granted = min(a.granted, max(keep, 0))
	case surplus:
		a.granted = min(a.granted, plus(keep, want))
	}
	ask = Ask{Account: a.Account, Floor: a.granted, Keep: keep, Need: a.need, Want: want}
	a.at, a.mark, a.fresh = now, a.told, thaw
	a.need = 0
	return ask, true
}

// answerLocked takes in the answer.
func (a *account) answerLocked(ask Ask, g Grant) {
	defer a.answerWaitersLocked()
	since := minus(a.told, a.mark)
	switch {
	case a.doubt:
		a.frozen = a.frozen && !a.fresh
		a.used = max(plus(g.Lease, since), plus(a.least, a.told))
	case a.frozen && !a.fresh:
	default:
		a.frozen = false
		a.used = plus(g.Lease, since)
	}
	a.granted = g.Granted
	a.known, a.credit, a.spent = true, g.Credit, g.Spent
	a.short = g.Short
	if !g.Short {
		a.biggest = max(a.biggest, ask.Need) // so that it is still there when whoever needed it comes again
	}
	a.partial = g.Granted < plus(ask.Keep, ask.Want)
}

// doubtLocked has what was used counted on, whatever the bank says from now on.
func (a *account) doubtLocked() {
	if !a.doubt {
		a.doubt, a.least = true, minus(a.used, a.told)
	}
	a.at = time.Time{} // the bank is to hear at once what is held
}

// emptyLocked reports whether nothing is lost if the account is forgotten.
func (a *account) emptyLocked(now time.Time) bool {
	if a.answered != nil {
		return false
	}
	over := now.Unix() >= a.end+int64(idle/time.Second)
	return a.reserved == 0 && a.granted <= a.used && a.known && a.need == 0 && !a.frozen && (over || !a.standby && now.Sub(a.last) >= idle)
}
