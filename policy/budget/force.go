// SPDX-License-Identifier: Apache-2.0

package budget

import "time"

// SetIndex puts all budgets and tenants of an index in force, which is the book's from then on. What was reserved stays so.
func (b *Book) SetIndex(x *Index) {
	b.index.Store(x)
	b.prepareAll()
	b.o.Wake()
}

// SetTenants puts another tree of tenants in force. See [Index.SetTenants].
func (b *Book) SetTenants(tenants []Tenant) error {
	if err := b.index.Load().SetTenants(tenants); err != nil {
		return err
	}
	if b.ahead { // those of a tenant that was not known had no zone
		b.prepareAll()
		b.o.Wake()
	}
	return nil
}

// Change puts a change of budgets in force. What was reserved stays so. It returns an error, and changes nothing, for what no store should hold: ids that are not positive
// or repeat, two budgets of one key or tenant, amounts that are negative or above MaxAmount, periods that are none.
func (b *Book) Change(c Change) error {
	x := b.index.Load()
	changed, err := x.change(c)
	if err != nil {
		return err
	}
	if ready := x.plans.Len() <= MaxAhead; ready != b.ahead {
		b.prepareAll()
	}
	now := b.o.Clock()
	for _, p := range changed {
		if a := b.prepare(x, p, now); a != nil {
			a.mu.Lock()
			a.renewLocked()
			a.mu.Unlock()
		}
	}
	b.o.Wake()
	return nil
}

// Budgets returns all budgets in force, in no order.
func (b *Book) Budgets() []Budget { return b.index.Load().Budgets() }

// prepareAll brings what is known of each budget to its account.
func (b *Book) prepareAll() {
	x, now := b.index.Load(), b.o.Clock()
	b.ahead = x.plans.Len() <= MaxAhead
	for _, p := range x.plans.All() {
		b.prepare(x, p, now)
	}
}

// prepare brings what is known of a budget to its account, and begins one if it is to be leased from ahead of need. It returns the account, if there is one.
func (b *Book) prepare(x *Index, p *plan, now time.Time) *account {
	if x.tenant(p.Tenant) == nil {
		return nil // nobody spends of it yet, and its zone is not known
	}
	s := spanOf(&p.Budget, now, x.zoneOf(p.Tenant))
	b.mu.Lock()
	a := b.accounts[s.account]
	b.mu.Unlock()
	if a == nil && b.ahead {
		a = b.account(s)
	}
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.amount != p.Amount {
		a.renewLocked()
	}
	a.amount, a.end, a.standby = p.Amount, s.end, b.ahead
	return a
}
