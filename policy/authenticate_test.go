// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func prefixes(all ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range all {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// keyed returns an engine whose only key, with the given secret, is as changed.
func keyed(tb testing.TB, secret string, change func(*SnapshotData, *Key)) *Engine {
	tb.Helper()
	e := newEngine(tb, nil)
	data := testData()
	data.Keys = []Key{{ID: 1, Tenant: 1, Hash: HashKey(secret)}}
	change(&data, &data.Keys[0])
	e.SetSnapshot(mustSnapshot(tb, data))
	return e
}

func headOf(secret string) *Head {
	h := post("/v1/chat/completions")
	h.Authorization = "Bearer " + secret
	return h
}

func TestKeyWorksFromItsNetworksOnly(t *testing.T) {
	t.Parallel()
	e := keyed(t, "sk-office", func(_ *SnapshotData, k *Key) { k.Networks = prefixes("10.1.0.0/16", "192.0.2.7/32", "2001:db8::/32") })
	for address, allowed := range map[string]bool{
		"10.1.2.3": true, "192.0.2.7": true, "2001:db8::1": true, "::ffff:10.1.2.3": true,
		"10.2.0.1": false, "192.0.2.8": false, "2001:db9::1": false, "fe80::1%eth0": false, "": false, "10.1.2.3:80": false, "nonsense": false,
	} {
		h := headOf("sk-office")
		h.Address = address
		_, _, denial := e.Begin(h)
		if allowed {
			if denial != nil {
				t.Errorf("%q: denied: %v", address, denial)
			}
			continue
		}
		checkDenial(t, denial, 401, CodeAddressNotAllowed)
	}
}

func TestSecretBeforeWorksUntilItsTime(t *testing.T) {
	t.Parallel()
	for until, want := range map[time.Duration]bool{time.Second: true, 0: false, -time.Hour: false} {
		e := keyed(t, "sk-new", func(_ *SnapshotData, k *Key) { k.Previous, k.PreviousUntil = HashKey("sk-old"), noon.Add(until) })
		if _, _, denial := e.Begin(headOf("sk-new")); denial != nil {
			t.Errorf("%s: the new secret is denied: %v", until, denial)
		}
		_, _, denial := e.Begin(headOf("sk-old"))
		if want && denial != nil {
			t.Errorf("%s: the old secret is denied: %v", until, denial)
		}
		if !want {
			checkDenial(t, denial, 401, CodeInvalidKey)
		}
	}
	e := keyed(t, "sk-new", func(_ *SnapshotData, k *Key) {
		k.Previous, k.PreviousUntil, k.Expires = HashKey("sk-old"), noon.Add(time.Hour), noon
	})
	_, _, denial := e.Begin(headOf("sk-old"))
	checkDenial(t, denial, 401, CodeInvalidKey) // a key that has expired has none that works
	e = keyed(t, "sk-new", func(_ *SnapshotData, k *Key) {
		k.Previous, k.PreviousUntil, k.Revoked = HashKey("sk-old"), noon.Add(time.Hour), true
	})
	_, _, denial = e.Begin(headOf("sk-old"))
	checkDenial(t, denial, 401, CodeInvalidKey)
}

func TestKeyOfATenantThatHasNotComeYetWaits(t *testing.T) {
	t.Parallel()
	ring := &Keyring{}
	data := SnapshotData{Keyring: ring, Tenants: []Tenant{{ID: 1}}}
	e := newEngine(t, nil)
	e.SetSnapshot(mustSnapshot(t, data))
	_, _, denial := e.Begin(headOf("sk-a"))
	checkDenial(t, denial, 401, CodeInvalidKey)
	mustChange(t, ring, []Key{{ID: 1, Tenant: 2, Hash: HashKey("sk-a")}}, nil)
	_, _, denial = e.Begin(headOf("sk-a"))
	checkDenial(t, denial, 503, CodeUnavailable)
	data.Tenants = append(data.Tenants, Tenant{ID: 2})
	e.SetSnapshot(mustSnapshot(t, data))
	if _, _, denial = e.Begin(headOf("sk-a")); denial != nil {
		t.Error(denial)
	}
	mustChange(t, ring, nil, []KeyID{1})
	_, _, denial = e.Begin(headOf("sk-a"))
	checkDenial(t, denial, 401, CodeInvalidKey)
}

