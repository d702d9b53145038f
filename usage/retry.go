// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// maxRetryAfter bounds what a provider may ask for; more is a mistake or a date from another year.
const maxRetryAfter = 24 * time.Hour

// retryAfter reads a Retry-After header, seconds or a date: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after. Some providers
// send fractions of a second. What it cannot read is zero.
func retryAfter(s string, now time.Time) time.Duration {
	if s == "" {
		return 0
	}
	if seconds, err := strconv.ParseFloat(s, 64); err == nil {
		if math.IsNaN(seconds) || seconds <= 0 {
			return 0
		}
		return time.Duration(min(seconds, maxRetryAfter.Seconds()) * float64(time.Second))
	}
	if at, err := http.ParseTime(s); err == nil {
		return min(max(at.Sub(now), 0), maxRetryAfter)
	}
	return 0
}

// backoff spaces out attempts at something that fails. The zero value allows one at once.
type backoff struct {
	failures int
	at       time.Time // not before
}

// fail notes a failure. The wait doubles with each, from shortest to longest, less up to half of it by chance, so that many
// processors do not come back to a database together.
func (b *backoff) fail(now time.Time, shortest, longest time.Duration) time.Duration {
	wait := longest
	if b.failures < 20 {
		wait = min(longest, shortest<<b.failures)
	}
	b.failures++
	wait -= time.Duration(rand.Int64N(int64(wait)/2 + 1))
	b.at = now.Add(wait)
	return wait
}
