// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/weir-proxy/weir/internal/app"
	"github.com/weir-proxy/weir/internal/config"
)

// The phases of an overload.
const (
	overTimes    = 5                      // of the capacity come
	calmShare    = 0.1                    // of the capacity is no load
	calmly       = 4 * time.Second        // to see how long an answer takes then, and after
	afterShare   = 0.5                    // of the capacity comes after the overload
	afterwards   = 8 * time.Second        // and so long
	window       = 250 * time.Millisecond // what is looked at as one when things are well again
	capacityTime = 4 * time.Second
	restTime     = 3 * time.Second // after the capacity was found, which takes an overload
	floodClients = 1000
)

// overloading is what came of an overload.
type overloading struct {
	Wait      time.Duration `json:"processor_wait_ns"`
	CPUs      int           `json:"gateway_cpus"`
	Capacity  float64       `json:"capacity_per_second"`
	Calm      phase         `json:"calm"`
	Over      phase         `json:"over"`
	After     phase         `json:"after"`
	Recovered time.Duration `json:"recovered_ns"` // after the end of the overload
	Memory    memory        `json:"memory_bytes"`
}

// phase is one load on the way.
type phase struct {
	Asked    float64       `json:"asked_per_second"`
	Served   float64       `json:"served_per_second"`
	Refused  float64       `json:"refused_per_second"`
	P50      time.Duration `json:"p50_ns"` // of those that were served
	P99      time.Duration `json:"p99_ns"`
	NoP50    time.Duration `json:"refused_p50_ns"`
	NoP99    time.Duration `json:"refused_p99_ns"`
	LateP99  time.Duration `json:"generator_late_p99_ns"`
	Envoy    float64       `json:"envoy_cpus"` // CPUs that it used, while the phase lasted
	Decider  float64       `json:"processor_cpus"`
	Flood    float64       `json:"generator_cpus"`
	outcomes []outcome
}

// overloaded sends much more than Weir can bear. Envoy and the processor have some of the machine's CPUs, one of two, and the provider, Postgres and this
// process the others: else a generator of so much would take from the gateway what it is to be measured by.
func (s *suite) overloaded(ctx context.Context) error {
	cpus := runtime.NumCPU() / 2
	if cpus == 0 {
		return errors.New("an overload needs two CPUs")
	}
	wait := config.Default().Processor.Wait
	s.site.workers, s.site.env = cpus, fmt.Sprintf("%s %s=%v GOMAXPROCS=%d", s.env, app.DevWaitVariable, wait, cpus)
	b, gateways, err := s.start(ctx, []string{weir})
	if err != nil {
		return err
	}
	g := gateways[0]
	if err := b.separate(ctx, g, cpus); err != nil {
		return err
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.NumCPU() - cpus))
	out := &overloading{Wait: wait, CPUs: cpus}
	fmt.Fprintf(s.progress, "overload: how much can be borne\n")
	if out.Capacity, err = b.capacity(ctx, g, crowd(0)); err != nil {
		return err
	}
	sleepUntil(ctx, time.Now().Add(restTime))
	before, err := b.observe(g)
	if err != nil {
		return err
	}
	if err := s.phases(ctx, b, g, out); err != nil {
		return err
	}
	after, err := b.observe(g)
	if err != nil {
		return err
	}
	out.Memory = memory{
		EnvoyBefore: before.memory.EnvoyBefore, EnvoyPeak: after.memory.EnvoyPeak,
		ProcessorBefore: before.memory.ProcessorBefore, ProcessorPeak: after.memory.ProcessorPeak,
	}
	if out.Calm.Refused > 0 {
		s.out.faults = append(s.out.faults, errors.New("overload, calm: requests were refused"))
	}
	out.Recovered = recovered(out.After.outcomes, 3*out.Calm.P99)
	s.out.Overload = out
	err = b.settle(ctx, g)
	if err == nil {
		err = b.check(ctx, g)
	}
	if err != nil {
		s.out.faults = append(s.out.faults, fmt.Errorf("overload: %w", err))
	}
	return nil
}

// phases sends the loads one after the other. Each request must be served or refused.
func (s *suite) phases(ctx context.Context, b *lab, g *gateway, out *overloading) error {
	connections := floodConnections
	if s.http1 {
		connections = 0
	}
	f := newFlood(g.address, crowd(0), floodClients, connections, patience)
	defer f.close()
	for _, p := range []struct {
		what string
		rate float64
		last time.Duration
		to   *phase
	}{
		{"calm", calmShare, calmly, &out.Calm}, {"over", overTimes, s.overload, &out.Over}, {"after", afterShare, afterwards, &out.After},
	} {
		rate := p.rate * out.Capacity
		fmt.Fprintf(s.progress, "overload: %s, %.0f requests/s for %v\n", p.what, rate, p.last)
		if p.what == "over" {
			proc.resetPeak(g.envoy)
			proc.resetPeak(g.processor)
		}
		before, err := b.observe(g)
		if err != nil {
			return err
		}
		began := time.Now()
		*p.to = newPhase(rate, p.last, f.open(ctx, arrivals(rate, p.last, 0)))
		after, err := b.observe(g)
		if err != nil {
			return err
		}
		used := func(d time.Duration) float64 { return d.Seconds() / time.Since(began).Seconds() }
		p.to.Envoy, p.to.Decider, p.to.Flood = used(after.envoy.since(before.envoy)), used(after.processor.since(before.processor)), used(after.generator.since(before.generator))
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		for _, o := range p.to.outcomes {
			if o.err != nil {
				s.out.faults = append(s.out.faults, fmt.Errorf("overload, %s: a request was neither served nor refused: %w", p.what, o.err))
				break
			}
		}
	}
	return nil
}

