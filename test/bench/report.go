// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// report prints the tables.
type report struct {
	options
	*results
	w io.Writer
}

func (r report) print() {
	r.Machine.write(r.w)
	fmt.Fprint(r.w, "\nMedians of the rounds, and from where to where they went. CPU is in µs per request; × bare is the CPU of Envoy and processor against\n"+
		"the bare Envoy of the same round. Latencies are in ms; added is against bare in the same round.\n")
	for _, l := range r.chosen() {
		for _, loop := range r.loops {
			how := fmt.Sprintf("closed loop, %d clients", l.users)
			if loop == openLoop {
				how = fmt.Sprintf("open loop, %s requests/s", figure(l.rate))
			}
			r.section(l, loop, l.about+", "+how)
		}
	}
	if r.users > 0 {
		l := crowd(r.users)
		r.section(l, closedLoop, l.about)
		r.share(l)
	}
	r.heldStreams()
	r.plugins()
	r.accounting()
	r.overloaded()
	r.others()
}

// runs are the measurements of a kind, in the order of the rounds.
func (r report) runs(load, loop, gateway string) []measurement {
	return slices.DeleteFunc(slices.Clone(r.Runs), func(m measurement) bool {
		return m.Load != load || m.Loop != loop || m.Gateway != gateway
	})
}

// column sums up a figure of some runs.
func column(ms []measurement, figure func(measurement) float64) spreadOf {
	var out []float64
	for _, m := range ms {
		out = append(out, figure(m))
	}
	return over(out)
}

// against sums up a figure of some runs and of bare in the same round.
func (r report) against(ms []measurement, figure func(m, bare measurement) float64) spreadOf {
	var out []float64
	for _, m := range ms {
		same := slices.DeleteFunc(r.runs(m.Load, m.Loop, bare), func(b measurement) bool { return b.Round != m.Round })
		if len(same) == 1 {
			out = append(out, figure(m, same[0]))
		}
	}
	return over(out)
}

func milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

func megabytes(n int64) float64 {
	if n == 0 {
		return math.NaN()
	}
	return float64(n) / (1 << 20)
}

// section prints the tables of one load.
func (r report) section(l load, loop, title string) {
	if !slices.ContainsFunc(r.Runs, func(m measurement) bool { return m.Load == l.name && m.Loop == loop }) {
		return
	}
	fmt.Fprintf(r.w, "\n### %s\n\n", title)
	var cpu, latency table
	cpu.add("gateway", "requests/s", "Envoy µs", "processor µs", "both µs", "× bare", "Postgres µs", "Envoy MB", "processor MB")
	what := ""
	p50, p99 := func(m measurement) time.Duration { return m.P50 }, func(m measurement) time.Duration { return m.P99 }
	if l.stream {
		what = " to first byte"
		p50, p99 = func(m measurement) time.Duration { return m.FirstP50 }, func(m measurement) time.Duration { return m.FirstP99 }
	}
	latency.add("gateway", "p50"+what, "p99"+what, "p50 added", "p99 added")
	for _, name := range r.variants {
		ms := r.runs(l.name, loop, name)
		if len(ms) == 0 {
			continue
		}
		part := func(of func(usage) time.Duration) string {
			s := column(ms, func(m measurement) float64 { return m.perRequest(of(m.CPU)) })
			if s.most == 0 {
				return "–"
			}
			return figure(s.median)
		}
		cpu.add(name,
			column(ms, func(m measurement) float64 { return m.Rate }).ranged(),
			part(func(u usage) time.Duration { return u.Envoy }),
			part(func(u usage) time.Duration { return u.Processor }),
			column(ms, func(m measurement) float64 { return m.gatewayCPU() }).ranged(),
			r.against(ms, func(m, b measurement) float64 { return m.gatewayCPU() / b.gatewayCPU() }).ranged(),
			part(func(u usage) time.Duration { return u.Postgres }),
			figure(column(ms, func(m measurement) float64 { return megabytes(m.Memory.EnvoyPeak) }).median),
			figure(column(ms, func(m measurement) float64 { return megabytes(m.Memory.ProcessorPeak) }).median),
		)
		of := func(q func(measurement) time.Duration) string {
			return column(ms, func(m measurement) float64 { return milliseconds(q(m)) }).ranged()
		}
		added := func(q func(measurement) time.Duration) string {
			if name == bare {
				return "–"
			}
			return r.against(ms, func(m, b measurement) float64 { return milliseconds(q(m) - q(b)) }).ranged()
		}
		latency.add(name, of(p50), of(p99), added(p50), added(p99))
	}
	cpu.write(r.w)
	fmt.Fprintln(r.w)
	latency.write(r.w)
}

// share says what part of bare Envoy's throughput the users get.
func (r report) share(l load) {
	s := r.against(r.runs(l.name, closedLoop, weir), func(m, b measurement) float64 { return 100 * m.Rate / b.Rate })
	if !math.IsNaN(s.median) {
		fmt.Fprintf(r.w, "\nWeir serves %s %% of the requests/s that bare Envoy serves.\n", s.ranged())
	}
}

// heldStreams prints what a stream costs in memory.
func (r report) heldStreams() {
	for _, l := range r.crowds() {
		r.heldBy(l)
	}
}

func (r report) heldBy(l load) {
	fmt.Fprintf(r.w, "\n### %s\n\n", l.about)
	var t table
	t.add("gateway", "whole streams", "Envoy KB per stream", "processor KB per stream", "Envoy MB", "processor MB", "CPU ms per stream")
	for _, name := range r.variants {
		for _, m := range r.runs(l.name, onceLoop, name) {
			each := func(before, peak int64) string {
				if peak == 0 {
					return "–"
				}
				return figure(float64(peak-before) / 1024 / float64(m.Requests))
			}
			t.add(name, fmt.Sprint(m.Requests), each(m.Memory.EnvoyBefore, m.Memory.EnvoyPeak), each(m.Memory.ProcessorBefore, m.Memory.ProcessorPeak),
				figure(megabytes(m.Memory.EnvoyPeak)), figure(megabytes(m.Memory.ProcessorPeak)), figure(m.gatewayCPU()/1e3))
		}
	}
	t.write(r.w)
}

// accounting prints what a row costs.
func (r report) accounting() {
	a := r.Accounting
	if a == nil {
		return
	}
	row := func(d time.Duration) string { return figure(float64(d.Nanoseconds()) / 1e3 / float64(a.Rows)) }
	fmt.Fprintf(r.w, "\n### Accounting alone, %d rows from a log\n\n", a.Rows)
	var t table
	t.add("rows/s", "processor µs per row", "Postgres µs per row")
	t.add(figure(float64(a.Rows)/a.Seconds), row(a.Processor), row(a.Postgres))
	t.write(r.w)
}

// others prints what the benchmark itself took of the machine.
func (r report) others() {
	var t table
	t.add("load", "provider µs", "generator µs")
	seen := map[string]bool{}
	for _, m := range r.Runs {
		key := m.Load + ", " + m.Loop
		if m.Gateway != bare || seen[key] {
			continue
		}
		seen[key] = true
		ms := r.runs(m.Load, m.Loop, bare)
		t.add(key,
			figure(column(ms, func(m measurement) float64 { return m.perRequest(m.CPU.Provider) }).median),
			figure(column(ms, func(m measurement) float64 { return m.perRequest(m.CPU.Generator) }).median))
	}
	if len(t.rows) > 1 {
		fmt.Fprint(r.w, "\n### What the provider and the generator took, on the same machine, with bare\n\n")
		t.write(r.w)
	}
}
