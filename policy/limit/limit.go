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
