// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/policy"
)

// leaseKey names a lease.
type leaseKey struct {
	policy.Account
	holder uuid.UUID
}

// bankLease is a lease in a bank of the simulation.
type bankLease struct {
	granted, spent int64
	asked          time.Time
}

// row is a row of usage.
type row struct {
	charges    policy.Charges
	cost       int64
	unresolved bool
}

// books is all that a bank keeps: what is lost when it is set back.
type books struct {
	leases    map[leaseKey]bankLease
	epochs    map[uuid.UUID]int64
	counts    map[uuid.UUID]int64
	rows      map[uuid.UUID]row
	positions map[int]int // of logs
	wanted    map[policy.Account]time.Time
}

func (b *books) clone() *books {
	return &books{
		leases: maps.Clone(b.leases), epochs: maps.Clone(b.epochs), counts: maps.Clone(b.counts), rows: maps.Clone(b.rows),
		positions: maps.Clone(b.positions), wanted: maps.Clone(b.wanted),
	}
}

// bank is a [Bank] in memory, of one goroutine. What it decides, it decides by [Allot].
type bank struct {
	*books
	credit map[int64]int64 // of each period of a budget
	now    func() time.Time

	releaseAfter time.Duration // a mistake: leases of who has not asked for so long are released
}

func newBank(credit map[int64]int64, now func() time.Time) *bank {
	return &bank{credit: credit, now: now, books: &books{
		leases: make(map[leaseKey]bankLease), epochs: make(map[uuid.UUID]int64), counts: make(map[uuid.UUID]int64),
		rows: make(map[uuid.UUID]row), positions: make(map[int]int), wanted: make(map[policy.Account]time.Time),
	}}
}

func (b *bank) join(holder uuid.UUID) Joined {
	b.epochs[holder]++
	j := Joined{Epoch: b.epochs[holder], Count: b.counts[holder]}
	for k, l := range b.leases {
		if k.holder == holder {
			j.Leases = append(j.Leases, Lease{Account: k.Account, Granted: l.granted, Spent: l.spent})
		}
	}
	slices.SortFunc(j.Leases, func(a, b Lease) int { return compareAccounts(a.Account, b.Account) })
	return j
}

func (b *bank) state(a policy.Account, holder uuid.UUID) State {
	s := State{Credit: b.credit[a.Budget]}
	for k, l := range b.leases {
		if k.Account != a {
			continue
		}
		s.Spent += l.spent
		s.Charged += max(l.granted, l.spent)
		if k.holder == holder || l.granted > l.spent || b.now().Sub(l.asked) < time.Minute {
			s.Holders++
		}
	}
	return s
}

func (b *bank) sync(r Request) (Reply, error) {
	var reply Reply
	switch epoch := b.epochs[r.Holder]; {
	case epoch > r.Epoch:
		return Reply{}, ErrFenced
	case epoch < r.Epoch: // it has forgotten who joined
		b.epochs[r.Holder] = r.Epoch
		reply.SetBack = true
	}
	reply.SetBack = reply.SetBack || b.counts[r.Holder] < r.Count
	b.counts[r.Holder] = max(b.counts[r.Holder], r.Count) + 1
	reply.Count = b.counts[r.Holder]
	for _, ask := range r.Asks {
		k := leaseKey{ask.Account, r.Holder}
		l := b.leases[k]
		s := b.state(ask.Account, r.Holder)
		v := Allot(s, Lease{ask.Account, l.granted, l.spent}, ask)
		if v.Short {
			b.wanted[ask.Account] = b.now()
		}
		l.granted, l.asked = v.Granted, b.now()
		b.leases[k] = l
		reply.Grants = append(reply.Grants, Grant{Verdict: v, Credit: s.Credit, Spent: s.Spent, Lease: l.spent})
	}
	for a, at := range b.wanted {
		l := b.leases[leaseKey{a, r.Holder}]
		if b.now().Sub(at) < 3*time.Second && l.granted > l.spent {
			reply.Wanted = append(reply.Wanted, a)
		}
	}
	slices.SortFunc(reply.Wanted, compareAccounts)
	return reply, nil
}

// charge adds to what was spent of the leases that an exchange was reserved from.
func (b *bank) charge(c policy.Charges, cost int64) {
	for _, a := range c.Accounts {
		k := leaseKey{a, c.Holder}
		l := b.leases[k]
		l.spent += cost
		b.leases[k] = l
	}
}

// post writes the rows of a log up to a position.
func (b *bank) post(log int, lines []line, to int) {
	for _, l := range lines[b.positions[log]:to] {
		old, is := b.rows[l.exchange]
		if is && !old.unresolved {
			continue
		}
		if is {
			b.charge(old.charges, -old.cost)
		}
		b.rows[l.exchange] = row{charges: l.charges, cost: l.cost}
		b.charge(l.charges, l.cost)
	}
	b.positions[log] = to
}

// resolve writes the row of an exchange of which nobody knows the end, if it has none.
func (b *bank) resolve(exchange uuid.UUID, c policy.Charges) {
	if _, is := b.rows[exchange]; is {
		return
	}
	b.rows[exchange] = row{charges: c, cost: c.Reserved, unresolved: true}
	b.charge(c, c.Reserved)
}

// tend does what the mistake does.
func (b *bank) tend() {
	if b.releaseAfter == 0 {
		return
	}
	for _, k := range slices.SortedFunc(maps.Keys(b.leases), compareLeases) {
		if l := b.leases[k]; l.granted > l.spent && b.now().Sub(l.asked) > b.releaseAfter {
			l.granted = l.spent
			b.leases[k] = l
		}
	}
}

func compareLeases(a, b leaseKey) int {
	return cmp.Or(compareAccounts(a.Account, b.Account), slices.Compare(a.holder[:], b.holder[:]))
}
