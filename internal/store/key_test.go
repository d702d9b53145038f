// SPDX-License-Identifier: Apache-2.0

package store

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/policy"
)

func mustKey(t *testing.T, s *Store, n NewKey) (Key, Secret) {
	t.Helper()
	k, secret, err := s.CreateKey(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return k, secret
}

func TestNewSecretsAreOfOneFormAndDiffer(t *testing.T) {
	form := regexp.MustCompile(`^sk-weir-[0-9A-Za-z]{43}$`)
	seen := make(map[Secret]bool)
	letters := make(map[rune]int)
	const n = 2000
	for range n {
		s := newSecret()
		if !form.MatchString(s.Reveal()) || seen[s] {
			t.Fatalf("secret %q", s.Reveal())
		}
		seen[s] = true
		for _, r := range s[len(secretPrefix):] {
			letters[r]++
		}
	}
	// Each of 62 letters is expected 1387 times, with a deviation of 37: eight of these are out of the question.
	for _, r := range secretAlphabet {
		if got, want := letters[r], n*secretLen/len(secretAlphabet); got < want-300 || got > want+300 {
			t.Errorf("letter %c: %d times, expected about %d", r, got, want)
		}
	}
}

func TestHintGivesLittleAway(t *testing.T) {
	for secret, want := range map[Secret]string{
		"sk-weir-ABcdefghijklmnopqrstuvwxyz9z": "sk-weir-AB…9z",
		"sk-ABcdefghijklmnopqrstuvwxyz9z":      "sk-AB…9z",
		"sk-proj-ABcdefghijklmnopqrst9z":       "sk-proj-AB…9z",
		"ABcdefghijklmnopqrst-vwx":             "AB…wx",
		"sk-weir-dev":                          "sk…",
		"password":                             "pa…",
	} {
		if got := hint(secret); got != want {
			t.Errorf("hint(%s) = %q, want %q", secret.Reveal(), got, want)
		}
	}
}

func TestKeyIsKeptWithoutItsSecret(t *testing.T) {
	s := migrated(t)
	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	k, secret := mustKey(t, s, NewKey{Name: "ci", Models: []string{"gpt-*", "o3"}, Expires: expires})
	want := Key{
		Key:        policy.Key{ID: k.ID, Tenant: k.Tenant, Hash: policy.HashKey(secret.Reveal()), Name: "ci", Models: []string{"gpt-*", "o3"}, Expires: expires},
		TenantName: "default", Hint: hint(secret), Created: k.Created,
	}
	if diff := cmp.Diff(k, want); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
	for _, ref := range []string{"ci", "default/ci", strconv.Itoa(int(k.ID))} {
		got, err := s.Key(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("%s (-got +want):\n%s", ref, diff)
		}
	}
	if row := query[string](t, s, `select k::text from weir.key k`); strings.Contains(row, secret.Reveal()) {
		t.Errorf("the row holds the secret: %s", row)
	}
	if text := fmt.Sprintf("%v %+v %#v %s", secret, secret, secret, secret); strings.Contains(text, secret.Reveal()) {
		t.Errorf("the secret prints: %s", text)
	}
}

func TestKeyWithoutANameIsNamedByItsId(t *testing.T) {
	s := migrated(t)
	k, _ := mustKey(t, s, NewKey{})
	if want := fmt.Sprintf("key-%d", k.ID); k.Name != want || k.Models != nil || !k.Expires.IsZero() {
		t.Errorf("key = %+v, want the name %s", k, want)
	}
}

func TestKeyOfAGivenSecret(t *testing.T) {
	s := migrated(t)
	k, secret := mustKey(t, s, NewKey{Name: "dev", Secret: "sk-weir-dev"})
	if secret != "sk-weir-dev" || k.Hash != policy.HashKey("sk-weir-dev") {
		t.Errorf("key = %+v", k)
	}
	_, got, err := s.CreateKey(t.Context(), NewKey{Name: "dev2", Secret: "sk-weir-dev"})
	wantError(t, err, ErrExists, "with this secret")
	if got != "" {
		t.Error("a secret besides an error")
	}
	if _, err := s.RevokeKey(t.Context(), "dev"); err != nil {
		t.Fatal(err)
	}
	_, _, err = s.CreateKey(t.Context(), NewKey{Name: "dev3", Secret: "sk-weir-dev"})
	wantError(t, err, ErrExists, "revoked")
}

func TestKeyNamesAreUniqueAmongLiveKeysOfATenant(t *testing.T) {
	s := migrated(t)
	if _, err := s.CreateTenant(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	first, _ := mustKey(t, s, NewKey{Name: "ci"})
	_, _, err := s.CreateKey(t.Context(), NewKey{Name: "ci"})
	wantError(t, err, ErrExists, `key "ci"`)
	other, _ := mustKey(t, s, NewKey{Name: "ci", Tenant: "acme"})
	_, err = s.Key(t.Context(), "ci")
	wantError(t, err, ErrInvalid, "acme/ci")
	if got, err := s.Key(t.Context(), "acme/ci"); err != nil || got.ID != other.ID {
		t.Errorf("acme/ci = %d, %v; want %d", got.ID, err, other.ID)
	}
	if _, err := s.RevokeKey(t.Context(), "default/ci"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Key(t.Context(), "ci"); err != nil || got.ID != other.ID {
		t.Errorf("ci = %d, %v; want the one that is not revoked, %d", got.ID, err, other.ID)
	}
	second, _ := mustKey(t, s, NewKey{Name: "ci"}) // the name is free again
	if got, err := s.Key(t.Context(), "default/ci"); err != nil || got.ID != second.ID {
		t.Errorf("default/ci = %d, %v; want %d, not the revoked %d", got.ID, err, second.ID, first.ID)
	}
}

func TestSetKeyChangesWhatIsGiven(t *testing.T) {
	s := migrated(t)
	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	k, _ := mustKey(t, s, NewKey{Name: "ci", Models: []string{"a"}})
	got, err := s.SetKey(t.Context(), "ci", KeyChange{Name: new("build"), Expires: &expires, Disabled: new(true)})
	if err != nil {
		t.Fatal(err)
	}
	want := k
	want.Name, want.Expires, want.Disabled = "build", expires, true
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
	got, err = s.SetKey(t.Context(), "build", KeyChange{Models: &[]string{}, Expires: &time.Time{}, Disabled: new(false)})
	if err != nil {
		t.Fatal(err)
	}
	want = k
	want.Name, want.Models = "build", nil
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
	mustKey(t, s, NewKey{Name: "taken"})
	_, err = s.SetKey(t.Context(), "build", KeyChange{Name: new("taken")})
	wantError(t, err, ErrExists, "taken")
	_, err = s.SetKey(t.Context(), "absent", KeyChange{})
	wantError(t, err, ErrNotFound, "absent")
}

func TestRevokedIsFinal(t *testing.T) {
	s := migrated(t)
	k, _ := mustKey(t, s, NewKey{Name: "ci"})
	for range 2 {
		got, err := s.RevokeKey(t.Context(), strconv.Itoa(int(k.ID)))
		if err != nil || !got.Revoked {
			t.Errorf("revoked = %t, %v", got.Revoked, err)
		}
	}
	got, err := s.SetKey(t.Context(), "ci", KeyChange{Disabled: new(false), Name: new("renamed")})
	if err != nil || !got.Revoked {
		t.Errorf("after a change: revoked = %t, %v", got.Revoked, err)
	}
}

func TestKeysPage(t *testing.T) {
	s := migrated(t)
	if _, err := s.CreateTenant(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	var ids []policy.KeyID
	for i := range 5 {
		k, _ := mustKey(t, s, NewKey{Tenant: []string{"default", "acme"}[i%2]})
		ids = append(ids, k.ID)
	}
	for name, tt := range map[string]struct {
		f    KeyFilter
		want []policy.KeyID
	}{
		"all":       {KeyFilter{}, ids},
		"of tenant": {KeyFilter{Tenant: "acme"}, []policy.KeyID{ids[1], ids[3]}},
		"first":     {KeyFilter{Limit: 2}, ids[:2]},
		"next":      {KeyFilter{Limit: 2, AfterID: ids[1]}, ids[2:4]},
		"past":      {KeyFilter{AfterID: ids[4]}, nil},
	} {
		keys, err := s.Keys(t.Context(), tt.f)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var got []policy.KeyID
		for _, k := range keys {
			got = append(got, k.ID)
		}
		if diff := cmp.Diff(got, tt.want); diff != "" {
			t.Errorf("%s (-got +want):\n%s", name, diff)
		}
	}
	_, err := s.Keys(t.Context(), KeyFilter{Tenant: "absent"})
	wantError(t, err, ErrNotFound, "absent")
	_, err = s.Keys(t.Context(), KeyFilter{Limit: -1})
	wantError(t, err, ErrInvalid, "-1")
}

func TestCreateKeyRefuses(t *testing.T) {
	s := migrated(t)
	for name, tt := range map[string]struct {
		n    NewKey
		says string
	}{
		"past":           {NewKey{Expires: time.Now().Add(-time.Second)}, "in the past"},
		"far future":     {NewKey{Expires: time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)}, "20000"},
		"name":           {NewKey{Name: "Has Space"}, "Has Space"},
		"glob":           {NewKey{Models: []string{"gpt *"}}, "gpt *"},
		"empty glob":     {NewKey{Models: []string{""}}, "allowed model"},
		"short secret":   {NewKey{Secret: "abc"}, "8 to 512"},
		"spaced secret":  {NewKey{Secret: "abc defghi"}, "visible ASCII"},
		"several faults": {NewKey{Name: "A", Secret: "abc"}, "key name"},
	} {
		_, _, err := s.CreateKey(t.Context(), tt.n)
		if wantError(t, err, ErrInvalid, tt.says); err != nil && strings.Contains(err.Error(), "defghi") {
			t.Errorf("%s: the error gives the secret away: %v", name, err)
		}
	}
	_, _, err := s.CreateKey(t.Context(), NewKey{Tenant: "absent"})
	wantError(t, err, ErrNotFound, `tenant "absent"`)
}
