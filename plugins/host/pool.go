// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"
)

// pool holds the instances of a plugin that are idle, all in the pristine state. An instance stays with its tenant: if there is none for a tenant, one is
// made, and the one that was idle longest gives way.
type pool struct {
	slots chan struct{} // one for each call that may be under way
	limit int           // of idle instances

	mu   sync.Mutex
	idle []*instance // the one that was used last is last
}

func (p *pool) init(concurrency, idle int) {
	p.slots = make(chan struct{}, concurrency)
	p.limit = idle
}

// take waits for its turn and returns an instance, which goes back by put or drop.
func (p *pool) take(ctx context.Context, of *Plugin, tenant int64, patience time.Duration) (*instance, error) {
	if !p.enter() {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case p.slots <- struct{}{}:
		case <-timer.C:
			return nil, &stop{Busy, fmt.Sprintf("%d other calls of it were under way for %v", cap(p.slots), patience)}
		case <-ctx.Done():
			return nil, &stop{Canceled, "the caller went away"}
		}
	}
	if i := p.pick(tenant); i != nil {
		return i, nil
	}
	i, err := of.instantiate(tenant)
	if err == nil {
		if err = i.prepare(ctx.Done()); err == nil {
			return i, nil
		}
		i.close()
	}
	<-p.slots
	return nil, err
}

// enter takes a slot, if there is one soon: most calls are over in less time than it takes to put a goroutine to sleep and to wake it.
func (p *pool) enter() bool {
	const tries = 8
	for range tries {
		select {
		case p.slots <- struct{}{}:
			return true
		default:
			runtime.Gosched()
		}
	}
	return false
}

// pick returns the idle instance that this tenant used last.
func (p *pool) pick(tenant int64) *instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n, i := range slices.Backward(p.idle) {
		if i.tenant == tenant {
			p.idle = slices.Delete(p.idle, n, n+1)
			return i
		}
	}
	return nil
}

// put takes back an instance in the pristine state.
func (p *pool) put(i *instance) {
	var old *instance
	p.mu.Lock()
	if len(p.idle) == p.limit {
		old = p.idle[0]
		p.idle = slices.Delete(p.idle, 0, 1)
	}
	p.idle = append(p.idle, i)
	p.mu.Unlock()
	if old != nil {
		old.close()
	}
	<-p.slots
}

// drop throws an instance away.
func (p *pool) drop(i *instance) {
	i.close()
	<-p.slots
}

// close waits for the calls that are under way, and frees all instances.
func (p *pool) close() {
	for range cap(p.slots) {
		p.slots <- struct{}{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range p.idle {
		i.close()
	}
	p.idle = nil
}
