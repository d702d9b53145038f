// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// look finds the key of a secret as a request would, without asking whether it may be used.
func look(r *Keyring, secret string) (Key, bool) {
	h := HashKey(secret)
	var g grant
	found := r.find(&h, &g)
	return g.key, found
}

// sameKey compares what a keyring gives back with what was put in.
func sameKey(got, want Key) string {
	return cmp.Diff(got, want, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }))
}

func mustChange(tb testing.TB, r *Keyring, keys []Key, gone []KeyID) {
	tb.Helper()
	if err := r.Change(keys, gone); err != nil {
		tb.Fatal(err)
	}
}

func mustReplace(tb testing.TB, r *Keyring, keys ...Key) {
	tb.Helper()
	b := NewKeyBuilder(0)
	for i := range keys {
		if err := b.Add(&keys[i]); err != nil {
			tb.Fatal(err)
		}
	}
	if err := r.Replace(b); err != nil {
		tb.Fatal(err)
	}
}

// someKey makes a key whose fields vary with a number.
func someKey(rng *rand.Rand, id KeyID, secret string) Key {
	k := Key{ID: id, Tenant: TenantID(1 + rng.IntN(3)), Hash: HashKey(secret), Name: fmt.Sprintf("key-%d", rng.IntN(1000))}
	if rng.IntN(3) == 0 {
		k.Models = []string{"gpt-*", fmt.Sprintf("m%d", rng.IntN(5))}
	}
	if rng.IntN(4) == 0 {
		k.Groups = []string{fmt.Sprintf("g%d", rng.IntN(5))}
	}
	if rng.IntN(4) == 0 {
		k.Networks = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}
	}
	if rng.IntN(4) == 0 {
		k.Tags = []Tag{{"team", "red"}, {"n", fmt.Sprint(rng.IntN(100))}}
	}
	k.Disabled, k.Revoked, k.Pinnable = rng.IntN(4) == 0, rng.IntN(4) == 0, rng.IntN(4) == 0
	if rng.IntN(2) == 0 {
		k.Expires = noon.Add(time.Duration(rng.IntN(1000)) * time.Second).Local()
	}
	return k
}

// TestKeyringIsAMapThatChanges compares a keyring with a map over random changes, with merges, replacements and a way through a file in between.
func TestKeyringIsAMapThatChanges(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 1))
		r, model := &Keyring{}, map[KeyID]Key{}
		secrets := func(id KeyID) []string {
			return []string{fmt.Sprintf("s-%d-0", id), fmt.Sprintf("s-%d-1", id), fmt.Sprintf("s-%d-2", id)}
		}
		for range 30 {
			var changed []Key
			var gone []KeyID
			for range rng.IntN(40) {
				id := KeyID(1 + rng.IntN(60))
				if slices.ContainsFunc(changed, func(k Key) bool { return k.ID == id }) || slices.Contains(gone, id) {
					continue
				}
				if rng.IntN(4) == 0 {
					gone = append(gone, id)
					delete(model, id)
					continue
				}
				k := someKey(rng, id, secrets(id)[rng.IntN(3)])
				model[id] = k
				changed = append(changed, k)
			}
			switch rng.IntN(6) {
			case 0:
				mustReplace(t, r, values(model)...)
			case 1:
				mustChange(t, r, changed, gone)
				var file bytes.Buffer
				if err := r.Write(&file); err != nil {
					t.Fatal(err)
				}
				b, err := ReadKeys(file.Bytes())
				if err != nil {
					t.Fatal(err)
				}
				r = &Keyring{}
				if err := r.Replace(b); err != nil {
					t.Fatal(err)
				}
			default:
				mustChange(t, r, changed, gone)
			}
			checkRing(t, r, model, secrets)
		}
	}
}

func values(m map[KeyID]Key) []Key {
	var out []Key
	for _, k := range m {
		out = append(out, k)
	}
	return out
}

func checkRing(t *testing.T, r *Keyring, model map[KeyID]Key, secrets func(KeyID) []string) {
	t.Helper()
	if got := r.Len(); got != len(model) {
		t.Fatalf("%d keys, want %d", got, len(model))
	}
	for id := KeyID(1); id <= 60; id++ {
		want, there := model[id]
		if r.Knows(id) != there {
			t.Fatalf("key %d: known %v, want %v", id, !there, there)
		}
		for _, s := range secrets(id) {
			got, found := look(r, s)
			if found != (there && HashKey(s) == want.Hash) {
				t.Fatalf("key %d by %q: found %v", id, s, found)
			}
			if !found {
				continue
			}
			if diff := sameKey(got, want); diff != "" {
				t.Fatalf("key %d (-got +want):\n%s", id, diff)
			}
		}
	}
}

