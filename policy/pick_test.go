// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// cooling is a Health by decree.
type cooling map[ChannelID]bool

func (c cooling) Cooling(id ChannelID, _ time.Time) bool { return c[id] }

// offerOf makes an offer of channels 1, 2, 3… with the given priorities and weights, sorted as a snapshot does.
func offerOf(tb testing.TB, channels ...Channel) *offer {
	tb.Helper()
	for i := range channels {
		channels[i].ID = ChannelID(i + 1)
		channels[i].Weight = max(channels[i].Weight, 1)
		channels[i].Models = []Model{{Name: "m"}}
	}
	return mustSnapshot(tb, SnapshotData{Tenants: []Tenant{{ID: 1}, {ID: 2}}, Channels: channels}).models["m"]
}

func ids(choices []Choice) []ChannelID {
	out := []ChannelID{}
	for _, c := range choices {
		out = append(out, c.Channel)
	}
	return out
}

func TestPickOrdersByPriorityThenCooling(t *testing.T) {
	t.Parallel()
	channels := []Channel{{Priority: 1}, {Priority: 9}, {Priority: -5}, {Priority: 5}, {Priority: 7, Tenant: 2}}
	tests := map[string]struct {
		cooling cooling
		tenant  TenantID
		want    []ChannelID
	}{
		"all well":         {nil, 1, []ChannelID{2, 4, 1, 3}},
		"tenant's own":     {nil, 2, []ChannelID{2, 5, 4, 1, 3}},
		"best cools":       {cooling{2: true}, 1, []ChannelID{4, 1, 3, 2}},
		"two cool":         {cooling{2: true, 1: true}, 1, []ChannelID{4, 3, 2, 1}},
		"none is left out": {cooling{1: true, 2: true, 3: true, 4: true}, 1, []ChannelID{2, 4, 1, 3}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := New(Options{Health: tt.cooling})
			if got := ids(e.pick(offerOf(t, slices.Clone(channels)...), &reach{tenant: tt.tenant}, noon)); !slices.Equal(got, tt.want) {
				t.Errorf("order = %v, want %v", got, tt.want)
			}
		})
	}
}

// For random installations: the order is a permutation of what is open (or 16 of it), priorities never rise, and what cools comes last.
func TestPickIsAnOrderedPermutation(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		channels := make([]Channel, rng.IntN(40))
		health := cooling{}
		open := 0
		for i := range channels {
			channels[i] = Channel{Priority: rng.IntN(4), Weight: 1 + rng.IntN(math.MaxInt32), Tenant: TenantID(rng.IntN(3))}
			health[ChannelID(i+1)] = rng.IntN(4) == 0
			if channels[i].Tenant != 2 {
				open++
			}
		}
		if len(channels) == 0 {
			continue
		}
		o := offerOf(t, channels...)
		before := slices.Clone(o.channels)
		got := ids(New(Options{Random: rand.NewPCG(rng.Uint64(), 1), Health: health}).pick(o, &reach{tenant: 1}, noon))
		if len(got) != min(open, maxChoices) {
			t.Fatalf("%d choices of %d that are open", len(got), open)
		}
		if !slices.EqualFunc(o.channels, before, func(a, b candidate) bool { return a.channel == b.channel }) {
			t.Fatal("the offer, which all requests share, was reordered")
		}
		for i, id := range got {
			if slices.Contains(got[:i], id) || channels[id-1].Tenant == 2 {
				t.Fatalf("%v: %d is there twice or not open", got, id)
			}
			if i == 0 {
				continue
			}
			prev := got[i-1]
			if health[prev] && !health[id] || health[prev] == health[id] && channels[prev-1].Priority < channels[id-1].Priority {
				t.Fatalf("%v: %d stands before %d", got, prev, id)
			}
		}
	}
}

func TestPickFollowsWeights(t *testing.T) {
	t.Parallel()
	const draws = 60_000
	weights := []int{1, 2, 3}
	o := offerOf(t, Channel{Weight: 1}, Channel{Weight: 2}, Channel{Weight: 3})
	e := New(Options{Random: rand.NewPCG(5, 6)})
	first, second := map[ChannelID]float64{}, map[[2]ChannelID]float64{}
	for range draws {
		got := ids(e.pick(o, &reach{tenant: 1}, noon))
		first[got[0]]++
		second[[2]ChannelID{got[0], got[1]}]++
	}
	near := func(what any, count, p float64) {
		t.Helper()
		// Five standard deviations: false alarms once in two million, and the seed is fixed anyway.
		if mean, bound := draws*p, 5*math.Sqrt(draws*p*(1-p)); math.Abs(count-mean) > bound {
			t.Errorf("%v: %v times, want %v ± %v", what, count, mean, bound)
		}
	}
	for i, wi := range weights {
		a, p := ChannelID(i+1), float64(wi)/6
		near(a, first[a], p)
		for j, wj := range weights {
			if b := ChannelID(j + 1); a != b {
				near([2]ChannelID{a, b}, second[[2]ChannelID{a, b}], p*float64(wj)/float64(6-wi))
			}
		}
	}
}

func TestRandomSourceMayBeShared(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil) // with a source that is not safe by itself: the race detector watches
	done := make(chan struct{})
	for range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			for range 200 {
				x, _, _ := e.Begin(post("/v1/chat/completions"))
				if _, denial := x.Admit([]byte(`{"model":"gpt-4o"}`)); denial != nil {
					t.Error(denial)
				}
			}
		}()
	}
	for range 4 {
		<-done
	}
}
