// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// How long a channel is left alone after a failed attempt.
const (
	coolThrottled = 5 * time.Second  // 429 that does not say how long
	coolRefused   = time.Minute      // 401, 403: the credential is bad, which does not mend itself soon
	coolBroken    = 2 * time.Second  // 5xx, no connection, no answer: doubles with every failure in a row
	coolMost      = time.Minute      // of coolBroken
	coolMostAsked = 10 * time.Minute // of what a provider may ask for by retry-after
)

// Failure is an attempt that a channel did not answer well.
type Failure struct {
	Channel    ChannelID
	Status     int           // of the answer; zero when there was none
	RetryAfter time.Duration // as the provider asked; zero when it did not
	Connect    bool          // no connection was made, or it broke before an answer
}

// Cooldowns remembers in memory which channels failed of late. The zero value is ready to use, by many goroutines at once.
//
// Only failures are told to it, never successes: so failures count as being in a row when the next comes before the channel has
// been out of its cool-down for as long again as it was in it.
type Cooldowns struct {
	latest atomic.Int64 // the end of the last cool-down, in Unix nanoseconds: most of the time it is past and there is nothing to look up

	mu       sync.RWMutex
	channels map[ChannelID]cooldown
}

type cooldown struct {
	until  time.Time
	length time.Duration // of the cool-down that ends then
}

var _ Health = (*Cooldowns)(nil)

// Cooling implements [Health].
func (c *Cooldowns) Cooling(id ChannelID, now time.Time) bool {
	if now.UnixNano() >= c.latest.Load() {
		return false
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	return now.Before(c.channels[id].until)
}

// Failed tells of an attempt that failed. Statuses that are the client's fault cool nothing.
func (c *Cooldowns) Failed(f Failure, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.channels[f.Channel]
	length, more := f.length(last, now)
	if length == 0 {
		return
	}
	until := now.Add(length)
	if !more || until.Before(last.until) {
		return
	}
	if c.channels == nil {
		c.channels = make(map[ChannelID]cooldown)
	}
	c.forgetLocked(now)
	c.channels[f.Channel] = cooldown{until: until, length: length}
	c.latest.Store(max(c.latest.Load(), until.UnixNano()))
}

// length returns how long the failure cools its channel, and whether it says more than the cool-down that is on: the failures of
// requests that were on their way together count once.
func (f *Failure) length(last cooldown, now time.Time) (length time.Duration, more bool) {
	switch {
	case f.Status == http.StatusTooManyRequests:
		return f.asked(), true
	case f.Status == http.StatusUnauthorized || f.Status == http.StatusForbidden:
		return coolRefused, true
	case f.Connect || f.Status == 0 || f.Status >= http.StatusInternalServerError:
		if now.Before(last.until) {
			return coolBroken, false
		}
		if now.Before(last.until.Add(last.length)) {
			return min(max(2*last.length, coolBroken), coolMost), true
		}
		return coolBroken, true
	}
	return 0, false
}

// asked returns how long a channel that throttles wants to be left alone.
func (f *Failure) asked() time.Duration {
	if f.RetryAfter <= 0 {
		return coolThrottled
	}
	return min(max(f.RetryAfter, time.Second), coolMostAsked)
}

// forgetLocked drops what no longer counts, now and then: channels come and go.
func (c *Cooldowns) forgetLocked(now time.Time) {
	const enough = 1024
	if len(c.channels) < enough {
		return
	}
	for id, cd := range c.channels {
		if now.After(cd.until.Add(cd.length)) {
			delete(c.channels, id)
		}
	}
}