// separate gives the gateway the first CPUs, and everything else the others.
func (b *lab) separate(ctx context.Context, g *gateway, cpus int) error {
	var ours, others []int
	for i := range runtime.NumCPU() {
		if i < cpus {
			ours = append(ours, i)
		} else {
			others = append(others, i)
		}
	}
	family, err := proc.family(g.books.server.Pid())
	if err != nil {
		return err
	}
	for _, pid := range []int{g.envoy, g.processor} {
		if err := pin(ctx, pid, ours); err != nil {
			return err
		}
	}
	for _, pid := range append(slices.Collect(maps.Keys(family)), b.providerPID, os.Getpid()) {
		if err := pin(ctx, pid, others); err != nil {
			return err
		}
	}
	return nil
}

// capacity is how many requests a second are served at most when more and more clients each wait for their answers.
func (b *lab) capacity(ctx context.Context, g *gateway, l load) (float64, error) {
	best := 0.0
	for _, clients := range []int{100, 200, 300, 400, 500, 600} {
		gen, err := newGenerator(ctx, g.address, l.request(g.address), expectation{}, clients)
		if err != nil {
			return 0, err
		}
		got := gen.closed(ctx, capacityTime, l.spread)
		gen.close()
		if err := context.Cause(ctx); err != nil {
			return 0, err
		}
		rate := got.perSecond(capacityTime/4, capacityTime)
		if rate < best*1.05 { // more clients wait longer, or are refused
			break
		}
		best = rate
	}
	if best == 0 {
		return 0, errNone
	}
	return best, nil
}

// newPhase sums up what became of the requests of a phase.
func newPhase(rate float64, lasted time.Duration, all []outcome) phase {
	p := phase{Asked: rate, outcomes: all}
	var served, refused, late []time.Duration
	for _, o := range all {
		late = append(late, o.late)
		switch {
		case o.err != nil:
		case o.refused:
			refused = append(refused, o.took)
		default:
			served = append(served, o.took)
		}
	}
	p.Served, p.Refused = float64(len(served))/lasted.Seconds(), float64(len(refused))/lasted.Seconds()
	p.P50, p.P99 = quantile(served, 0.5), quantile(served, 0.99)
	p.NoP50, p.NoP99 = quantile(refused, 0.5), quantile(refused, 0.99)
	p.LateP99 = quantile(late, 0.99)
	return p
}

// recovered returns after which time of a phase no request was refused any more, and none of a window's p99 took longer than it may.
func recovered(all []outcome, most time.Duration) time.Duration {
	windows := map[int][]outcome{}
	last := -1
	for _, o := range all {
		i := int(o.due / window)
		windows[i] = append(windows[i], o)
	}
	for i, w := range windows {
		var took []time.Duration
		refused := false
		for _, o := range w {
			took, refused = append(took, o.took), refused || o.refused
		}
		if refused || quantile(took, 0.99) > most {
			last = max(last, i)
		}
	}
	return time.Duration(last+1) * window
}

// overloaded prints what came of the overload.
func (r report) overloaded() {
	o := r.Overload
	if o == nil {
		return
	}
	fmt.Fprintf(r.w, "\n### %d times what %d CPU of the gateway can bear (%s requests/s), for %v; the provider takes 200 ms, processor.wait is %v\n\n",
		overTimes, o.CPUs, figure(o.Capacity), r.overload, o.Wait)
	var t table
	t.add("phase", "requests/s", "served/s", "refused/s", "p50 served", "p99 served", "p50 refused", "p99 refused", "CPUs of Envoy", "processor", "generator", "generator late, p99")
	ms := func(d time.Duration) string { return figure(milliseconds(d)) }
	for _, p := range []struct {
		name string
		phase
	}{{"calm", o.Calm}, {"over", o.Over}, {"after", o.After}} {
		if p.Refused == 0 {
			p.NoP50, p.NoP99 = 0, 0
		}
		t.add(p.name, figure(p.Asked), figure(p.Served), figure(p.Refused), ms(p.P50), ms(p.P99), ms(p.NoP50), ms(p.NoP99), figure(p.Envoy), figure(p.Decider), figure(p.Flood), ms(p.LateP99))
	}
	t.write(r.w)
	ratio := func(a, b time.Duration) string { return figure(float64(a) / math.Max(float64(b), 1)) }
	fmt.Fprintf(r.w, "\nServed under overload: p50 %s and p99 %s times those of calm. Nothing is refused any more, and p99 is within three times calm, %v after its end. "+
		"Memory, before and at most: Envoy %s and %s MB, processor %s and %s MB.\n",
		ratio(o.Over.P50, o.Calm.P50), ratio(o.Over.P99, o.Calm.P99), o.Recovered,
		figure(megabytes(o.Memory.EnvoyBefore)), figure(megabytes(o.Memory.EnvoyPeak)),
		figure(megabytes(o.Memory.ProcessorBefore)), figure(megabytes(o.Memory.ProcessorPeak)))
}
