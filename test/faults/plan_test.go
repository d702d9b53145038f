// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestASeedRepeatsItsChoices(t *testing.T) {
	draw := func(seed uint64) ([]string, []call) {
		r := rand.New(rand.NewPCG(seed, 1))
		var faults []string
		var calls []call
		for range 200 {
			faults = append(faults, describe(drawFaults(r, Kinds(), 3*time.Second)))
			calls = append(calls, drawCall(r, 3))
		}
		return faults, calls
	}
	faults, calls := draw(1)
	again, callsAgain := draw(1)
	other, _ := draw(2)
	if diff := cmp.Diff(again, faults); diff != "" {
		t.Errorf("other faults from the same seed:\n%s", diff)
	}
	if diff := cmp.Diff(callsAgain, calls, cmp.AllowUnexported(call{})); diff != "" {
		t.Errorf("other calls from the same seed:\n%s", diff)
	}
	if cmp.Equal(other, faults) {
		t.Error("the same faults from another seed")
	}
}

func TestEveryKindOfFaultIsDrawnAndEnds(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	drawn := map[Kind]int{}
	for range 500 {
		faults := drawFaults(r, Kinds(), 3*time.Second)
		if len(faults) > maxFaults {
			t.Fatalf("%d faults in a round", len(faults))
		}
		open := 0
		for _, e := range timeline(faults) {
			if !e.end {
				drawn[e.fault.Kind]++
			}
			switch {
			case e.end:
				open--
			case e.fault.Kind.lasts():
				open++
			}
			if open < 0 {
				t.Fatalf("a fault ends before it begins: %v", timeline(faults))
			}
		}
		if open != 0 {
			t.Fatalf("a fault has no end: %v", timeline(faults))
		}
	}
	for _, k := range Kinds() {
		if drawn[k] == 0 {
			t.Errorf("%s was never drawn", k)
		}
	}
}

func TestCallsAreJSONAndOfEverySort(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	seen := map[string]int{}
	for range 5000 {
		c := drawCall(r, 3)
		if !json.Valid([]byte(c.body)) {
			t.Fatalf("not JSON: %.200s", c.body)
		}
		if c.leave == leavesSend && c.after >= len(c.body) {
			t.Fatalf("leaves after %d of %d bytes", c.after, len(c.body))
		}
		seen[c.path]++
		for name := range c.header {
			seen[name]++
		}
		seen[[]string{"stays", "leaves sending", "leaves reading", "leaves later"}[c.leave]]++
		switch {
		case len(c.body) < 100:
			seen["tiny"]++
		case len(c.body) > 1<<20:
			seen["huge"]++
		}
	}
	for _, sort := range []string{
		"/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/embeddings", "Fake-Tokens", "Fake-Interval-Ms", "Fake-Frame",
		"Fake-Delay-Ms", "Fake-Status", "Fake-Cut-After", "Fake-No-Usage", failFirst, "stays", "leaves sending", "leaves reading",
		"leaves later", "tiny", "huge",
	} {
		if seen[sort] == 0 {
			t.Errorf("no call is of the sort %q: %v", sort, seen)
		}
	}
}

func TestKindsAreReadFromAList(t *testing.T) {
	for list, want := range map[string][]Kind{
		"kill-envoy":              {KillEnvoy},
		"kill-envoy, drop-commit": {KillEnvoy, DropCommit},
		"-kill-envoy,fill-disk":   slices.DeleteFunc(Kinds(), func(k Kind) bool { return k == KillEnvoy || k == FillDisk }),
	} {
		got, err := ParseKinds(list)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %v, %v; want %v", list, got, err, want)
		}
	}
	if _, err := ParseKinds("kill-all"); err == nil {
		t.Error("an unknown kind was accepted")
	}
}

func TestTailKeepsTheLastBytes(t *testing.T) {
	var got tail
	long := bytes.Repeat([]byte("0123456789"), 100)
	for i := 0; i < len(long); i += 7 {
		_, _ = got.Write(long[i:min(i+7, len(long))])
	}
	if got.String() != string(long[len(long)-tailBytes:]) {
		t.Errorf("got %q", got.String())
	}
	_, _ = got.Write(long)
	if got.String() != string(long[len(long)-tailBytes:]) {
		t.Errorf("after a long write: got %q", got.String())
	}
}
