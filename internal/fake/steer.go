// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// steering is what the x-fake-* headers of one request ask for. The package comment documents them.
type steering struct {
	delay      time.Duration
	interval   time.Duration
	tokens     int // negative: not given
	status     int // zero: not given
	retryAfter int // seconds; negative: not given
	cutAfter   int // events; negative: not given
	frame      int // bytes; zero: one write per event
	noUsage    bool
	usageLast  bool
}

// unsteered is the steering of a request without x-fake-* headers.
func unsteered() steering { return steering{tokens: -1, retryAfter: -1, cutAfter: -1} }

// readSteering reads the x-fake-* headers. The error names the header and its limits.
func readSteering(h http.Header) (steering, error) {
	s := unsteered()
	var delay, interval int
	numbers := [...]struct {
		name     string
		min, max int
		to       *int
	}{
		{"X-Fake-Delay-Ms", 0, 600_000, &delay},
		{"X-Fake-Interval-Ms", 0, 60_000, &interval},
		{"X-Fake-Tokens", 0, 100_000, &s.tokens},
		{"X-Fake-Status", 400, 599, &s.status},
		{"X-Fake-Retry-After", 0, 86_400, &s.retryAfter},
		{"X-Fake-Cut-After", 0, 1_000_000, &s.cutAfter},
		{"X-Fake-Frame", 1, 1 << 20, &s.frame},
	}
	for _, n := range numbers {
		v, given := h[n.name]
		if !given {
			continue
		}
		i, err := strconv.Atoi(v[0])
		if err != nil || i < n.min || i > n.max {
			return s, fmt.Errorf("header %s: %q is not a whole number from %d to %d", n.name, v[0], n.min, n.max)
		}
		*n.to = i
	}
	s.delay = time.Duration(delay) * time.Millisecond
	s.interval = time.Duration(interval) * time.Millisecond
	if v, given := h["X-Fake-No-Usage"]; given {
		on, err := strconv.ParseBool(v[0])
		if err != nil {
			return s, fmt.Errorf("header X-Fake-No-Usage: %q is neither true nor false", v[0])
		}
		s.noUsage = on
	}
	if v, given := h["X-Fake-Usage-Last"]; given {
		if v[0] != "content" {
			return s, fmt.Errorf("header X-Fake-Usage-Last: %q is not \"content\"", v[0])
		}
		s.usageLast = true
	}
	return s, nil
}
