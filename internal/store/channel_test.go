// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/internal/postgres/pgtest"
	"github.com/weir-proxy/weir/policy"
)

func TestChannelComesBackAsItWasMade(t *testing.T) {
	s := migrated(t)
	acme, err := s.CreateTenant(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	n := NewChannel{
		Name: "openai-1", Provider: "openai", BaseURL: "https://api.example.com/v1/", Credential: "sk-upstream",
		Models: []policy.Model{{Name: "z", Upstream: "z-2026"}, {Name: "a"}}, Priority: -3, Weight: 7, Tenant: "acme", Partial: policy.BillInput,
	}
	c, err := s.CreateChannel(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	want := Channel{
		Channel:    policy.Channel{ID: c.ID, Name: n.Name, Models: n.Models, Priority: -3, Weight: 7, Tenant: acme.ID, Partial: policy.BillInput},
		TenantName: "acme", Provider: "openai", BaseURL: "https://api.example.com/v1", Credential: "sk-upstream", Created: c.Created,
	}
	if diff := cmp.Diff(c, want); diff != "" {
		t.Errorf("created (-got +want):\n%s", diff)
	}
	for _, ref := range []string{"openai-1", strconv.Itoa(int(c.ID))} {
		got, err := s.Channel(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("%s (-got +want):\n%s", ref, diff)
		}
	}
	list, err := s.Channels(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(list, []Channel{want}); diff != "" {
		t.Errorf("list (-got +want):\n%s", diff)
	}
}

func TestSetChannelChangesWhatIsGiven(t *testing.T) {
	s := migrated(t)
	if _, err := s.CreateTenant(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	c, err := s.CreateChannel(t.Context(), plain("c"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Weight != 1 || c.Partial != policy.BillEstimate || c.Credential != "" || c.TenantName != "" {
		t.Errorf("defaults: %+v", c)
	}
	steps := []struct {
		change ChannelChange
		want   func(*Channel)
	}{
		{ChannelChange{}, func(*Channel) {}},
		{ChannelChange{Priority: new(9), Weight: new(1000), Disabled: new(true)}, func(c *Channel) { c.Priority, c.Weight, c.Disabled = 9, 1000, true }},
		{ChannelChange{Provider: new("azure"), BaseURL: new("https://x.example.com"), Credential: new(Secret("new"))}, func(c *Channel) {
			c.Provider, c.BaseURL, c.Credential = "azure", "https://x.example.com", "new"
		}},
		{ChannelChange{Models: &[]policy.Model{{Name: "n", Upstream: "u"}, {Name: "m"}}}, func(c *Channel) {
			c.Models = []policy.Model{{Name: "n", Upstream: "u"}, {Name: "m"}}
		}},
		{ChannelChange{Tenant: new("acme")}, func(c *Channel) { c.Tenant, c.TenantName = 2, "acme" }},
		{ChannelChange{Tenant: new(""), Disabled: new(false)}, func(c *Channel) { c.Tenant, c.TenantName, c.Disabled = 0, "", false }},
		{ChannelChange{Partial: new(policy.BillNone)}, func(c *Channel) { c.Partial = policy.BillNone }},
		{ChannelChange{Name: new("d")}, func(c *Channel) { c.Name = "d" }},
	}
	for i, step := range steps {
		step.want(&c)
		got, err := s.SetChannel(t.Context(), strconv.Itoa(int(c.ID)), step.change)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got, c); diff != "" {
			t.Errorf("step %d (-got +want):\n%s", i, diff)
		}
	}
	_, err = s.SetChannel(t.Context(), "d", ChannelChange{Weight: new(0)})
	wantError(t, err, ErrInvalid, "weight 0")
	_, err = s.SetChannel(t.Context(), "d", ChannelChange{Models: &[]policy.Model{}})
	wantError(t, err, ErrInvalid, "models")
	_, err = s.SetChannel(t.Context(), "d", ChannelChange{Tenant: new("absent")})
	wantError(t, err, ErrNotFound, "absent")
	_, err = s.SetChannel(t.Context(), "d", ChannelChange{Partial: new(policy.Partial("half"))})
	wantError(t, err, ErrInvalid, `"half": it must be ["estimate" "input" "none"]`)
	_, err = s.SetChannel(t.Context(), "c", ChannelChange{})
	wantError(t, err, ErrNotFound, `channel "c"`)
	if _, err := s.CreateChannel(t.Context(), plain("c")); err != nil {
		t.Fatal(err)
	}
	_, err = s.SetChannel(t.Context(), "d", ChannelChange{Name: new("c")})
	wantError(t, err, ErrExists, `channel "`)
	_, err = s.CreateChannel(t.Context(), plain("c"))
	wantError(t, err, ErrExists, `channel "c"`)
}

func TestDeleteChannel(t *testing.T) {
	s := migrated(t)
	if _, err := s.CreateChannel(t.Context(), plain("c")); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteChannel(t.Context(), "c"); err != nil {
		t.Error(err)
	}
	wantError(t, s.DeleteChannel(t.Context(), "c"), ErrNotFound, `channel "c"`)
	wantError(t, s.DeleteChannel(t.Context(), ""), ErrInvalid, "needed")
	if got := query[int64](t, s, `select count(*) from weir.channel_model`); got != 0 {
		t.Errorf("%d models are left", got)
	}
}

func TestCredentialsAreSealedAnewWithTheFirstOfTwoKeys(t *testing.T) {
	dsn := pgtest.Database(t)
	first, second := secretKey(), bytes.Repeat([]byte{8}, secretKeyLen)
	old := mustOpen(t, dsn, Options{SecretKey: first})
	if err := old.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		n := plain(name)
		n.Credential = Secret("sk-" + name)
		if _, err := old.CreateChannel(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	ready := mustOpen(t, dsn, Options{SecretKey: first, FormerKeys: [][]byte{second}}) // a host that does not encrypt with the new key yet
	rotated := mustOpen(t, dsn, Options{SecretKey: second, FormerKeys: [][]byte{first}})
	if got, err := rotated.Channel(t.Context(), "a"); err != nil || got.Credential != "sk-a" {
		t.Errorf("before: got %q, %v", got.Credential, err)
	}
	for i, want := range []int{2, 0} {
		if got, err := rotated.Reseal(t.Context()); err != nil || got != want {
			t.Errorf("time %d: got %d, %v, want %d", i+1, got, err, want)
		}
	}
	for who, s := range map[string]*Store{"the new key alone": mustOpen(t, dsn, Options{SecretKey: second}), "a host not yet there": ready, "rotated": rotated} {
		if got, err := s.Channel(t.Context(), "b"); err != nil || got.Credential != "sk-b" {
			t.Errorf("%s: got %q, %v", who, got.Credential, err)
		}
	}
	_, err := old.Channel(t.Context(), "a")
	wantError(t, err, ErrSecretKey, `channel "a"`)
	if n, err := old.Reseal(t.Context()); n != 0 || err != nil { // it has one key, and is not asked to
		t.Errorf("with one key: got %d, %v", n, err)
	}
}

func TestCredentialIsSealed(t *testing.T) {
	dsn := pgtest.Database(t)
	s := mustOpen(t, dsn, Options{SecretKey: secretKey()})
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		n := plain(name)
		n.Credential = "sk-very-secret"
		if _, err := s.CreateChannel(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	sealed := query[[]byte](t, s, `select credential from weir.channel where name = 'a'`)
	if bytes.Contains(sealed, []byte("very-secret")) {
		t.Errorf("in clear: %q", sealed)
	}
	if other := query[[]byte](t, s, `select credential from weir.channel where name = 'b'`); bytes.Equal(sealed, other) {
		t.Error("equal credentials look equal")
	}

	wrong := mustOpen(t, dsn, Options{SecretKey: bytes.Repeat([]byte{8}, secretKeyLen)})
	_, err := wrong.Channel(t.Context(), "a")
	wantError(t, err, ErrSecretKey, `channel "a"`)
	_, err = wrong.Configuration(t.Context())
	wantError(t, err, ErrSecretKey, "another key")
	none := mustOpen(t, dsn, Options{})
	_, err = none.Channels(t.Context())
	wantError(t, err, ErrSecretKey, "none is set")
	_, err = none.CreateChannel(t.Context(), plain("d"))
	wantError(t, err, ErrSecretKey, "none is set")

	// A channel whose key is lost can be given a new credential, or be deleted.
	_, err = wrong.SetChannel(t.Context(), "a", ChannelChange{Weight: new(5)})
	wantError(t, err, ErrSecretKey, `channel "a"`)
	got, err := wrong.SetChannel(t.Context(), "a", ChannelChange{Credential: new(Secret("new"))})
	if err != nil || got.Credential != "new" || len(got.Models) != 1 {
		t.Errorf("mended = %+v, %v", got, err)
	}
	if err := wrong.DeleteChannel(t.Context(), "b"); err != nil {
		t.Error(err)
	}
}

func TestCredentialIsBoundToItsChannel(t *testing.T) {
	s := migrated(t)
	for _, name := range []string{"a", "b"} {
		if _, err := s.CreateChannel(t.Context(), plain(name)); err != nil {
			t.Fatal(err)
		}
	}
	exec(t, s, `update weir.channel set credential = (select credential from weir.channel where name = 'a') where name = 'b'`)
	_, err := s.Channel(t.Context(), "b")
	wantError(t, err, ErrSecretKey, "tampered")
	exec(t, s, `update weir.channel set credential = '\x63' where name = 'b'`)
	if _, err = s.Channel(t.Context(), "b"); err == nil || !strings.Contains(err.Error(), "unknown format") {
		t.Errorf("damaged: %v", err)
	}
}

func TestCreateChannelRefuses(t *testing.T) {
	s := migrated(t)
	for name, tt := range map[string]struct {
		change func(*NewChannel)
		says   string
	}{
		"name":            {func(n *NewChannel) { n.Name = "" }, "channel name"},
		"provider":        {func(n *NewChannel) { n.Provider = "skynet" }, "known are openai"},
		"no URL":          {func(n *NewChannel) { n.BaseURL = "" }, "https://"},
		"credential":      {func(n *NewChannel) { n.Credential = "sk-x\n" }, "line break"},
		"long credential": {func(n *NewChannel) { n.Credential = Secret(strings.Repeat("x", maxSecret+1)) }, "8192"},
		"no models":       {func(n *NewChannel) { n.Models = nil }, "1 to 1000"},
		"model twice":     {func(n *NewChannel) { n.Models = []policy.Model{{Name: "m"}, {Name: "m"}} }, "twice"},
		"wildcard":        {func(n *NewChannel) { n.Models = []policy.Model{{Name: "*"}} }, "without *"},
		"upstream name":   {func(n *NewChannel) { n.Models = []policy.Model{{Name: "m", Upstream: "a b"}} }, "upstream model"},
		"weight":          {func(n *NewChannel) { n.Weight = 1001 }, "1 to 1000"},
		"negative weight": {func(n *NewChannel) { n.Weight = -1 }, "1 to 1000"},
		"priority":        {func(n *NewChannel) { n.Priority = 1 << 40 }, "priority"},
	} {
		n := plain("c")
		tt.change(&n)
		if _, err := s.CreateChannel(t.Context(), n); err == nil {
			t.Errorf("%s: no error", name)
		} else {
			wantError(t, err, ErrInvalid, tt.says)
		}
	}
	n := plain("c")
	n.Tenant = "absent"
	_, err := s.CreateChannel(t.Context(), n)
	wantError(t, err, ErrNotFound, "absent")
}
