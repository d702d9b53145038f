// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"strings"
	"testing"

	"github.com/weir-proxy/weir/usage"
)

func TestWhatIsNotSampledCostsNothing(t *testing.T) {
	tel := open(t, telemetryTo(newSink(t).URL), nil)
	r := &usage.Record{Trace: "1700000000000123 00-0af7651916cd43dd8448eb211c80319d-b7ad6b7169203331-00"}
	if n := testing.AllocsPerRun(100, func() { tel.span(r, server{}) }); n != 0 {
		t.Errorf("it takes %v allocations", n)
	}
}

func TestOnlyWhatIsSurelyNotSampledIsPassedOver(t *testing.T) {
	t.Parallel()
	const id, span = "0af7651916cd43dd8448eb211c80319d", "b7ad6b7169203331"
	for trace, want := range map[string]bool{
		"1 00-" + id + "-" + span + "-00":                      true,
		"1 00-" + id + "-" + span + "-01":                      false,
		"1 00-" + id + "-" + span + "-02":                      false,
		"1 01-" + id + "-" + span + "-00":                      false,
		"1 00-" + id + "-" + span:                              false,
		"1 00-" + strings.Repeat("0", 32) + "-" + span + "-00": false,
		"1 00-" + id + "-" + strings.Repeat("0", 16) + "-00":   false,
		"00-" + id + "-" + span + "-00":                        false,
		"1":                                                    false,
		"":                                                     false,
	} {
		r := &usage.Record{Trace: trace}
		if got := unsampled(r); got != want {
			t.Errorf("%q: got %v", trace, got)
		}
		if _, parent := place(r); want && (!parent.IsValid() || parent.IsSampled()) {
			t.Errorf("%q is sampled, or no trace", trace)
		}
	}
}
