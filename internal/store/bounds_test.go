// SPDX-License-Identifier: Apache-2.0

package store

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/usage"
)

// TestBoundedKeepsWhatFitsAndCopiesTheRest: a record that can be kept is the caller's own; of any other there is a copy that can be.
func TestBoundedKeepsWhatFitsAndCopiesTheRest(t *testing.T) {
	good := record(t, noon())
	if got := bounded(&good); got != &good {
		t.Error("a record that fits was copied")
	}
	long := strings.Repeat("ä", maxText)
	for name, tt := range map[string]struct {
		spoil func(*usage.Record)
		want  func(*usage.Record)
	}{
		"negative":        {func(r *usage.Record) { r.Input = -1 }, func(r *usage.Record) { r.Input = 0 }},
		"huge":            {func(r *usage.Record) { r.AudioOutput = math.MaxInt64 }, func(r *usage.Record) { r.AudioOutput = maxCount }},
		"bytes":           {func(r *usage.Record) { r.ResponseBytes = maxCount + 1 }, func(r *usage.Record) { r.ResponseBytes = maxCount }},
		"cost":            {func(r *usage.Record) { r.CostNanoUSD = math.MaxInt64 }, func(r *usage.Record) { r.CostNanoUSD = usage.MaxCost }},
		"status":          {func(r *usage.Record) { r.HTTPStatus = math.MaxInt }, func(r *usage.Record) { r.HTTPStatus = math.MaxInt32 }},
		"attempts":        {func(r *usage.Record) { r.Attempts = -7 }, func(r *usage.Record) { r.Attempts = 0 }},
		"nanoseconds":     {func(r *usage.Record) { r.Time = noon().Add(1999) }, func(r *usage.Record) { r.Time = noon().Add(1000) }},
		"another zone":    {func(r *usage.Record) { r.Time = noon().In(time.FixedZone("x", 3600)) }, func(*usage.Record) {}},
		"before the year": {func(r *usage.Record) { r.Time = time.Time{}.Add(-1) }, func(r *usage.Record) { r.Time = time.Unix(0, 0).UTC() }},
		"after the years": {func(r *usage.Record) { r.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, func(r *usage.Record) { r.Time = time.Unix(0, 0).UTC() }},
		"NUL":             {func(r *usage.Record) { r.Model = "a\x00b" }, func(r *usage.Record) { r.Model = "a\uFFFDb" }},
		"not UTF-8":       {func(r *usage.Record) { r.UpstreamModel = "a\xffb" }, func(r *usage.Record) { r.UpstreamModel = "a\uFFFDb" }},
		"long":            {func(r *usage.Record) { r.Model = "x" + long }, func(r *usage.Record) { r.Model = "x" + long[:maxText-2] }},
		"status's text":   {func(r *usage.Record) { r.Status = "\x00" }, func(r *usage.Record) { r.Status = "\uFFFD" }},
		"operation":       {func(r *usage.Record) { r.Operation = "\x00" }, func(r *usage.Record) { r.Operation = "\uFFFD" }},
	} {
		spoiled, want := good, good
		tt.spoil(&spoiled)
		tt.want(&want)
		before := spoiled
		got := bounded(&spoiled)
		if got == &spoiled {
			t.Errorf("%s: it was not copied", name)
		}
		if diff := cmp.Diff(spoiled, before); diff != "" {
			t.Errorf("%s: the caller's was changed (-got +want):\n%s", name, diff)
		}
		if diff := cmp.Diff(*got, want); diff != "" {
			t.Errorf("%s (-got +want):\n%s", name, diff)
		}
		if again := bounded(got); !cmp.Equal(*again, *got) || again.Time.Location() != time.UTC {
			t.Errorf("%s: bounded once more it is %+v", name, again)
		}
	}
}

// TestYearsHaveTheirSeconds: the bounds on times are those of the years 1 to 9999.
func TestYearsHaveTheirSeconds(t *testing.T) {
	if got := time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).Unix(); got != firstSecond {
		t.Errorf("the first is %d", got)
	}
	if got := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Unix(); got != lastSecond {
		t.Errorf("the last is %d", got)
	}
}