func TestKeyringMergesWhenMuchHasChanged(t *testing.T) {
	t.Parallel()
	r := &Keyring{}
	const n = 3 * overlayLeast
	for id := KeyID(1); id <= n; id++ {
		mustChange(t, r, []Key{{ID: id, Tenant: 1, Hash: HashKey(fmt.Sprint(id)), Models: []string{fmt.Sprintf("m%d", id%7)}}}, nil)
	}
	if r.size > overlayLeast {
		t.Errorf("an overlay of %d entries, want at most %d", r.size, overlayLeast)
	}
	for id := KeyID(1); id <= n; id++ {
		k, found := look(r, fmt.Sprint(id))
		if !found || k.ID != id || k.Models[0] != fmt.Sprintf("m%d", id%7) {
			t.Fatalf("key %d: %+v, %v", id, k, found)
		}
	}
	if got := len(r.interner.known); got != 7 {
		t.Errorf("%d lists are kept, want 7", got)
	}
}

func TestKeyringKeepsTheSecretBeforeForItsTime(t *testing.T) {
	t.Parallel()
	until := noon.Add(time.Hour)
	rotated := Key{ID: 1, Tenant: 1, Hash: HashKey("new"), Previous: HashKey("old"), PreviousUntil: until}
	for name, fill := range map[string]func(*Keyring){
		"table":   func(r *Keyring) { mustReplace(t, r, rotated) },
		"overlay": func(r *Keyring) { mustChange(t, r, []Key{rotated}, nil) },
		"file": func(r *Keyring) {
			from := &Keyring{}
			mustChange(t, from, []Key{rotated}, nil)
			var file bytes.Buffer
			if err := from.Write(&file); err != nil {
				t.Fatal(err)
			}
			b, err := ReadKeys(file.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Replace(b); err != nil {
				t.Fatal(err)
			}
		},
	} {
		r := &Keyring{}
		fill(r)
		now, ok := look(r, "new")
		before, alsoOK := look(r, "old")
		if !ok || !alsoOK || now.ID != 1 || before.ID != 1 || !before.PreviousUntil.Equal(until) || r.Len() != 1 {
			t.Errorf("%s: %+v and %+v, %d keys", name, now, before, r.Len())
		}
		mustChange(t, r, []Key{{ID: 1, Tenant: 1, Hash: HashKey("newest"), Previous: HashKey("new"), PreviousUntil: until}}, nil)
		if _, found := look(r, "old"); found {
			t.Errorf("%s: the secret before the one before is known", name)
		}
		mustChange(t, r, nil, []KeyID{1})
		for _, s := range []string{"old", "new", "newest"} {
			if _, found := look(r, s); found {
				t.Errorf("%s: %q of a key that is gone is known", name, s)
			}
		}
	}
}

// TestKeyringGivesASecretToItsLastOwner has a secret change hands, in either order of the two keys.
func TestKeyringGivesASecretToItsLastOwner(t *testing.T) {
	t.Parallel()
	taker := Key{ID: 2, Tenant: 1, Hash: HashKey("shared")}
	for _, gone := range [][]KeyID{{1}, nil} {
		r := &Keyring{}
		mustReplace(t, r, Key{ID: 1, Tenant: 1, Hash: HashKey("shared")})
		change := []Key{taker}
		if gone == nil {
			change = append(change, Key{ID: 1, Tenant: 1, Hash: HashKey("other")})
		}
		mustChange(t, r, change, gone)
		if k, found := look(r, "shared"); !found || k.ID != 2 {
			t.Errorf("gone %v: the secret is that of %+v, %v", gone, k, found)
		}
	}
	r := &Keyring{} // what is a secret today wins over what was one yesterday
	mustReplace(t, r, Key{ID: 1, Tenant: 1, Hash: HashKey("a"), Previous: HashKey("shared"), PreviousUntil: noon}, taker)
	if k, _ := look(r, "shared"); k.ID != 2 {
		t.Errorf("found %+v", k)
	}
	mustChange(t, r, []Key{{ID: 1, Tenant: 1, Hash: HashKey("b"), Previous: HashKey("shared"), PreviousUntil: noon}}, nil)
	if k, _ := look(r, "shared"); k.ID != 2 {
		t.Errorf("after a change found %+v", k)
	}
}

func TestKeyringRefusesWhatNoStoreShouldHold(t *testing.T) {
	t.Parallel()
	r := &Keyring{}
	mustReplace(t, r, Key{ID: 1, Tenant: 1, Hash: HashKey("a")})
	for want, bad := range map[string]Key{
		"id is not positive": {ID: 0},
		"empty model":        {ID: 2, Models: []string{""}},
		"name of 300 bytes":  {ID: 2, Name: string(make([]byte, 300))},
	} {
		err := r.Change([]Key{{ID: 3, Hash: HashKey("c")}, bad}, []KeyID{1})
		if err == nil || !bytes.Contains([]byte(err.Error()), []byte(want)) {
			t.Errorf("error %v, want one with %q", err, want)
		}
		if r.Len() != 1 || !r.Knows(1) || r.Knows(3) {
			t.Error("a change that was refused was made in part")
		}
	}
}

func TestReadKeysRefusesDamage(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 1))
	r := &Keyring{}
	for id := KeyID(1); id <= 20; id++ {
		mustChange(t, r, []Key{someKey(rng, id, fmt.Sprint(id))}, nil)
	}
	var file bytes.Buffer
	if err := r.Write(&file); err != nil {
		t.Fatal(err)
	}
	for n := range file.Len() {
		if _, err := ReadKeys(file.Bytes()[:n]); err == nil {
			t.Fatalf("%d of %d bytes are taken", n, file.Len())
		}
	}
}

