// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"cmp"
	"fmt"
	"math"
	"time"

	"github.com/weir-proxy/weir/policy"
)

// ID names a [Limit]. It is positive.
type ID int64

// Limit is what an operator has set for some exchanges: those of a key, of a tenant, or of all, and of the models that a pattern describes.
type Limit struct {
	ID     ID
	Tenant policy.TenantID // zero: of all tenants
	Key    policy.KeyID    // zero: of all keys

	// Each says that every key has a bucket of its own, instead of one for all of them. Such a limit of a tenant, or of all, is a default: it does not
	// count for a key that has a limit with the same pattern itself, nor does that of all where the tenant has one.
	Each bool

	Model string // a name, possibly with * as a wildcard; empty means all. All models that it describes share the bucket.
	Rates
}

// Rates are what a [Limit] allows. Zero means that this is not limited.
type Rates struct {
	Requests   int64 // in a minute
	Input      int64 // tokens in a minute
	Output     int64 // tokens in a minute
	Total      int64 // tokens in a minute, of both kinds
	Concurrent int64 // exchanges at once

	// Burst says how much may come at once: what falls due in that time, and one request at least. Zero means [DefaultBurst].
	Burst time.Duration
}

// Bounds of [Rates].
const (
	MaxRate       = 1_000_000_000_000
	MaxConcurrent = 1_000_000
	MinBurst      = time.Second
	MaxBurst      = time.Minute
	DefaultBurst  = 10 * time.Second
)

// Check says what is wrong with the rates, if anything is.
func (r *Rates) Check() error {
	for _, v := range []struct {
		name    string
		n, most int64
	}{
		{"requests", r.Requests, MaxRate},
		{"input tokens", r.Input, MaxRate},
		{"output tokens", r.Output, MaxRate},
		{"tokens", r.Total, MaxRate},
		{"exchanges at once", r.Concurrent, MaxConcurrent},
	} {
		if v.n < 0 || v.n > v.most {
			return fmt.Errorf("limit of %d %s: it must be from 1 to %d; none is no limit", v.n, v.name, v.most)
		}
	}
	if r.Burst != 0 && (r.Burst < MinBurst || r.Burst > MaxBurst) {
		return fmt.Errorf("burst %s: it must be from %s to %s", r.Burst, MinBurst, MaxBurst)
	}
	if r.Requests == 0 && r.Input == 0 && r.Output == 0 && r.Total == 0 && r.Concurrent == 0 {
		return fmt.Errorf("it limits nothing: set at least one of its rates")
	}
	return nil
}

// meter is one of the things that are counted by the minute.
type meter int

const (
	requests meter = iota
	input
	output
	total
	meters
)

// rule is a limit, made ready for use.
type rule struct {
	limit Limit
	glob  policy.Pattern
	all   bool // every model
	rate  [meters]float64
	burst [meters]float64
}

// perSecond returns how fast a meter fills, of the whole limit.
func (r *rule) perSecond(m meter) float64 { return r.rate[m] / 60 }

// slots returns how many exchanges a share of the limit allows at once.
func (r *rule) slots(share float64) int64 {
	return max(1, int64(math.Floor(float64(r.limit.Concurrent)*share+1e-9)))
}

func newRule(l Limit) *rule {
	r := &rule{limit: l, glob: policy.NewPattern(l.Model), all: l.Model == "" || l.Model == "*"}
	r.rate = [meters]float64{float64(l.Requests), float64(l.Input), float64(l.Output), float64(l.Total)}
	part := float64(cmp.Or(l.Burst, DefaultBurst)) / float64(time.Minute)
	for m := range r.rate {
		if r.rate[m] > 0 {
			r.burst[m] = max(1, r.rate[m]*part)
		}
	}
	return r
}

// Table is all limits, made ready for look-ups. It is immutable.
type Table struct {
	byID   map[ID]*rule
	all    []*rule
	tenant map[policy.TenantID][]*rule
	key    map[policy.KeyID][]*rule
}

// NewTable checks limits and makes a table of them. It returns an error for those that no store should hold.
func NewTable(limits []Limit) (*Table, error) {
	t := &Table{byID: make(map[ID]*rule, len(limits)), tenant: make(map[policy.TenantID][]*rule), key: make(map[policy.KeyID][]*rule)}
	for _, l := range limits {
		if _, twice := t.byID[l.ID]; l.ID <= 0 || twice {
			return nil, fmt.Errorf("limit %d: id is not positive or not unique", l.ID)
		}
		if err := l.Check(); err != nil {
			return nil, fmt.Errorf("limit %d: %w", l.ID, err)
		}
		r := newRule(l)
		t.byID[l.ID] = r
		switch {
		case l.Key != 0:
			t.key[l.Key] = append(t.key[l.Key], r)
		case l.Tenant != 0:
			t.tenant[l.Tenant] = append(t.tenant[l.Tenant], r)
		default:
			t.all = append(t.all, r)
		}
	}
	return t, nil
}

// Len returns how many limits the table has.
func (t *Table) Len() int { return len(t.byID) }

// hit is a bucket that an exchange takes from.
type hit struct {
	rule    *rule
	subject int64 // the key whose bucket it is; zero: that of all
}

// match appends the buckets of an exchange to hits: those of the key first, so that it is held to its own limit before it takes from others'.
func (t *Table) match(hits []hit, d *policy.Demand) []hit {
	own, tenant := t.key[d.Key.ID], t.tenant[d.Tenant.ID]
	for _, r := range own {
		if r.describes(d.Model) {
			hits = append(hits, hit{rule: r})
		}
	}
	for _, r := range tenant {
		if r.describes(d.Model) && (!r.limit.Each || !hasPattern(own, r.limit.Model, false)) {
			hits = append(hits, r.hit(d))
		}
	}
	for _, r := range t.all {
		if r.describes(d.Model) && (!r.limit.Each || !hasPattern(own, r.limit.Model, false) && !hasPattern(tenant, r.limit.Model, true)) {
			hits = append(hits, r.hit(d))
		}
	}
	return hits
}

func (r *rule) describes(model string) bool { return r.all || r.glob.Match(model) }

func (r *rule) hit(d *policy.Demand) hit {
	if r.limit.Each {
		return hit{rule: r, subject: int64(d.Key.ID)}
	}
	return hit{rule: r}
}

// hasPattern reports whether one of the rules is for the same models; with each, only those count that are for each key.
func hasPattern(rules []*rule, model string, each bool) bool {
	for _, r := range rules {
		if (r.limit.Each || !each) && (r.limit.Model == model || r.all && (model == "" || model == "*")) {
			return true
		}
	}
	return false
}
