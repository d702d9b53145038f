// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/weir-proxy/weir/policy"
)

// look keeps what the client is told: of all buckets that it takes from, the one that has least left.
func (v *views) look(b *bucket, share float64) {
	for m := range meters {
		if b.rule.rate[m] == 0 {
			continue
		}
		to := &v.requests
		if m != requests {
			to = &v.tokens
		}
		n := view{limit: b.rule.rate[m], left: math.Floor(max(0, b.level[m]) + 1e-9), set: true}
		if missing := b.cap(m, share) - b.level[m]; missing > 1e-9 {
			n.full = b.wait(m, missing, share)
		}
		to.least(n)
	}
	if c := b.rule.limit.Concurrent; c > 0 {
		v.slots.least(view{limit: float64(c), left: float64(max(0, b.rule.slots(share)-b.flight)), set: true})
	}
}

func (v *view) least(n view) {
	if !v.set || n.left < v.left {
		*v = n
	}
}

// headers are OpenAI's (https://platform.openai.com/docs/guides/rate-limits), with two of the same form for exchanges at once. Remaining is what would be
// admitted now, and reset is when no more would be gained by waiting.
func (v *views) headers() []policy.Header {
	h := make([]policy.Header, 0, 8)
	for _, of := range []struct {
		*view
		limit, left, reset string
	}{
		{&v.requests, "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"},
		{&v.tokens, "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"},
		{&v.slots, ConcurrencyHeader, "x-ratelimit-remaining-concurrency", ""},
	} {
		if !of.set {
			continue
		}
		h = append(h, policy.Header{Name: of.limit, Value: integer(of.view.limit)}, policy.Header{Name: of.left, Value: integer(of.view.left)})
		if of.reset != "" {
			h = append(h, policy.Header{Name: of.reset, Value: span(of.full)})
		}
	}
	return h
}

// ConcurrencyHeader is among the headers of an exchange that counts among those at once. Its end should be told as soon as possible.
const ConcurrencyHeader = "x-ratelimit-limit-concurrency"

func integer(f float64) string { return strconv.FormatInt(int64(f), 10) }

// span writes a time as OpenAI does: "120ms", "6m0s". It is rounded up.
func span(d time.Duration) string {
	step := time.Second
	switch {
	case d <= 0:
		return "0s"
	case d < time.Second:
		step = time.Millisecond
	case d < time.Minute:
		step = 10 * time.Millisecond
	}
	up := d + step - 1
	return (up - up%step).String()
}

// denial tells a client which limit it has met, and when it may come back.
func denial(d *policy.Demand, r *rule, l *lack, seen *views) *policy.Denial {
	names := [...]struct{ what, kind string }{
		requests: {"requests per min (RPM)", "requests"},
		input:    {"input tokens per min", "tokens"},
		output:   {"output tokens per min", "tokens"},
		total:    {"tokens per min (TPM)", "tokens"},
		meters:   {"concurrent requests", "requests"},
	}
	of := whose(r)
	if r.all {
		of += " for all models"
	} else {
		of += fmt.Sprintf(" for the models `%s`", r.limit.Model)
	}
	out := &policy.Denial{
		Status: http.StatusTooManyRequests, Type: names[l.meter].kind, Code: policy.CodeRateLimit, RetryAfter: l.wait, Headers: seen.headers(),
	}
	switch {
	case l.meter == meters:
		out.Message = fmt.Sprintf("Rate limit reached for `%s` %s on %s: Limit %d. Please try again when one of them has ended.",
			d.Model, of, names[l.meter].what, r.limit.Concurrent)
	case l.wait == 0:
		out.Message = fmt.Sprintf("Request too large for `%s` %s on %s: Limit %s, Requested %s. Make it shorter, or lower its limit of output tokens.",
			d.Model, of, names[l.meter].what, integer(r.rate[l.meter]), integer(l.need))
	default:
		out.Message = fmt.Sprintf("Rate limit reached for `%s` %s on %s: Limit %s, Remaining %s, Requested %s. Please try again in %s.",
			d.Model, of, names[l.meter].what, integer(r.rate[l.meter]), integer(math.Floor(max(0, l.left))), integer(l.need), span(l.wait))
	}
	if l.wait > 0 {
		out.Headers = append(out.Headers, policy.Header{Name: "retry-after-ms", Value: strconv.FormatInt(l.wait.Milliseconds(), 10)})
	}
	return out
}

// whose says whom a limit holds, as the client knows them.
func whose(r *rule) string {
	switch {
	case r.limit.Key != 0 || r.limit.Each:
		return "on this API key"
	case r.limit.Tenant != 0:
		return "on this account"
	}
	return "on this gateway"
}
