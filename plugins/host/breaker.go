// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"sync"
	"time"
)

// A plugin that fails so many times for a tenant, and more often than not, within a period is left alone by that tenant's calls for a while. Others go on: what
// one tenant sends must not take a policy from the rest.
const (
	tooManyFailures = 10
	period          = 10 * time.Second
	quarantine      = 30 * time.Second
	maxTenants      = 10_000 // that failures are counted for
)

// breaker decides when a plugin is left alone. After the pause one call is let through: if it goes well, all are.
type breaker struct {
	mu      sync.Mutex
	tenants map[int64]*failures // those with failures in their period
}

// failures are what went wrong for a tenant.
type failures struct {
	since time.Time // the period began
	bad   int
	good  int       // since the first failure
	until time.Time // left alone; zero: it is not
	last  string
}

// quarantined reports whether a call must not be made, and why.
func (b *breaker) quarantined(tenant int64, now time.Time) (why string, yes bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.tenants[tenant]
	if f == nil || f.until.IsZero() {
		return "", false
	}
	if now.Before(f.until) {
		return fmt.Sprintf("it is not called until %s, for it failed %d times within %v; the last time: %s",
			f.until.UTC().Format(time.RFC3339), tooManyFailures, period, f.last), true
	}
	f.until = now.Add(quarantine) // for all others, until this call has ended
	return "", false
}

// note takes the outcome of a call, nil if it went well, and reports whether the plugin is left alone from now on.
func (b *breaker) note(tenant int64, failed *Failure, now time.Time) (opened bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.tenants[tenant]
	if failed == nil {
		switch {
		case f == nil:
		case !f.until.IsZero() || now.Sub(f.since) > period:
			delete(b.tenants, tenant)
		default:
			f.good++
		}
		return false
	}
	if f == nil {
		if len(b.tenants) >= maxTenants {
			b.forget(now)
		}
		if b.tenants == nil {
			b.tenants = map[int64]*failures{}
		}
		f = &failures{since: now}
		b.tenants[tenant] = f
	}
	return f.add(failed.Detail, now)
}

// forget makes room: what is over goes, and if nothing is, everything.
func (b *breaker) forget(now time.Time) {
	for tenant, f := range b.tenants {
		if now.Sub(f.since) > period && !now.Before(f.until) {
			delete(b.tenants, tenant)
		}
	}
	if len(b.tenants) >= maxTenants {
		clear(b.tenants)
	}
}

func (f *failures) add(why string, now time.Time) (opened bool) {
	if now.Sub(f.since) > period {
		f.since, f.bad, f.good = now, 0, 0
	}
	f.bad++
	f.last = why
	wasOpen := !f.until.IsZero()
	if wasOpen || f.bad >= tooManyFailures && f.bad > f.good {
		f.until = now.Add(quarantine)
		return !wasOpen
	}
	return false
}

// Quarantine says until when the plugin is left alone by a tenant's calls, and its last failure; the zero time if it is not.
func (p *Plugin) Quarantine(tenant int64) (until time.Time, why string) {
	p.breaker.mu.Lock()
	defer p.breaker.mu.Unlock()
	if f := p.breaker.tenants[tenant]; f != nil {
		return f.until, f.last
	}
	return time.Time{}, ""
}
