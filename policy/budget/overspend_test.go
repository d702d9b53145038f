// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// seeds is how many schedules each simulation tries: 100, or what WEIR_BUDGET_SEEDS says.
func seeds(t *testing.T) int {
	t.Helper()
	n := 100
	if s := os.Getenv("WEIR_BUDGET_SEEDS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil || n < 1 {
			t.Fatalf("WEIR_BUDGET_SEEDS=%s is not a number of seeds", s)
		}
	}
	if testing.Short() {
		n = min(n, 10)
	}
	return n
}

func all() faults {
	return faults{crashes: true, partitions: true, skew: true, outages: true}
}

func TestBudgetIsNeverOverspentWhenReservationsAreUpperBounds(t *testing.T) {
	simulate(t, "all faults", seeds(t), all(), func(seed uint64, w *world, left string) {
		if w.over > 0 {
			t.Errorf("seed %d: %s spent beyond a budget", seed, FormatUSD(w.over))
		}
		if left != "" {
			t.Errorf("seed %d: %s", seed, left)
		}
	})
	simulate(t, "no faults", max(seeds(t)/10, 1), faults{}, func(seed uint64, w *world, left string) {
		if w.over > 0 || left != "" {
			t.Errorf("seed %d: %s spent beyond a budget; %s", seed, FormatUSD(w.over), left)
		}
	})
}

func TestOverspendIsAtMostWhatReservationsFellShortOf(t *testing.T) {
	f := all()
	f.under = true
	found := 0
	simulate(t, "some cost more than was reserved", seeds(t), f, func(seed uint64, w *world, _ string) {
		if w.worst > 0 {
			t.Errorf("seed %d: %s spent beyond a budget and what reservations fell short of", seed, FormatUSD(w.worst))
		}
		if w.over > 0 {
			found++
		}
	})
	t.Cleanup(func() {
		if !t.Failed() && found == 0 {
			t.Error("no budget was ever overspent: the simulation does not put them under pressure")
		}
	})
}

func TestOverspendAfterASetBackIsAtMostWhatWasForgotten(t *testing.T) {
	f := all()
	f.setBacks = true
	simulate(t, "bank set back", seeds(t), f, func(seed uint64, w *world, left string) {
		if w.worst > 0 {
			t.Errorf("seed %d: %s spent beyond a budget and what the bank had forgotten", seed, FormatUSD(w.worst))
		}
		if left != "" {
			t.Errorf("seed %d: %s", seed, left)
		}
	})
}

// Mistakes that the simulation must find, or it proves nothing.
func TestSimulationFindsMistakes(t *testing.T) {
	for name, plant := range map[string]func(*faults){
		"lease released by a timer":                        func(f *faults) { f.releaseAfter = 10 * time.Second },
		"end of an exchange told before its row is posted": func(f *faults) { f.settleFirst = true },
	} {
		f := all()
		plant(&f)
		found := 0
		var worst int64
		simulate(t, name, min(seeds(t), 100), f, func(_ uint64, w *world, _ string) {
			if w.worst > 0 {
				found++
			}
			worst = max(worst, w.worst)
		})
		t.Cleanup(func() {
			t.Logf("%s: found by %d seeds; %s at worst", name, found, FormatUSD(worst))
			if found == 0 {
				t.Errorf("the simulation does not find the mistake: %s", name)
			}
		})
	}
}
