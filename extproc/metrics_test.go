// SPDX-License-Identifier: Apache-2.0

package extproc

import (
	"strconv"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestCodesOfRefusalsAreBounded: plugins make them up.
func TestCodesOfRefusalsAreBounded(t *testing.T) {
	t.Parallel()
	r := prometheus.NewRegistry()
	m := newMetrics(r)
	for i := range 3 * maxCodes {
		m.refused.count("code_" + strconv.Itoa(i))
	}
	m.refused.count("code_1")
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if n := len(f.GetMetric()); f.GetName() == "weir_admissions_total" && n > maxCodes+3 { // those of admitted and answered, and the others
			t.Errorf("%d series", n)
		}
	}
	for code, want := range map[string]float64{"code_1": 2, otherCode: 2 * maxCodes} {
		if got := metric(t, r, "weir_admissions_total", code); got != want {
			t.Errorf("%s: counted %v, want %v", code, got, want)
		}
	}
}
