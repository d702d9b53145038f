// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"time"
)

// The loops.
const (
	closedLoop = "closed"
	openLoop   = "open"
	onceLoop   = "once" // each client sends one request
)

// run is one load on one gateway.
type run struct {
	load     load
	loop     string
	round    int
	duration time.Duration
	warm     time.Duration
	want     expectation
}

// measurement is what came of a run. Times of CPU are of the whole run, from before its first request until its last row is in the
// database.
type measurement struct {
	Load     string  `json:"load"`
	Loop     string  `json:"loop"`
	Gateway  string  `json:"gateway"`
	Round    int     `json:"round"`
	Requests int     `json:"requests"`
	Rate     float64 `json:"requests_per_second"`

	P50      time.Duration `json:"p50_ns"`
	P99      time.Duration `json:"p99_ns"`
	FirstP50 time.Duration `json:"first_byte_p50_ns"`
	FirstP99 time.Duration `json:"first_byte_p99_ns"`
	Shortest time.Duration `json:"shortest_ns"`

	CPU    usage  `json:"cpu_ns"`
	Memory memory `json:"memory_bytes"`
}

// usage is CPU by who used it.
type usage struct {
	Envoy     time.Duration `json:"envoy"`
	Processor time.Duration `json:"processor"`
	Postgres  time.Duration `json:"postgres"`
	Provider  time.Duration `json:"provider"`
	Generator time.Duration `json:"generator"`
}

// memory is resident memory: at the beginning of a run, and the most during it.
type memory struct {
	EnvoyBefore     int64 `json:"envoy_before"`
	EnvoyPeak       int64 `json:"envoy_peak"`
	ProcessorBefore int64 `json:"processor_before"`
	ProcessorPeak   int64 `json:"processor_peak"`
}

// perRequest returns microseconds of CPU.
func (m *measurement) perRequest(d time.Duration) float64 {
	return float64(d.Nanoseconds()) / 1e3 / float64(m.Requests)
}

// gatewayCPU is what a request costs in Envoy and processor.
func (m *measurement) gatewayCPU() float64 { return m.perRequest(m.CPU.Envoy + m.CPU.Processor) }

// lab measures runs.
type lab struct {
	provider    string // address
	providerPID int
}

// measure puts a load on a gateway. The error says what was wrong with the answers or the books; the measurement is of those that were
// right.
func (b *lab) measure(ctx context.Context, g *gateway, r run) (measurement, error) {
	out := measurement{Load: r.load.name, Loop: r.loop, Gateway: g.name, Round: r.round}
	fail := func(err error) (measurement, error) {
		return out, fmt.Errorf("%s, %s loop, %s, round %d: %w", r.load.name, r.loop, g.name, r.round+1, err)
	}
	if err := resetLedger(ctx, b.provider); err != nil {
		return fail(err)
	}
	clients := r.load.users
	if r.loop == openLoop {
		clients = openClients(r.load)
	}
	gen, err := newGenerator(ctx, g.address, r.load.request(g.address), r.want, clients)
	if err != nil {
		return fail(err)
	}
	defer gen.close()
	if err := b.warm(ctx, g, gen, r); err != nil {
		return fail(fmt.Errorf("warm up: %w", err))
	}
	before, err := b.observe(g)
	if err != nil {
		return fail(err)
	}
	for _, pid := range []int{g.envoy, g.processor} {
		proc.resetPeak(pid) // where that is not allowed, the peak is the one since the process began
	}
	got := r.loose(ctx, gen)
	settled := b.settle(ctx, g)
	after, err := b.observe(g)
	if err != nil {
		return fail(err)
	}
	out.fill(got, before, after)
	out.Rate = r.throughput(&got)
	if err := got.err(); err != nil {
		return fail(err)
	}
	if settled == nil {
		settled = b.check(ctx, g)
	}
	if settled != nil {
		return fail(settled)
	}
	return out, nil
}

