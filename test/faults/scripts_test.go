// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// script runs one round with these faults, which must go well.
func script(t *testing.T, load time.Duration, faults ...Fault) (*world, Tally) {
	t.Helper()
	var said strings.Builder
	w := newWorld(t, Options{Rounds: 1, Seed: 1, Kinds: shortKinds(), Load: load, Clients: 8, Out: &said})
	tally, err := w.round(t.Context(), 1, faults)
	t.Log(said.String())
	if err != nil {
		t.Fatal(err)
	}
	return w, tally
}

// TestKillsOfTheProcessorLeaveNothingUnresolvedAndCutNoStream: also when it is dead for longer than a lease. That no stream is cut is
// judged with everything else.
func TestKillsOfTheProcessorLeaveNothingUnresolvedAndCutNoStream(t *testing.T) {
	_, tally := script(t, 8*time.Second,
		Fault{Kind: KillProcessor, At: 500 * time.Millisecond, For: 4 * time.Second},
		Fault{Kind: KillProcessor, At: 5500 * time.Millisecond, For: 100 * time.Millisecond},
		Fault{Kind: KillProcessor, At: 6500 * time.Millisecond, For: 0},
	)
	if tally.Unresolved != 0 || tally.AtRisk != 0 {
		t.Errorf("%d rows are unresolved", tally.Unresolved)
	}
	// How many are refused is no measure: Envoy holds requests while no processor is there.
	if tally.Rows < 100 {
		t.Errorf("nothing was put to the test: %v", tally)
	}
}

// TestLinesThatComeAfterTheLeaseCorrect: an Envoy that stands still for longer than a lease is given up, and goes on.
func TestLinesThatComeAfterTheLeaseCorrect(t *testing.T) {
	w, tally := script(t, 6*time.Second, Fault{Kind: FreezeEnvoy, At: 500 * time.Millisecond, For: 4500 * time.Millisecond})
	if tally.Unresolved != 0 || tally.Rows < 50 {
		t.Errorf("got %v", tally)
	}
	if n, err := w.rig.Metric("weir_usage_unresolved_total"); n == 0 || err != nil {
		t.Errorf("%v exchanges were given up, %v: nothing was put to the test", n, err)
	}
}

func TestUnresolvedRowsOutliveARollBack(t *testing.T) {
	w, tally := script(t, 3*time.Second, Fault{Kind: Forget, At: time.Second})
	if tally.Unresolved == 0 {
		t.Errorf("got %v: nothing was put to the test", tally)
	}
	w.rig.Eventually("what was forgotten is noticed", func() error {
		n, err := w.rig.Metric("weir_usage_unresolved_set_back_total")
		if err == nil && n == 0 {
			err = fmt.Errorf("%v times", n)
		}
		return err
	})
}

func TestProcessorThatStartsWithAClockThatIsAheadDropsNothing(t *testing.T) {
	script(t, 3*time.Second,
		Fault{Kind: ClockStep, At: time.Second, For: 2 * time.Second, Step: 400 * day},
		Fault{Kind: KillProcessor, At: 1100 * time.Millisecond, For: 0},
	)
}