// grouped has one model on four channels: in no group, in a, in b, in both.
func grouped(key, tenant []string) func(*SnapshotData, *Key) {
	return func(d *SnapshotData, k *Key) {
		k.Groups, d.Tenants[0].Groups = key, tenant
		d.Channels = nil
		for i, groups := range [][]string{nil, {"a"}, {"b"}, {"a", "b"}} {
			d.Channels = append(d.Channels, Channel{ID: ChannelID(i + 1), Priority: -i, Weight: 1, Models: []Model{{Name: "m"}}, Groups: groups})
		}
	}
}

func TestGroupsHoldKeysAndTenantsToTheirChannels(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		key, tenant []string
		want        []ChannelID
	}{
		"neither":     {nil, nil, []ChannelID{1, 2, 3, 4}},
		"key":         {[]string{"a"}, nil, []ChannelID{2, 4}},
		"tenant":      {nil, []string{"b"}, []ChannelID{3, 4}},
		"both":        {[]string{"a"}, []string{"b"}, []ChannelID{4}},
		"either of":   {[]string{"a", "b"}, nil, []ChannelID{2, 3, 4}},
		"no such one": {[]string{"c"}, nil, nil},
	} {
		e := keyed(t, "sk-a", grouped(tt.key, tt.tenant))
		a, denial := admit(t, e, headOf("sk-a"), `{"model":"m"}`)
		if tt.want == nil {
			checkDenial(t, denial, 404, CodeModelNotFound)
			continue
		}
		if denial != nil {
			t.Errorf("%s: %v", name, denial)
			continue
		}
		var got []ChannelID
		for _, c := range a.Choices {
			got = append(got, c.Channel)
		}
		if diff := cmp.Diff(got, tt.want); diff != "" {
			t.Errorf("%s (-got +want):\n%s", name, diff)
		}
	}
}

func TestModelsListsWhatGroupsLeave(t *testing.T) {
	t.Parallel()
	for groups, want := range map[string]string{"a": `"id":"m"`, "c": `"data":[]`} {
		e := keyed(t, "sk-a", grouped([]string{groups}, nil))
		h := headOf("sk-a")
		h.Method, h.Path, h.ContentLength, h.EndOfStream = "GET", "/v1/models", "", true
		_, reply, denial := e.Begin(h)
		if denial != nil || !strings.Contains(string(reply.Body), want) {
			t.Errorf("group %s: %+v, %v, want %s", groups, reply, denial, want)
		}
	}
}

// The forms of one-api ("sk-" and letters), of a name with hyphens, and of a key with hyphens.
func TestPinnedKeyUsesItsChannelAlone(t *testing.T) {
	t.Parallel()
	for secret, pins := range map[string]map[string]ChannelID{
		"sk-abcdefghij":    {"2": 2, "east-1": 3},
		"sk-weir-abcdefgh": {"2": 2, "4": 4, "east-1": 3},
	} {
		e := keyed(t, secret, func(d *SnapshotData, k *Key) {
			grouped(nil, nil)(d, k)
			d.Channels[2].Name = "east-1"
			k.Pinnable = true
		})
		for pin, want := range pins {
			a, denial := admit(t, e, headOf(secret+"-"+pin), `{"model":"m"}`)
			if denial != nil || len(a.Choices) != 1 || a.Choices[0].Channel != want {
				t.Errorf("%s-%s: %+v, %v, want channel %d", secret, pin, a, denial, want)
			}
		}
		_, denial := admit(t, e, headOf(secret+"-99"), `{"model":"m"}`)
		checkDenial(t, denial, 403, CodeChannelNotAllowed)
		if a, denial := admit(t, e, headOf(secret), `{"model":"m"}`); denial != nil || len(a.Choices) != 4 {
			t.Errorf("without a channel: %+v, %v", a, denial)
		}
	}
}

