// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"cmp"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/weir-proxy/weir/policy"
)

// Budget is how much may be spent in a period.
type Budget struct {
	ID     int64
	Name   string          // of whose it is, for people: "key `bot`"
	Key    policy.KeyID    // whose it is; zero: the tenant's
	Tenant policy.TenantID // whose it is, or whose key's
	Amount int64           // nano-dollars, of each period, without what was topped up
	Period Period
	Zone   *time.Location // nil means UTC
}

// plan is a budget in force, and the period that it is in.
type plan struct {
	Budget
	now atomic.Pointer[span] // the last one that was asked for; nil before
}

// span is a period of a budget.
type span struct {
	account    policy.Account
	start, end int64 // in seconds since 1970; of a budget that never renews, it never ends

	holder atomic.Pointer[account] // of the account; nil: look for it
}

func (s *span) covers(sec int64) bool { return sec >= s.start && sec < s.end }

// at returns the period that t falls into.
func (p *plan) at(t time.Time) *span {
	sec := t.Unix()
	if s := p.now.Load(); s != nil && s.covers(sec) {
		return s
	}
	s := spanOf(&p.Budget, t)
	p.now.Store(s)
	return s
}

func spanOf(b *Budget, t time.Time) *span {
	start, end := b.Period.Around(t, b.Zone)
	s := &span{account: policy.Account{Budget: b.ID}}
	if start.IsZero() {
		s.start, s.end = -1<<62, 1<<62
		return s
	}
	s.start, s.end = start.Unix(), end.Unix()
	s.account.Period = s.start
	return s
}

// AccountAt returns the account of a budget at a time, and when it ends; zero for never.
func (b *Budget) AccountAt(t time.Time) (a policy.Account, end time.Time) {
	zone := cmp.Or(b.Zone, time.UTC)
	start, end := b.Period.Around(t, zone)
	a.Budget = b.ID
	if !start.IsZero() {
		a.Period = start.Unix()
	}
	return a, end
}

// Tenant is a place in the tree of tenants.
type Tenant struct {
	ID     policy.TenantID
	Parent policy.TenantID // zero: none
}

// Index says which budgets apply to a key. Its budgets do not change. It belongs to one [Book].
type Index struct {
	keys    map[policy.KeyID]*plan
	tenants map[policy.TenantID][]*plan // its own and those above it; absent: none
	plans   map[int64]*plan
}

// NewIndex checks the budgets and indexes them. It returns an error for what no store should hold: ids that are not positive or repeat, two budgets of one
// key or tenant, amounts that are negative or above MaxAmount, periods that are none, tenants that are missing or above themselves, and more budgets over a
// key than [policy.MaxCharged].
func NewIndex(tenants []Tenant, budgets []Budget) (*Index, error) {
	x := &Index{keys: make(map[policy.KeyID]*plan), tenants: make(map[policy.TenantID][]*plan), plans: make(map[int64]*plan, len(budgets))}
	own := make(map[policy.TenantID]*plan)
	for _, b := range budgets {
		b.Zone = cmp.Or(b.Zone, time.UTC)
		if err := b.check(); err != nil {
			return nil, fmt.Errorf("budget %d: %w", b.ID, err)
		}
		p := &plan{Budget: b}
		twice := x.plans[b.ID] != nil
		x.plans[b.ID] = p
		if b.Key != 0 {
			twice = twice || x.keys[b.Key] != nil
			x.keys[b.Key] = p
		} else {
			twice = twice || own[b.Tenant] != nil
			own[b.Tenant] = p
		}
		if twice {
			return nil, fmt.Errorf("budget %d: there are two of its id, or of its owner", b.ID)
		}
	}
	if len(own) == 0 {
		return x, nil
	}
	parents := make(map[policy.TenantID]policy.TenantID, len(tenants))
	for _, t := range tenants {
		parents[t.ID] = t.Parent
	}
	for _, t := range tenants {
		chain, err := chainOf(t.ID, parents, own)
		if err != nil {
			return nil, fmt.Errorf("tenant %d: %w", t.ID, err)
		}
		if len(chain) > 0 {
			x.tenants[t.ID] = chain
		}
	}
	return x, nil
}

func chainOf(id policy.TenantID, parents map[policy.TenantID]policy.TenantID, own map[policy.TenantID]*plan) (chain []*plan, err error) {
	for depth := 0; id != 0; depth++ {
		parent, known := parents[id]
		if !known {
			return nil, fmt.Errorf("no tenant %d", id)
		}
		if depth >= policy.MaxCharged-1 {
			return nil, fmt.Errorf("it is above itself, or more than %d tenants are above it", policy.MaxCharged-2)
		}
		if p := own[id]; p != nil {
			chain = append(chain, p)
		}
		id = parent
	}
	return chain, nil
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

// over returns the budgets that apply to a key: its own, and those of its tenant and of the tenants above it.
func (x *Index) over(key policy.KeyID, tenant policy.TenantID) (own *plan, above []*plan) {
	if x == nil {
		return nil, nil
	}
	return x.keys[key], x.tenants[tenant]
}

// Applies reports whether any budget applies to a key.
func (x *Index) Applies(key policy.KeyID, tenant policy.TenantID) bool {
	own, above := x.over(key, tenant)
	return own != nil || len(above) > 0
}
