// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"cmp"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/weir-proxy/weir/policy"
)

// Tenant is a place in the tree of tenants.
type Tenant struct {
	ID     policy.TenantID
	Parent policy.TenantID // zero: none
	Name   string          // for people
	Zone   *time.Location  // in which the periods of its budgets begin, and of its keys'; nil means UTC
}

// Change is what has become of budgets.
type Change struct {
	All     bool // Budgets are all that there are: others are gone
	Budgets []Budget
	Gone    []int64
}

// Index says which budgets apply to a key. It belongs to one [Book]. Look-ups go on while it is changed, which one goroutine at a time does; what a change
// costs grows with what changes, not with how many budgets there are.
type Index struct {
	tenants atomic.Pointer[map[policy.TenantID]*Tenant]
	plans   policy.Registry[int64, *plan]
	keys    policy.Registry[policy.KeyID, *plan]
	own     policy.Registry[policy.TenantID, *plan] // of tenants
}

// NewIndex returns an index of budgets: see [Index.SetTenants] and [Book.Change] for what is refused.
func NewIndex(tenants []Tenant, budgets []Budget) (*Index, error) {
	x := new(Index)
	if err := x.SetTenants(tenants); err != nil {
		return nil, err
	}
	_, err := x.change(Change{All: true, Budgets: budgets})
	return x, err
}

// SetTenants puts a tree of tenants in the place of the one before. It returns an error for what no store should hold: parents that are missing, tenants that
// are above themselves, or so many above one that more budgets than [policy.MaxCharged] could be over a key.
func (x *Index) SetTenants(tenants []Tenant) error {
	m := make(map[policy.TenantID]*Tenant, len(tenants))
	for _, t := range tenants {
		t.Zone = cmp.Or(t.Zone, time.UTC)
		m[t.ID] = &t
	}
	for _, t := range tenants {
		depth := 1
		for id := t.Parent; id != 0; depth++ {
			parent := m[id]
			if parent == nil {
				return fmt.Errorf("tenant %d: no tenant %d", t.ID, id)
			}
			if depth >= policy.MaxCharged-1 {
				return fmt.Errorf("tenant %d: it is above itself, or more than %d tenants are above it", t.ID, policy.MaxCharged-2)
			}
			id = parent.Parent
		}
	}
	x.tenants.Store(&m)
	return nil
}

// zoneOf returns the zone of a tenant. Whoever is not known spends nothing.
func (x *Index) zoneOf(id policy.TenantID) *time.Location {
	if t := x.tenant(id); t != nil {
		return t.Zone
	}
	return time.UTC
}

func (x *Index) tenant(id policy.TenantID) *Tenant {
	if m := x.tenants.Load(); m != nil {
		return (*m)[id]
	}
	return nil
}

// edit is a change on its way.
type edit struct {
	index *Index
	gone  []int64
	plans map[int64]*plan
	keys  owners[policy.KeyID]
	own   owners[policy.TenantID]
}

// owners are those whose budget changes.
type owners[K ~int64] struct {
	put  map[K]*plan
	gone []K
}

// change puts budgets in the place of those with the same ids, adds those that are new, and takes out those that are gone. It returns an error, and changes
// nothing, for what no store should hold: ids that are not positive or repeat, two budgets of one key or tenant, amounts that are negative or above MaxAmount,
// periods that are none.
func (x *Index) change(c Change) (changed []*plan, err error) {
	e := edit{index: x, gone: c.Gone, plans: make(map[int64]*plan, len(c.Budgets))}
	e.keys.put, e.own.put = make(map[policy.KeyID]*plan), make(map[policy.TenantID]*plan)
	for _, b := range c.Budgets {
		if err := b.check(); err != nil {
			return nil, fmt.Errorf("budget %d: %w", b.ID, err)
		}
		p := &plan{Budget: b}
		if e.plans[b.ID] != nil {
			return nil, fmt.Errorf("budget %d: there are two of its id", b.ID)
		}
		e.plans[b.ID] = p
		if twice := e.keys.add(b.Key, p) || b.Key == 0 && e.own.add(b.Tenant, p); twice {
			return nil, fmt.Errorf("budget %d: there are two of its owner", b.ID)
		}
		changed = append(changed, p)
	}
	if c.All {
		for id := range x.plans.All() {
			if e.plans[id] == nil {
				e.gone = append(e.gone, id)
			}
		}
	}
	e.publish()
	return changed, nil
}

func (o *owners[K]) add(k K, p *plan) (twice bool) {
	if k == 0 {
		return false
	}
	twice = o.put[k] != nil
	o.put[k] = p
	return twice
}

// publish makes the change. An owner whose budget is replaced by one with another id has one all the time.
func (e *edit) publish() {
	x := e.index
	leave := func(id int64) {
		p, ok := x.plans.Get(id)
		if !ok {
			return
		}
		if p.Key != 0 {
			if of, _ := x.keys.Get(p.Key); of == p {
				e.keys.gone = append(e.keys.gone, p.Key)
			}
		} else if of, _ := x.own.Get(p.Tenant); of == p {
			e.own.gone = append(e.own.gone, p.Tenant)
		}
	}
	for _, id := range e.gone {
		leave(id)
	}
	for id := range e.plans {
		leave(id) // the owner of a budget does not change, but nothing here relies on it
	}
	x.plans.Change(e.plans, e.gone)
	x.keys.Change(e.keys.put, e.keys.gone)
	x.own.Change(e.own.put, e.own.gone)
}

func (b *Budget) check() error {
	if b.ID <= 0 || b.Tenant <= 0 || b.Key < 0 {
		return fmt.Errorf("id %d of tenant %d and key %d", b.ID, b.Tenant, b.Key)
	}
	if b.Amount < 0 || b.Amount > MaxAmount {
		return fmt.Errorf("amount %d is not between 0 and %d nano-dollars", b.Amount, int64(MaxAmount))
	}
	_, err := ParsePeriod(string(b.Period))
	return err
}

// applied is a budget that applies to a key.
type applied struct {
	*plan
	zone *time.Location
	name string // of the tenant; empty: the key's budget
}

// over appends the budgets that apply to a key: its own, that of its tenant and those of the tenants above it.
func (x *Index) over(all []applied, key policy.KeyID, tenant policy.TenantID) []applied {
	if p, ok := x.keys.Get(key); ok {
		all = append(all, applied{plan: p, zone: x.zoneOf(tenant)})
	}
	for range policy.MaxCharged - 1 {
		t := x.tenant(tenant)
		if t == nil {
			break
		}
		if p, ok := x.own.Get(tenant); ok {
			all = append(all, applied{p, t.Zone, t.Name})
		}
		if tenant = t.Parent; tenant == 0 {
			break
		}
	}
	return all
}

// Applies reports whether any budget applies to a key.
func (x *Index) Applies(key policy.KeyID, tenant policy.TenantID) bool {
	var room [policy.MaxCharged]applied
	return len(x.over(room[:0], key, tenant)) > 0
}

// Budgets returns all budgets, in no order.
func (x *Index) Budgets() []Budget {
	all := make([]Budget, 0, x.plans.Len())
	for _, p := range x.plans.All() {
		all = append(all, p.Budget)
	}
	return all
}