// openClients is how many clients an open loop needs so that none of its requests waits for one, unless the gateway stalls.
func openClients(l load) int {
	const stall = 100 * time.Millisecond
	return 32 + int(math.Ceil(1.5*l.rate*(l.lasts+stall).Seconds()))
}

// loose sends the requests.
func (r run) loose(ctx context.Context, gen *generator) sample {
	switch r.loop {
	case openLoop:
		return gen.open(ctx, arrivals(r.load.rate, r.duration, r.round))
	case onceLoop:
		return gen.once(ctx, r.load.spread)
	}
	return gen.closed(ctx, r.duration, r.load.spread)
}

// throughput counts the answers of the time in which all clients were at work: not while they began, nor while only the last answers
// were waited for.
func (r run) throughput(s *sample) float64 {
	from, to := r.load.lasts, r.duration
	switch r.loop {
	case closedLoop:
		from += r.load.spread
	case onceLoop:
		to += r.load.spread + patience
	}
	return s.perSecond(from, to)
}

// warm lets the connections and caches fill, and waits until all of that is in the books. A run of one request per client begins cold.
func (b *lab) warm(ctx context.Context, g *gateway, gen *generator, r run) error {
	if r.loop == onceLoop {
		return nil
	}
	r.duration, r.round = r.warm, -1
	if got := r.loose(ctx, gen); got.failed > 0 {
		return got.err()
	}
	return b.settle(ctx, g)
}

// settle waits until what the provider has served is in the books.
func (b *lab) settle(ctx context.Context, g *gateway) error {
	if g.books == nil {
		return nil
	}
	totals, err := ledgerTotals(ctx, b.provider)
	if err != nil {
		return err
	}
	return g.books.settle(ctx, g.books.want.Requests+totals.Requests)
}

// check holds the books against the provider's ledger.
func (b *lab) check(ctx context.Context, g *gateway) error {
	totals, err := ledgerTotals(ctx, b.provider)
	if err != nil {
		return err
	}
	c, err := served(totals)
	if err != nil || g.books == nil {
		return err
	}
	g.books.want = g.books.want.plus(c)
	return g.books.check(ctx)
}

// observation is what the kernel says at one moment.
type observation struct {
	envoy, processor, provider, generator usedCPU
	postgres                              familyCPU
	memory                                memory // peaks since the last reset
}

func (b *lab) observe(g *gateway) (o observation, err error) {
	read := func(pid int, cpu *usedCPU, now, peak *int64) {
		if pid == 0 || err != nil {
			return
		}
		if *cpu, err = proc.cpu(pid); err != nil || now == nil {
			return
		}
		if *now, err = proc.rss(pid); err == nil {
			*peak, err = proc.peakRSS(pid)
		}
	}
	read(g.envoy, &o.envoy, &o.memory.EnvoyBefore, &o.memory.EnvoyPeak)
	read(g.processor, &o.processor, &o.memory.ProcessorBefore, &o.memory.ProcessorPeak)
	read(b.providerPID, &o.provider, nil, nil)
	read(os.Getpid(), &o.generator, nil, nil)
	if g.books != nil && err == nil {
		o.postgres, err = proc.family(g.books.server.Pid())
	}
	return o, err
}

// fill makes a measurement of what was seen.
func (m *measurement) fill(got sample, before, after observation) {
	m.Requests = len(got.total)
	m.Shortest = quantile(got.total, 0)
	m.P50, m.P99 = quantile(got.total, 0.5), quantile(got.total, 0.99)
	m.FirstP50, m.FirstP99 = quantile(got.first, 0.5), quantile(got.first, 0.99)
	m.CPU = usage{
		Envoy: after.envoy.since(before.envoy), Processor: after.processor.since(before.processor),
		Postgres: after.postgres.since(before.postgres), Provider: after.provider.since(before.provider),
		Generator: after.generator.since(before.generator),
	}
	m.Memory = memory{
		EnvoyBefore: before.memory.EnvoyBefore, EnvoyPeak: after.memory.EnvoyPeak,
		ProcessorBefore: before.memory.ProcessorBefore, ProcessorPeak: after.memory.ProcessorPeak,
	}
}
