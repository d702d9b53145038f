// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"sync/atomic"
	"time"

	"github.com/weir-proxy/weir/policy"
)

// Budget is how much may be spent in a period.
type Budget struct {
	ID     int64
	Key    policy.KeyID    // whose it is; zero: the tenant's
	Tenant policy.TenantID // whose it is, or whose key's
	Amount int64           // nano-dollars, of each period, without what was topped up
	Period Period
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
	zone       *time.Location

	holder atomic.Pointer[account] // of the account; nil: look for it
}

func (s *span) covers(sec int64) bool { return sec >= s.start && sec < s.end }

// at returns the period that t falls into.
func (p *plan) at(t time.Time, zone *time.Location) *span {
	sec := t.Unix()
	if s := p.now.Load(); s != nil && s.zone == zone && s.covers(sec) {
		return s
	}
	s := spanOf(&p.Budget, t, zone)
	p.now.Store(s)
	return s
}

func spanOf(b *Budget, t time.Time, zone *time.Location) *span {
	start, end := b.Period.Around(t, zone)
	s := &span{account: policy.Account{Budget: b.ID}, zone: zone}
	if start.IsZero() {
		s.start, s.end = -1<<62, 1<<62
		return s
	}
	s.start, s.end = start.Unix(), end.Unix()
	s.account.Period = s.start
	return s
}

// AccountAt returns the account of a budget at a time, in the zone of its tenant, and when it ends; zero for never.
func (b *Budget) AccountAt(t time.Time, zone *time.Location) (a policy.Account, end time.Time) {
	start, end := b.Period.Around(t, zone)
	a.Budget = b.ID
	if !start.IsZero() {
		a.Period = start.Unix()
	}
	return a, end
}
