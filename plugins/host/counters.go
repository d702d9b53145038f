// SPDX-License-Identifier: Apache-2.0

package host

import (
	"sync"
	"time"
)

// Counter names a number that a plugin keeps for a tenant.
type Counter struct {
	Tenant int64
	Plugin string
	Name   string
}

// Counters keep what plugins count. They are called while a guest waits, so they must not wait themselves, and by many goroutines.
type Counters interface {
	// Add adds to a counter and returns its new value. With a window that is not zero the counter is zero again at each multiple of it since 1970. There is no room
	// for another counter if ok is false.
	Add(c Counter, delta int64, window time.Duration, now time.Time) (value int64, ok bool)
}

// maxCounters is how many counters a plugin has for a tenant.
const maxCounters = 1024

// NewCounters returns counters in the memory of this process: they are lost with it, and each process counts for itself.
func NewCounters() Counters { return &memoryCounters{groups: map[Counter]map[string]*counted{}} }

type memoryCounters struct {
	mu     sync.Mutex
	groups map[Counter]map[string]*counted // by tenant and plugin
}

type counted struct {
	value  int64
	window time.Duration
	ends   time.Time // zero: never
}

// Add implements [Counters].
func (m *memoryCounters) Add(c Counter, delta int64, window time.Duration, now time.Time) (int64, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := c.Name
	c.Name = ""
	g := m.groups[c]
	if g == nil {
		g = map[string]*counted{}
		m.groups[c] = g
	}
	n := g[name]
	if n == nil {
		if len(g) >= maxCounters && !dropOver(g, now) {
			return 0, false
		}
		n = &counted{}
		g[name] = n
	}
	if n.window != window || !n.ends.IsZero() && !now.Before(n.ends) {
		*n = counted{window: window}
	}
	if n.ends.IsZero() && window > 0 {
		n.ends = now.Truncate(window).Add(window)
	}
	n.value += delta
	return n.value, true
}

// dropOver makes room by dropping counters whose window has ended.
func dropOver(g map[string]*counted, now time.Time) bool {
	for name, n := range g {
		if !n.ends.IsZero() && !now.Before(n.ends) {
			delete(g, name)
		}
	}
	return len(g) < maxCounters
}
