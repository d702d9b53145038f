// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Kind is a kind of fault.
type Kind string

// The kinds of faults. Their names are printed, and accepted by [ParseKinds].
const (
	KillProcessor  Kind = "kill-processor"  // SIGKILL; started again after a while
	TermProcessor  Kind = "term-processor"  // SIGTERM, as a rolling restart does
	KillEnvoy      Kind = "kill-envoy"      // SIGKILL; started again after a while
	FreezeEnvoy    Kind = "freeze-envoy"    // SIGSTOP, SIGCONT after a while: leases end, and lines come all the same
	StopPostgres   Kind = "stop-postgres"   // a fast shutdown, and a start after a while
	CrashPostgres  Kind = "crash-postgres"  // SIGQUIT, an immediate shutdown: the next start recovers
	KillPostgres   Kind = "kill-postgres"   // SIGKILL of the postmaster alone, then as CrashPostgres
	FreezePostgres Kind = "freeze-postgres" // SIGSTOP of all its processes, SIGCONT after a while
	DropReply      Kind = "drop-reply"      // a batch is committed, and the connection lost before the processor learns of it
	DropCommit     Kind = "drop-commit"     // the connection is lost just before a batch would be committed
	CutDatabase    Kind = "cut-database"    // all connections to Postgres are reset
	RollBack       Kind = "roll-back"       // Postgres is replaced by the base backup from the beginning of the round
	Forget         Kind = "forget"          // as RollBack, once exchanges that a killed Envoy was in the middle of have become unresolved
	FillDisk       Kind = "fill-disk"       // the volume of the logs has no byte left, for a while
	ClockStep      Kind = "clock-step"      // the processor's clock is set wrong, for a while: by seconds or by months, ahead or behind
	Midnight       Kind = "midnight"        // it is set to the last moment of the day, for a while
	MonthEnd       Kind = "month-end"       // it is set to the last moment of the month, for a while
)

// Kinds are all kinds of faults.
func Kinds() []Kind {
	return []Kind{
		KillProcessor, TermProcessor, KillEnvoy, FreezeEnvoy, StopPostgres, CrashPostgres, KillPostgres, FreezePostgres, DropReply, DropCommit,
		CutDatabase, RollBack, Forget, FillDisk, ClockStep, Midnight, MonthEnd,
	}
}

// ParseKinds reads a list of kinds, separated by commas. A minus before the first of them means all others.
func ParseKinds(list string) ([]Kind, error) {
	list, others := strings.CutPrefix(list, "-")
	var named []Kind
	for name := range strings.SplitSeq(list, ",") {
		k := Kind(strings.TrimSpace(name))
		if !slices.Contains(Kinds(), k) {
			return nil, fmt.Errorf("unknown fault %q: there are %v", name, Kinds())
		}
		named = append(named, k)
	}
	if !others {
		return named, nil
	}
	return slices.DeleteFunc(Kinds(), func(k Kind) bool { return slices.Contains(named, k) }), nil
}

// losesLines says whether lines of the log that are not on the disk yet may be lost with the fault.
func (k Kind) losesLines() bool { return k.killsEnvoy() || k == FillDisk }

// killsEnvoy says whether clients may be cut off.
func (k Kind) killsEnvoy() bool { return k == KillEnvoy || k == Forget }

// rollsBack says whether the database comes to be as it was at the beginning of the round.
func (k Kind) rollsBack() bool { return k == RollBack || k == Forget }

// refuses says whether requests may be refused while the fault lasts.
func (k Kind) refuses() bool {
	switch k {
	case KillProcessor, TermProcessor, KillEnvoy, FreezeEnvoy, Forget, FillDisk:
		return true
	}
	return false
}

// stopsPostgres says whether a processor that starts meanwhile finds no database.
func (k Kind) stopsPostgres() bool {
	switch k {
	case StopPostgres, CrashPostgres, KillPostgres, FreezePostgres, CutDatabase, RollBack, Forget:
		return true
	}
	return false
}

// lasts says whether the fault has an end of its own.
func (k Kind) lasts() bool {
	switch k {
	case DropReply, DropCommit, CutDatabase, RollBack, Forget:
		return false
	}
	return true
}

// Fault is one fault of a round.
type Fault struct {
	Kind  Kind
	At    time.Duration // after the beginning of the load
	For   time.Duration // how long it lasts
	Count int           // how many commits are dropped
	Step  time.Duration // by how much a clock is set
}

// String is how a fault is printed: "kill-processor@1.2s+300ms".
func (f Fault) String() string {
	s := fmt.Sprintf("%s@%v", f.Kind, f.At)
	switch {
	case f.Kind.lasts():
		s += fmt.Sprintf("+%v", f.For)
		if f.Kind == ClockStep {
			s += fmt.Sprintf("(%v)", f.Step)
		}
	case f.Count > 0:
		s += fmt.Sprintf("×%d", f.Count)
	}
	return s
}

// maxFaults is how many faults a round has at most.
const maxFaults = 3

// drawFaults chooses the faults of a round whose load lasts for load.
func drawFaults(r *rand.Rand, kinds []Kind, load time.Duration) []Fault {
	var faults []Fault
	for range r.IntN(maxFaults + 1) {
		f := Fault{Kind: kinds[r.IntN(len(kinds))], At: between(r, load/10, load*9/10), For: between(r, 0, 3*time.Second)}
		switch f.Kind {
		case DropReply, DropCommit:
			f.Count = 1 + r.IntN(3)
		case RollBack, Forget:
			if slices.ContainsFunc(faults, func(f Fault) bool { return f.Kind.rollsBack() || f.Kind == FillDisk }) {
				continue // there is one backup; and on a full disk logs go as soon as they are shipped, so that a roll-back may lose them
			}
		case FillDisk:
			if slices.ContainsFunc(faults, func(f Fault) bool { return f.Kind.rollsBack() }) {
				continue
			}
		case ClockStep:
			f.Step = drawStep(r)
		}
		faults = append(faults, f)
	}
	slices.SortStableFunc(faults, func(a, b Fault) int { return int(a.At - b.At) })
	return faults
}

func between(r *rand.Rand, from, to time.Duration) time.Duration {
	return (from + time.Duration(r.Int64N(int64(to-from)))).Round(time.Millisecond)
}

// event is the beginning or the end of a fault.
type event struct {
	at    time.Duration
	fault Fault
	end   bool
}

// timeline puts the beginnings and ends of faults in order.
func timeline(faults []Fault) []event {
	var events []event
	for _, f := range faults {
		events = append(events, event{at: f.At, fault: f})
		if f.Kind.lasts() {
			events = append(events, event{at: f.At + f.For, fault: f, end: true})
		}
	}
	slices.SortStableFunc(events, func(a, b event) int { return int(a.at - b.at) })
	return events
}
