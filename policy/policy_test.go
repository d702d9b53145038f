// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"
)

// noon is when all tests happen.
var noon = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

const secret = "sk-weir-secret"

// testData is a small installation: two tenants, keys in every state, channels of every kind.
func testData() SnapshotData {
	key := func(id KeyID, secret string, change func(*Key)) Key {
		k := Key{ID: id, Tenant: 1, Hash: HashKey(secret)}
		if change != nil {
			change(&k)
		}
		return k
	}
	return SnapshotData{
		Tenants: []Tenant{{ID: 1, Name: "acme"}, {ID: 2, Name: "gone", Disabled: true}, {ID: 3, Name: "other"}},
		Keys: []Key{
			key(1, secret, nil),
			key(2, "sk-limited", func(k *Key) { k.Models = []string{"gpt-4o-mini", "text-*"} }),
			key(3, "sk-disabled", func(k *Key) { k.Disabled = true }),
			key(4, "sk-revoked", func(k *Key) { k.Revoked, k.Disabled = true, true }),
			key(5, "sk-expired", func(k *Key) { k.Expires = noon }),
			key(6, "sk-lasting", func(k *Key) { k.Expires = noon.Add(time.Second) }),
			key(7, "sk-of-gone", func(k *Key) { k.Tenant = 2 }),
			key(8, "sk-of-other", func(k *Key) { k.Tenant = 3 }),
			key(9, DevSecret, nil),
		},
		Channels: []Channel{
			{ID: 10, Priority: 1, Weight: 1, Models: []Model{{Name: "gpt-4o"}, {Name: "gpt-4o-mini"}, {Name: "text-embedding-3-small"}}},
			{ID: 11, Priority: 5, Weight: 1, Models: []Model{{Name: "gpt-4o", Upstream: "deploy/4o"}}},
			{ID: 12, Priority: 9, Weight: 1, Models: []Model{{Name: "gpt-4o"}, {Name: "off"}}, Disabled: true},
			{ID: 13, Priority: 7, Weight: 1, Models: []Model{{Name: "gpt-4o"}, {Name: "private"}}, Tenant: 3},
			{ID: 14, Priority: 1, Weight: 1, Models: []Model{{Name: "off-private"}}, Tenant: 3, Disabled: true},
			{ID: 15, Priority: 1, Weight: 1, Models: []Model{{Name: "meta/llama"}}},
		},
	}
}

func mustSnapshot(tb testing.TB, data SnapshotData) *Snapshot {
	tb.Helper()
	s, err := NewSnapshot(data)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// newEngine returns an engine at noon with a seeded source of randomness and the test data.
func newEngine(tb testing.TB, change func(*Options)) *Engine {
	tb.Helper()
	o := Options{Clock: func() time.Time { return noon }, Random: rand.NewPCG(1, 2), MaxBodyBytes: 1 << 20}
	if change != nil {
		change(&o)
	}
	e := New(o)
	e.SetSnapshot(mustSnapshot(tb, testData()))
	return e
}

func post(path string) *Head {
	return &Head{Method: "POST", Path: path, Authorization: "Bearer " + secret, ContentLength: "10"}
}

// admit runs a chat request of the key through the engine.
func admit(tb testing.TB, e *Engine, head *Head, body string) (*Admission, *Denial) {
	tb.Helper()
	x, reply, denial := e.Begin(head)
	if reply != nil || denial != nil {
		tb.Fatalf("Begin = %v, %v, want neither reply nor denial", reply, denial)
	}
	return x.Admit([]byte(body))
}

// checkDenial holds what is true of every denial.
func checkDenial(tb testing.TB, d *Denial, status int, code string) {
	tb.Helper()
	if d == nil {
		tb.Fatalf("admitted, want %d %s", status, code)
	}
	if d.Status != status || d.Code != code {
		tb.Errorf("denied with %d %s (%s), want %d %s", d.Status, d.Code, d.Message, status, code)
	}
	if d.Message == "" || d.Type == "" {
		tb.Errorf("denial without message or type: %+v", d)
	}
	var body struct {
		Error struct {
			Message, Type, Code string
			Param               *string
		}
	}
	if err := json.Unmarshal(d.Body(), &body); err != nil || body.Error.Message != d.Message || body.Error.Code != code {
		tb.Errorf("body %s does not say what the denial says (%v)", d.Body(), err)
	}
}