func TestPinNeedsAKeyThatAllowsIt(t *testing.T) {
	t.Parallel()
	e := keyed(t, "sk-abcdefghij", grouped(nil, nil))
	for _, s := range []string{"sk-abcdefghij-2", "sk-abcdefghij-", "-2", "sk-", "-", "--", "sk-abcdefghij--"} {
		_, _, denial := e.Begin(headOf(s))
		checkDenial(t, denial, 401, CodeInvalidKey)
	}
	dev := keyed(t, DevSecret, func(d *SnapshotData, k *Key) { grouped(nil, nil)(d, k); k.Pinnable = true })
	_, _, denial := dev.Begin(headOf(DevSecret + "-2"))
	checkDenial(t, denial, 401, CodeInvalidKey)
}

func TestTagsOfTheKeyGoIntoTheTicket(t *testing.T) {
	t.Parallel()
	e := keyed(t, "sk-a", func(_ *SnapshotData, k *Key) { k.Tags = []Tag{{"team", "red"}, {"env", "prod"}} })
	a, denial := admit(t, e, headOf("sk-a"), `{"model":"gpt-4o"}`)
	if denial != nil {
		t.Fatal(denial)
	}
	ticket, err := ParseTicket(a.Ticket)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(ticket.Tags, []Tag{{"team", "red"}, {"env", "prod"}}); diff != "" {
		t.Error(diff)
	}
	got := withTags([]Tag{{"team", "red"}, {"env", "prod"}}, []Tag{{"env", "test"}, {"pii", "no"}})
	if diff := cmp.Diff(got, []Tag{{"team", "red"}, {"env", "test"}, {"pii", "no"}}); diff != "" {
		t.Error(diff)
	}
}

// TestKeyThatEndsWhileTheBodyComesIsRefused: a client may take minutes to send one, and must not have requests in store for after its key was revoked.
func TestKeyThatEndsWhileTheBodyComesIsRefused(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*SnapshotData, *Key){
		"revoked":  func(_ *SnapshotData, k *Key) { k.Revoked = true },
		"disabled": func(_ *SnapshotData, k *Key) { k.Disabled = true },
		"expired":  func(_ *SnapshotData, k *Key) { k.Expires = noon },
		"replaced": func(_ *SnapshotData, k *Key) { k.Hash = HashKey("sk-new") },
		"rotated, over": func(_ *SnapshotData, k *Key) {
			k.Hash, k.Previous, k.PreviousUntil = HashKey("sk-new"), HashKey("sk-slow"), noon
		},
		"another's":       func(_ *SnapshotData, k *Key) { k.ID = 2 },
		"deleted":         func(d *SnapshotData, _ *Key) { d.Keys = nil },
		"tenant disabled": func(d *SnapshotData, _ *Key) { d.Tenants[0].Disabled = true },
	} {
		e := keyed(t, "sk-slow", func(*SnapshotData, *Key) {})
		x, _, denial := e.Begin(headOf("sk-slow"))
		if denial != nil {
			t.Fatal(denial)
		}
		data := testData()
		data.Keys = []Key{{ID: 1, Tenant: 1, Hash: HashKey("sk-slow")}}
		end(&data, &data.Keys[0])
		e.SetSnapshot(mustSnapshot(t, data))
		if _, denial = x.Admit([]byte(`{"model":"gpt-4o"}`)); denial == nil || denial.Status != 401 {
			t.Errorf("%s: %v", name, denial)
		}
	}
	e := keyed(t, "sk-slow", func(*SnapshotData, *Key) {})
	x, _, _ := e.Begin(headOf("sk-slow"))
	data := testData()
	data.Keys = []Key{{ID: 1, Tenant: 1, Hash: HashKey("sk-new"), Previous: HashKey("sk-slow"), PreviousUntil: noon.Add(time.Second)}}
	e.SetSnapshot(mustSnapshot(t, data))
	if _, denial := x.Admit([]byte(`{"model":"gpt-4o"}`)); denial != nil {
		t.Errorf("rotated with an overlap: %v", denial)
	}
}
