// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
)

const benchKeys = 1_000_000

// benchRing returns a keyring of a million keys and their secrets in random order.
func benchRing(b *testing.B) (*Keyring, []string) {
	b.Helper()
	builder := NewKeyBuilder(benchKeys)
	secrets := make([]string, benchKeys)
	for i := range secrets {
		secrets[i] = fmt.Sprintf("sk-weir-%043d", i)
		k := Key{ID: KeyID(i + 1), Tenant: TenantID(i%1000 + 1), Hash: HashKey(secrets[i]), Name: fmt.Sprintf("key-%d", i), Models: []string{fmt.Sprintf("m%d", i%10)}}
		if err := builder.Add(&k); err != nil {
			b.Fatal(err)
		}
	}
	r := &Keyring{}
	if err := r.Replace(builder); err != nil {
		b.Fatal(err)
	}
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(secrets), func(i, j int) { secrets[i], secrets[j] = secrets[j], secrets[i] })
	return r, secrets
}

// BenchmarkKeyring has a million keys, met in random order: memory is cold.
func BenchmarkKeyring(b *testing.B) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	r, secrets := benchRing(b)
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.Logf("heap with the secrets of the test (%d MB): %d MB", benchKeys*(51+16)>>20, (after.HeapAlloc-before.HeapAlloc)>>20)
	b.Run("look-up", func(b *testing.B) {
		b.ReportAllocs()
		var g grant
		for i := 0; b.Loop(); i++ {
			h := HashKey(secrets[i%len(secrets)])
			if !r.find(&h, &g) {
				b.Fatal("not found")
			}
		}
	})
	b.Run("change", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			id := KeyID(i*7919%benchKeys + 1)
			if err := r.Change([]Key{{ID: id, Tenant: 1, Hash: HashKey(fmt.Sprint(id)), Revoked: true}}, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			var file bytes.Buffer
			file.Grow(100 << 20)
			if err := r.Write(&file); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(file.Len()))
		}
	})
	var file bytes.Buffer
	if err := r.Write(&file); err != nil {
		b.Fatal(err)
	}
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			builder, err := ReadKeys(file.Bytes())
			if err != nil {
				b.Fatal(err)
			}
			if err := (&Keyring{}).Replace(builder); err != nil {
				b.Fatal(err)
			}
		}
	})
}
