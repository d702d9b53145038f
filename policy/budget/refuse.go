// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"fmt"
	"net/http"
	"time"

	"github.com/weir-proxy/weir/policy"
)

// Codes of refusals. Clients rely on them: they never change.
const (
	CodeQuota       = "insufficient_quota"  // a budget is used up
	CodeLimited     = "rate_limit_exceeded" // there may be enough in a moment
	CodeUnavailable = "budget_unavailable"  // the bank cannot be asked
)

// soon is when to come back if there may be enough by then.
const soon = time.Second

// refuse says why an amount was not reserved.
func (b *Book) refuse(d *policy.Demand, s *shortage) *policy.Denial {
	now, whose := b.o.Clock(), s.whose(d.Key)
	a := s.account.lack(s.amount, now)
	b.o.Wake()
	room := minus(a.credit, a.spent)
	switch {
	case a.known && room < s.amount:
		b.counters.refused.Add(1)
		return exhausted(s, whose, now, room > 0)
	case b.failing.Load() || b.fenced.Load() || !b.joined.Load():
		b.counters.outage.Add(1)
		return b.unavailable()
	case !a.known:
		b.counters.pending.Add(1)
		return later(whose, "has not been read yet on this gateway")
	}
	b.counters.short.Add(1)
	return later(whose, "is reserved by requests that are under way")
}

// whose says of whom a budget is, for people.
func (a *applied) whose(k *policy.Key) string {
	if a.Key != 0 {
		return "key `" + k.Name + "`"
	}
	return "tenant `" + a.name + "`"
}

// exhausted refuses since a budget is used up, or nearly.
func exhausted(s *shortage, whose string, now time.Time, nearly bool) *policy.Denial {
	d := &policy.Denial{Status: http.StatusTooManyRequests, Type: CodeQuota, Code: CodeQuota}
	what := "is used up"
	if nearly {
		what = "has less left than this request may cost: ask for fewer tokens, or"
	}
	if s.Period == Never {
		how := ". It does not renew: ask the operator of this gateway to top it up."
		if nearly {
			how = " ask the operator of this gateway to top it up."
		}
		d.Message = fmt.Sprintf("The budget of %s %s%s", whose, what, how)
		return d
	}
	renews := time.Unix(s.span.end, 0).In(s.zone)
	d.RetryAfter = max(renews.Sub(now), time.Second)
	how := fmt.Sprintf(". It renews at %s.", renews.Format(time.RFC3339))
	if nearly {
		how = fmt.Sprintf(" wait until it renews at %s.", renews.Format(time.RFC3339))
	}
	d.Message = fmt.Sprintf("The budget of %s per %s %s%s", whose, s.Period, what, how)
	return d
}

// later refuses for a moment.
func later(whose, why string) *policy.Denial {
	return &policy.Denial{
		Status: http.StatusTooManyRequests, Type: "requests", Code: CodeLimited, RetryAfter: soon,
		Message: fmt.Sprintf("What is left of the budget of %s %s. Retry in a moment.", whose, why),
	}
}

// unavailable refuses since the bank cannot be asked.
func (b *Book) unavailable() *policy.Denial {
	d := &policy.Denial{
		Status: b.o.Outage, Type: "server_error", Code: CodeUnavailable, RetryAfter: 5 * soon,
		Message: "The gateway cannot reach its database, and what it may spend without asking is spent. Retry in a moment.",
	}
	if d.Status == http.StatusTooManyRequests {
		d.Type = "requests"
	}
	return d
}
