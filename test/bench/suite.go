// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
)

// results are all figures of all rounds.
type results struct {
	Machine    machine       `json:"machine"`
	Runs       []measurement `json:"runs"`
	Accounting *accounting   `json:"accounting,omitempty"`
	Overload   *overloading  `json:"overload,omitempty"`

	faults []error // requests that failed, books that do not match
}

// suite runs everything that the options ask for.
type suite struct {
	options
	site     *site
	out      *results
	progress io.Writer
}

// run runs all cases. The error is about what kept it from going on; what was wrong with answers and books is in the results.
func (s *suite) run(ctx context.Context) error {
	if len(s.loads) > 0 || s.users > 0 || s.replay > 0 || s.withPlugins {
		if err := s.site.occupy(ctx, "loads", s.timed); err != nil {
			return err
		}
	}
	if s.overload > 0 {
		if err := s.site.occupy(ctx, "overload", s.overloaded); err != nil {
			return err
		}
	}
	if s.streams > 0 { // with gateways that have done nothing yet, for their memory
		if err := s.site.occupy(ctx, "streams", func(ctx context.Context) error { return s.held(ctx, held(s.streams)) }); err != nil {
			return err
		}
	}
	if s.idle > 0 {
		return s.idled(ctx, idle(s.idle))
	}
	return nil
}

// start starts the provider and the gateways.
func (s *suite) start(ctx context.Context, variants []string) (*lab, []*gateway, error) {
	pid, err := s.site.startProvider(ctx)
	if err != nil {
		return nil, nil, err
	}
	var gateways []*gateway
	for _, name := range variants {
		g, err := s.site.startGateway(ctx, name)
		if err != nil {
			return nil, nil, err
		}
		gateways = append(gateways, g)
	}
	return &lab{provider: s.site.address(portProvider), providerPID: pid}, gateways, nil
}

// timed measures the loads and the users in rounds, then what needs Weir alone.
func (s *suite) timed(ctx context.Context) error {
	b, gateways, err := s.start(ctx, s.variants)
	if err != nil {
		return err
	}
	for round := range s.rounds {
		for _, l := range s.chosen() {
			for _, loop := range s.loops {
				if err := s.each(ctx, b, gateways, s.plan(l, loop, round)); err != nil {
					return err
				}
			}
		}
		if s.users > 0 {
			if err := s.each(ctx, b, gateways, s.plan(crowd(s.users), closedLoop, round)); err != nil {
				return err
			}
		}
	}
	if i := slices.IndexFunc(gateways, func(g *gateway) bool { return g.name == weir }); i >= 0 {
		return s.weirAlone(ctx, b, gateways[i])
	}
	return nil
}

// plan is a run of the given kind. It lasts for three answers at least.
func (s *suite) plan(l load, loop string, round int) run {
	want := expectation{events: l.events}
	return run{load: l, loop: loop, round: round, duration: max(s.duration, 3*l.lasts), warm: max(s.warm, 2*l.lasts), want: want}
}

// each gives one run to each gateway.
func (s *suite) each(ctx context.Context, b *lab, gateways []*gateway, r run) error {
	for i := range gateways {
		g := gateways[(i+r.round)%len(gateways)] // nobody is always the one who comes after the heaviest
		fmt.Fprintf(s.progress, "round %d: %s, %s loop, %s\n", r.round+1, r.load.about, r.loop, g.name)
		m, err := b.measure(ctx, g, r)
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		if err != nil {
			fmt.Fprintln(s.progress, "FAULT:", err)
			s.out.faults = append(s.out.faults, err)
		}
		if m.Requests > 0 {
			s.out.Runs = append(s.out.Runs, m)
		}
	}
	return nil
}

// held opens many streams at once.
func (s *suite) held(ctx context.Context, l load) error {
	variants := slices.DeleteFunc(slices.Clone(s.variants), func(n string) bool { return n == continuation })
	b, gateways, err := s.start(ctx, variants)
	if err != nil {
		return err
	}
	r := run{load: l, loop: onceLoop, duration: l.lasts, want: expectation{events: l.events}}
	before := len(s.out.Runs)
	if err := s.each(ctx, b, gateways, r); err != nil {
		return err
	}
	for _, m := range s.out.Runs[before:] {
		if m.Shortest < l.spread {
			s.out.faults = append(s.out.faults, fmt.Errorf("%s, %s: one lasted %v, so not all were open at once", l.name, m.Gateway, m.Shortest))
		}
	}
	return nil
}

// weirAlone measures plugins, takes the profiles and measures the accounting.
func (s *suite) weirAlone(ctx context.Context, b *lab, g *gateway) error {
	if s.withPlugins {
		if err := s.judged(ctx, b, g); err != nil {
			return err
		}
	}
	if s.profile != "" {
		for _, l := range s.chosen() {
			if err := s.profileLoad(ctx, b, g, s.plan(l, closedLoop, 0)); err != nil {
				return err
			}
		}
	}
	if s.replay == 0 {
		return nil
	}
	fmt.Fprintf(s.progress, "accounting for %d rows\n", s.replay)
	if got, err := g.books.posted(ctx); err != nil {
		return err
	} else if got == 0 { // nothing has been logged that could be replayed
		if err := s.each(ctx, b, []*gateway{g}, s.plan(loads()[0], openLoop, 0)); err != nil {
			return err
		}
	}
	replay := func() error {
		a, err := b.replay(ctx, g, s.site.path("weir", "log"), s.replay)
		s.out.Accounting = &a
		return err
	}
	if s.profile == "" {
		return errors.Join(replay(), context.Cause(ctx))
	}
	return errors.Join(s.profiled(ctx, g, "replay", replay), context.Cause(ctx))
}
