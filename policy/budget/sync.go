// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/weir-proxy/weir/policy"
)

// poll is how often the bank is asked, also with nothing to ask for, whether it was set back and what others need.
const poll = time.Second

// Joined takes in what the bank has of earlier lives. Whatever they were granted counts as used until [Book.Drained].
func (b *Book) Joined(j Joined) {
	b.epoch, b.count = j.Epoch, j.Count
	for _, l := range j.Leases {
		a := b.account(&span{account: l.Account, end: 1 << 62})
		a.mu.Lock()
		a.frozen = true
		a.granted = max(a.granted, l.Granted)
		a.used = max(minus(a.granted, a.reserved), l.Spent)
		a.mu.Unlock()
	}
	b.joined.Store(true)
}

// Drained tells that all that was in the logs when the process began is in the bank: what earlier lives used is then what the bank says.
func (b *Book) Drained() { b.drained.Store(true) }

// maxAsks is how many accounts one request to the bank is about.
const maxAsks = 500

// Next returns what to ask the bank now, and whether there is anything to ask: first what requests were refused for, or wait for. It comes after Joined.
func (b *Book) Next() (r Request, due bool) {
	if b.fenced.Load() {
		return Request{}, false
	}
	b.calm.resting.Store(true)
	now, drained := b.o.Clock(), b.drained.Load()
	b.rollOver(now)
	r = Request{Holder: b.holder, Epoch: b.epoch, Count: b.count}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, needed := range [...]bool{true, false} {
		for key, a := range b.accounts {
			if r.More = len(r.Asks) == maxAsks; r.More {
				break
			}
			a.mu.Lock()
			if a.emptyLocked(now) {
				a.gone = true
				delete(b.accounts, key)
			} else if a.need > 0 == needed {
				if ask, ok := a.askLocked(now, drained); ok {
					r.Asks = append(r.Asks, ask)
				}
			}
			a.mu.Unlock()
		}
	}
	b.restLocked(now, drained)
	slices.SortFunc(r.Asks, func(a, b Ask) int { return compareAccounts(a.Account, b.Account) })
	since := now.Sub(b.calm.synced)
	return r, len(r.Asks) > 0 || len(b.accounts) > 0 && (since < 0 || since >= poll)
}

// compareAccounts is the order in which accounts are locked.
func compareAccounts(a, b policy.Account) int {
	return cmp.Or(cmp.Compare(a.Budget, b.Budget), cmp.Compare(a.Period, b.Period))
}

// rollOver begins the accounts of periods that begin soon, or have begun, for budgets that are in use or held ready.
func (b *Book) rollOver(now time.Time) {
	x := b.index.Load()
	soon := now.Add(rollover)
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, a := range b.accounts {
		p, known := x.plans.Get(key.Budget)
		if key.Period == 0 || !known {
			continue
		}
		zone := x.zoneOf(p.Tenant)
		s := p.at(now, zone)
		if b.accounts[s.account] != nil && soon.Unix() >= s.end {
			s = spanOf(&p.Budget, soon, zone)
		}
		if b.accounts[s.account] != nil {
			continue
		}
		a.mu.Lock()
		next := &account{Account: s.account, end: s.end, amount: p.Amount}
		next.standby, next.rate, next.biggest, next.last, next.rated = a.standby, a.rate, a.biggest, a.last, now
		inUse := now.Sub(a.last) < idle || a.standby
		a.mu.Unlock()
		if inUse {
			b.accounts[s.account] = next
		}
	}
}

// Granted takes in the answer to what Next returned.
func (b *Book) Granted(r Request, reply Reply) {
	now := b.o.Clock()
	b.failing.Store(false)
	b.calm.synced, b.count = now, reply.Count
	if reply.SetBack {
		b.doubt()
	}
	for i, ask := range r.Asks {
		a := b.lookUp(ask.Account)
		if a == nil {
			continue
		}
		g := reply.Grants[i]
		if g.Forgotten {
			b.counters.forgotten.Add(1)
		}
		a.mu.Lock()
		a.answerLocked(ask, g)
		if g.Gone {
			a.granted, a.standby = 0, false
		}
		a.mu.Unlock()
	}
	if len(r.Asks)+len(reply.Wanted) > 0 || reply.SetBack {
		b.calm.resting.Store(false)
	}
	for _, key := range reply.Wanted {
		if a := b.lookUp(key); a != nil {
			a.mu.Lock()
			a.wanted = now
			a.mu.Unlock()
		}
	}
}

func (b *Book) lookUp(key policy.Account) *account {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.accounts[key]
}

// doubt has every account count what it has used by itself from now on.
func (b *Book) doubt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range b.accounts {
		a.mu.Lock()
		a.doubtLocked()
		a.mu.Unlock()
	}
}

// Failed takes in that the bank did not answer. It may have done what it was asked for all the same.
func (b *Book) Failed(r Request, err error) {
	if errors.Is(err, ErrFenced) {
		b.fenced.Store(true)
	}
	b.failing.Store(true)
	b.calm.resting.Store(false)
	b.calm.synced = b.o.Clock()
	for _, ask := range r.Asks {
		if a := b.lookUp(ask.Account); a != nil {
			a.mu.Lock()
			if ask.Need > 0 && (a.need == 0 || ask.Need < a.need) {
				a.need = ask.Need // it is still needed
			}
			a.answerWaitersLocked()
			a.mu.Unlock()
		}
	}
}

// Retire returns what to ask the bank when nothing is admitted any more: to take back all that is not used or reserved.
func (b *Book) Retire() (r Request, due bool) {
	if b.fenced.Load() || !b.joined.Load() {
		return Request{}, false
	}
	r = Request{Holder: b.holder, Epoch: b.epoch, Count: b.count}
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, a := range b.accounts {
		a.mu.Lock()
		keep := plus(a.used, a.reserved)
		if !a.frozen && a.known && a.granted > keep {
			a.granted = keep
			a.mark = a.told
			r.Asks = append(r.Asks, Ask{Account: key, Floor: keep, Keep: keep})
		}
		a.mu.Unlock()
	}
	slices.SortFunc(r.Asks, func(a, b Ask) int { return compareAccounts(a.Account, b.Account) })
	return r, len(r.Asks) > 0
}

// Fenced reports whether another processor has taken over the leases.
func (b *Book) Fenced() bool { return b.fenced.Load() }
