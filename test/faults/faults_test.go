// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	rounds   = flag.Int("faults.rounds", 0, "rounds of TestFaults; 0 leaves it out")
	seed     = flag.Uint64("faults.seed", 0, "seed of all choices; 0 draws one")
	kinds    = flag.String("faults.kinds", "", "kinds of faults, separated by commas; a minus before the first: all others; empty: all")
	clients  = flag.Int("faults.clients", 8, "clients")
	duration = flag.Duration("faults.load", 3*time.Second, "load of a round")
	outage   = flag.Duration("faults.outage", 0, "how long Postgres is down in TestOutage; 0 leaves it out")
	rate     = flag.Int("faults.rate", 1000, "requests a second of TestOutage")
)

// verdict is that of TestFaults or TestOutage.
var verdict string

// TestMain makes the verdict the last line of the output. It also is the processor, which must be of this very program: see [clock].
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == serveCommand {
		os.Exit(serve(os.Args[2], os.Args[3:]))
	}
	code := m.Run()
	if verdict != "" {
		fmt.Println(verdict)
	}
	os.Exit(code)
}

// TestFaults is what make faults runs.
func TestFaults(t *testing.T) {
	if *rounds == 0 {
		t.Log("run by: make faults")
		return
	}
	o := Options{
		Rounds: *rounds, Seed: *seed, Kinds: Kinds(), Load: *duration, Clients: *clients, Out: os.Stdout,
	}
	if o.Seed == 0 {
		o.Seed = rand.Uint64N(1_000_000) + 1
	}
	if *kinds != "" {
		var err error
		if o.Kinds, err = ParseKinds(*kinds); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() != 0 && slices.Contains(o.Kinds, FillDisk) {
		fmt.Println("faults: without", FillDisk, "since only root may mount a small disk")
		o.Kinds = shortKinds()
	}
	fmt.Printf("faults: %d rounds of %v, seed %d, faults %v\n", o.Rounds, o.Load, o.Seed, o.Kinds)
	verdict = "faults: FAIL the harness could not go on"
	verdict = Run(t, o)
}

// TestOutage is what make outage runs.
func TestOutage(t *testing.T) {
	if *outage == 0 {
		t.Log("run by: make outage")
		return
	}
	verdict = "outage: FAIL the harness could not go on"
	verdict = RunOutage(t, Outage{Down: *outage, Rate: *rate, Out: os.Stdout})
}

// shortKinds are the faults of TestFaultsShort: those that need no right to mount a disk.
func shortKinds() []Kind {
	return slices.DeleteFunc(Kinds(), func(k Kind) bool { return k == FillDisk })
}

// shortSeed makes five rounds that have nearly every kind of fault among them.
const shortSeed = 29974

// TestFaultsShort is five rounds of what make faults does at length.
func TestFaultsShort(t *testing.T) {
	var said strings.Builder
	verdict := Run(t, Options{
		Rounds: 5, Seed: shortSeed, Kinds: shortKinds(), Load: 2 * time.Second, Clients: 8, Out: &said,
	})
	t.Logf("%s%s", &said, verdict)
}