func FuzzReadKeys(f *testing.F) {
	r := &Keyring{}
	mustChange(f, r, []Key{someKey(rand.New(rand.NewPCG(1, 1)), 1, "a"), {ID: 2, Hash: HashKey("b"), Tags: []Tag{{"a", "b"}}}}, nil)
	var file bytes.Buffer
	if err := r.Write(&file); err != nil {
		f.Fatal(err)
	}
	f.Add(file.Bytes())
	f.Fuzz(func(_ *testing.T, b []byte) {
		builder, err := ReadKeys(b)
		if err != nil {
			return
		}
		r := &Keyring{}
		if r.Replace(builder) == nil { // what is taken can be read without harm
			for i := range r.state.Load().table.records {
				var g grant
				r.find(&r.state.Load().table.records[i].hash, &g)
			}
		}
	})
}

// TestKeyringIsReadWhileItChanges is for the race detector; and a key that does not change is never missing.
func TestKeyringIsReadWhileItChanges(t *testing.T) {
	t.Parallel()
	r := &Keyring{}
	mustReplace(t, r, Key{ID: 1, Tenant: 1, Hash: HashKey("stays")})
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, found := look(r, "stays"); !found {
					t.Error("a key was missing while others changed")
					return
				}
			}
		})
	}
	for id := KeyID(3); id < 2*overlayLeast; id++ {
		mustChange(t, r, []Key{{ID: id, Tenant: 1, Hash: HashKey(fmt.Sprint(id))}}, []KeyID{max(2, id-100)})
	}
	close(stop)
	wg.Wait()
}

func TestKeyringLookUpDoesNotAllocate(t *testing.T) {
	r := &Keyring{}
	mustReplace(t, r, Key{ID: 1, Tenant: 1, Hash: HashKey("a"), Name: "name", Models: []string{"m"}})
	mustChange(t, r, []Key{{ID: 2, Tenant: 1, Hash: HashKey("b"), Name: "name"}}, nil)
	var g grant
	for _, s := range []string{"a", "b", "c"} {
		if got := testing.AllocsPerRun(100, func() {
			h := HashKey(s)
			r.find(&h, &g)
		}); got != 0 {
			t.Errorf("%q: %v allocations", s, got)
		}
	}
}

// TestKeyringHoldsMillionsInFewBytes counts what a key takes beyond its name.
func TestKeyringHoldsMillionsInFewBytes(t *testing.T) {
	const n = 100_000
	b := NewKeyBuilder(n)
	for id := KeyID(1); id <= n; id++ {
		if err := b.Add(&Key{ID: id, Tenant: 1, Hash: HashKey(fmt.Sprint(id)), Name: "0123456789"}); err != nil {
			t.Fatal(err)
		}
	}
	table, err := b.table()
	if err != nil {
		t.Fatal(err)
	}
	if got := cap(table.records)*72 + cap(table.slots)*4 + len(table.text); got > 100*n {
		t.Errorf("%d bytes for %d keys", got, n)
	}
}
