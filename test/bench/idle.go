// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// idled holds idle streams on each gateway but "continue". Clients share connections of HTTP/2, a hundred streams each, as those behind a load balancer do: a stream is
// then one open file of Envoy, not two.
func (s *suite) idled(ctx context.Context, l load) error {
	for _, name := range s.variants {
		if name == continuation {
			continue
		}
		err := s.site.occupy(ctx, l.name+"-"+name, func(ctx context.Context) error {
			b, gateways, err := s.start(ctx, []string{name})
			if err != nil {
				return err
			}
			fmt.Fprintf(s.progress, "%s, %s\n", l.about, name)
			m, err := b.idle(ctx, gateways[0], l)
			if err != nil {
				return err
			}
			s.out.Runs = append(s.out.Runs, m)
			if m.Requests < l.users || m.Shortest < l.spread {
				s.out.faults = append(s.out.faults, fmt.Errorf("idle, %s: %d of %d streams were whole, and the shortest took %v: not all were open at once", name, m.Requests, l.users, m.Shortest))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// idle opens the streams of a load one after the other and reads each to its end.
func (b *lab) idle(ctx context.Context, g *gateway, l load) (measurement, error) {
	const perConnection = 100
	out := measurement{Load: l.name, Loop: onceLoop, Gateway: g.name}
	f := newFlood(g.address, l, 1, (l.users+perConnection-1)/perConnection, l.lasts+l.spread+patience)
	defer f.close()
	before, err := b.observe(g)
	if err != nil {
		return out, err
	}
	proc.resetPeak(g.envoy)
	if g.processor != 0 {
		proc.resetPeak(g.processor)
	}
	began := time.Now()
	body := chatBody(l.body, l.stream)
	took := make([]time.Duration, l.users)
	var all sync.WaitGroup
	for i := range l.users {
		all.Go(func() {
			sleepUntil(ctx, began.Add(l.spread*time.Duration(i)/time.Duration(l.users)))
			sent := time.Now()
			answer, err := f.answer(ctx, f.through[i/perConnection], body)
			if err == nil && strings.Count(string(answer), "\n\n") == l.events {
				took[i] = time.Since(sent)
			}
		})
	}
	all.Wait()
	if err := context.Cause(ctx); err != nil {
		return out, err
	}
	after, err := b.observe(g)
	if err != nil {
		return out, err
	}
	var whole sample
	for _, d := range took {
		if d > 0 {
			whole.total = append(whole.total, d)
		}
	}
	out.fill(whole, before, after)
	if err := b.settle(ctx, g); err != nil {
		return out, err
	}
	return out, b.check(ctx, g)
}
