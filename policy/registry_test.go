// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"maps"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRegistryIsAMap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var r Registry[KeyID, int]
	want := make(map[KeyID]int)
	for round := range 500 {
		put := make(map[KeyID]int)
		var gone []KeyID
		for range random.IntN(20) {
			put[KeyID(random.IntN(2000))] = round
		}
		for range random.IntN(20) {
			gone = append(gone, KeyID(random.IntN(2000)))
		}
		for _, k := range gone {
			delete(want, k)
		}
		maps.Copy(want, put)
		r.Change(put, gone)
		if r.Len() != len(want) {
			t.Fatalf("%d things, want %d", r.Len(), len(want))
		}
	}
	if diff := cmp.Diff(maps.Collect(r.All()), want); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
	for k := range KeyID(2000) {
		got, ok := r.Get(k)
		if was, there := want[k]; got != was || ok != there {
			t.Errorf("%d: %d %v, want %d %v", k, got, ok, was, there)
		}
	}
	for range r.All() {
		break
	}
	if n := testing.AllocsPerRun(100, func() { r.Get(7) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestRegistryIsReadWhileItChanges(t *testing.T) {
	t.Parallel()
	var r Registry[KeyID, KeyID]
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := range KeyID(20_000) {
				if v, ok := r.Get(i % 700); ok && v != i%700 {
					t.Errorf("%d has %d", i%700, v)
				}
			}
		})
	}
	for i := range KeyID(700) {
		r.Change(map[KeyID]KeyID{i: i}, []KeyID{i - 100})
	}
	wg.Wait()
	if r.Len() != 100 {
		t.Errorf("%d things, want 100", r.Len())
	}
}
