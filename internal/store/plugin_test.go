// SPDX-License-Identifier: Apache-2.0

package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// module returns different modules for different numbers. The store does not run them.
func module(n int) []byte { return fmt.Appendf([]byte(wasmMagic), "%d", n) }

func push(t *testing.T, s *Store, m PushedModule) Plugin {
	t.Helper()
	p, err := s.PushPlugin(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func attach(t *testing.T, s *Store, n NewAttachment) Attachment {
	t.Helper()
	if n.Mode == "" {
		n.Mode = PluginClosed
	}
	a, err := s.Attach(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestPushedVersionsAreFoundByTheirDigest(t *testing.T) {
	s := migrated(t)
	ctx := t.Context()
	p := push(t, s, PushedModule{Name: "guard", Wasm: module(1), About: `{"name":"guard"}`, Schema: `{"type":"object"}`})
	push(t, s, PushedModule{Name: "guard", Wasm: module(2)})
	again := push(t, s, PushedModule{Name: "guard", Wasm: module(1), About: `{"name":"guard"}`, Schema: `{"type":"object"}`})
	want := Plugin{ID: p.ID, Name: "guard", Created: p.Created, Versions: []PluginVersion{
		{Digest: DigestOf(module(1)), Size: int64(len(module(1))), About: `{"name":"guard"}`, Schema: `{"type":"object"}`},
		{Digest: DigestOf(module(2)), Size: int64(len(module(2)))},
	}}
	ignore := cmpopts.IgnoreFields(PluginVersion{}, "Pushed")
	if diff := cmp.Diff(again, want, ignore); diff != "" {
		t.Errorf("pushed anew (-got +want):\n%s", diff)
	}
	for _, ref := range []string{"guard", fmt.Sprint(p.ID)} {
		if got, err := s.Plugin(ctx, ref); err != nil || !cmp.Equal(got, again) {
			t.Errorf("Plugin(%q) = %+v, %v", ref, got, err)
		}
	}
	if all, err := s.Plugins(ctx); err != nil || len(all) != 1 || !cmp.Equal(all[0], again) {
		t.Errorf("Plugins() = %+v, %v", all, err)
	}
	for _, m := range [][]byte{module(1), module(2)} {
		if got, err := s.Wasm(ctx, DigestOf(m)); err != nil || string(got) != string(m) {
			t.Errorf("Wasm() = %q, %v", got, err)
		}
	}
	_, err := s.Wasm(ctx, DigestOf(module(3)))
	wantError(t, err, ErrNotFound, DigestOf(module(3)).String())
	exec(t, s, `update weir.plugin_version set wasm = wasm || 'x' where digest = $1`, func() []byte { d := DigestOf(module(2)); return d[:] }())
	if _, err := s.Wasm(ctx, DigestOf(module(2))); err == nil {
		t.Error("a module that was tampered with is given out")
	}
}

func TestVersionsAreMeantByTheFirstDigits(t *testing.T) {
	t.Parallel()
	p := Plugin{Name: "p", Versions: []PluginVersion{{Digest: Digest{0xab, 0xcd, 0xef, 1}}, {Digest: Digest{0xab, 0xcd, 0xef, 2}}, {Digest: Digest{1}}}}
	for ref, want := range map[string]int{"": 0, "abcdef01": 0, "sha256:ABCDEF02": 1, "010000": 2, p.Versions[2].Digest.String(): 2} {
		if got, err := p.Version(ref); err != nil || got.Digest != p.Versions[want].Digest {
			t.Errorf("Version(%q) = %v, %v", ref, got.Digest, err)
		}
	}
	for ref, want := range map[string]error{"abcdef": ErrInvalid, "abc": ErrInvalid, "latest": ErrInvalid, "222222": ErrNotFound} {
		_, err := p.Version(ref)
		wantError(t, err, want, "")
	}
	_, err := (&Plugin{Name: "p"}).Version("")
	wantError(t, err, ErrNotFound, "p@")
}

func TestOldVersionsGoButNotThoseInUse(t *testing.T) {
	s := migrated(t)
	push(t, s, PushedModule{Name: "p", Wasm: module(0)})
	a := attach(t, s, NewAttachment{Plugin: "p"})
	for n := range keptVersions + 5 {
		push(t, s, PushedModule{Name: "p", Wasm: module(n + 1)})
		if n == 0 {
			if _, err := s.SetAttachment(t.Context(), a.ID, AttachmentChange{Version: new(string)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	p, err := s.Plugin(t.Context(), "p")
	if err != nil || len(p.Versions) != keptVersions+2 {
		t.Fatalf("%d versions, %v", len(p.Versions), err)
	}
	for _, n := range []int{0, 1} { // the previous and the one in force
		if _, err := s.Wasm(t.Context(), DigestOf(module(n))); err != nil {
			t.Errorf("version %d: %v", n, err)
		}
	}
}

func TestPluginOfATenantStaysWithIt(t *testing.T) {
	s := migrated(t)
	ctx := t.Context()
	for _, name := range []string{"acme", "other"} {
		if _, err := s.CreateTenant(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	key, _, err := s.CreateKey(ctx, NewKey{Tenant: "acme", Name: "k"})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.CreateKey(ctx, NewKey{Tenant: "other", Name: "foreign"}); err != nil {
		t.Fatal(err)
	}
	p := push(t, s, PushedModule{Name: "p", Tenant: "acme", Wasm: module(1)})
	if p.TenantName != "acme" {
		t.Errorf("belongs to %q", p.TenantName)
	}
	push(t, s, PushedModule{Name: "p", Wasm: module(2)}) // whose it is need not be said again
	_, err = s.PushPlugin(ctx, PushedModule{Name: "p", Tenant: "other", Wasm: module(1)})
	wantError(t, err, ErrExists, "belongs to the tenant acme")

	if a := attach(t, s, NewAttachment{Plugin: "p", Key: "acme/k"}); a.Key != key.ID || a.TenantName != "acme" || a.Tenant != key.Tenant {
		t.Errorf("attached to a key: %+v", a)
	}
	attach(t, s, NewAttachment{Plugin: "p", Tenant: "acme"})
	for name, c := range map[string]struct {
		n    NewAttachment
		want error
	}{
		"everybody":        {NewAttachment{}, ErrInvalid},
		"another tenant":   {NewAttachment{Tenant: "other"}, ErrInvalid},
		"another's key":    {NewAttachment{Key: "foreign"}, ErrInvalid},
		"key and stranger": {NewAttachment{Key: "k", Tenant: "other"}, ErrInvalid},
		"no such key":      {NewAttachment{Key: "none"}, ErrNotFound},
		"no such version":  {NewAttachment{Tenant: "acme", Version: "abcdef"}, ErrNotFound},
		"no mode":          {NewAttachment{Tenant: "acme", PluginSettings: PluginSettings{Mode: "loud"}}, ErrInvalid},
	} {
		c.n.Plugin = "p"
		if c.n.Mode == "" {
			c.n.Mode = PluginOpen
		}
		_, err := s.Attach(ctx, c.n)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		wantError(t, err, c.want, "")
	}
	wantError(t, s.DeletePlugin(ctx, "p"), ErrInUse, "attached 2 times")
	if _, err := s.RevokeKey(ctx, "acme/k"); err != nil {
		t.Fatal(err)
	}
	wantError(t, s.DeleteTenant(ctx, "acme"), ErrInUse, "1 plugins")
	for _, a := range must(s.Attachments(ctx)) {
		if err := s.Detach(ctx, a.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.DeletePlugin(ctx, "p"); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteTenant(ctx, "acme"); err != nil {
		t.Fatal(err)
	}
	_, err = s.Plugin(ctx, "p")
	wantError(t, err, ErrNotFound, "plugin")
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestAttachmentGoesWithItsTenant(t *testing.T) {
	s := migrated(t)
	if _, err := s.CreateTenant(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	push(t, s, PushedModule{Name: "p", Wasm: module(1)})
	attach(t, s, NewAttachment{Plugin: "p", Tenant: "acme"})
	if err := s.DeleteTenant(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Attachments(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("left: %+v, %v", all, err)
	}
}

func TestBadModulesAndSettingsAreRefused(t *testing.T) {
	s := migrated(t)
	for name, m := range map[string]PushedModule{
		"no wasm":     {Name: "p", Wasm: []byte("hello")},
		"empty":       {Name: "p"},
		"name":        {Name: "P!", Wasm: module(1)},
		"about":       {Name: "p", Wasm: module(1), About: "{"},
		"long schema": {Name: "p", Wasm: module(1), Schema: fmt.Sprintf("%*d", maxSection+1, 1)},
		"large":       {Name: "p", Wasm: append(module(1), make([]byte, MaxModule)...)},
	} {
		if _, err := s.PushPlugin(t.Context(), m); !own(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	good := PluginSettings{Mode: PluginShadow}
	for name, change := range map[string]func(*PluginSettings){
		"place":  func(p *PluginSettings) { p.Place = maxPriority + 1 },
		"config": func(p *PluginSettings) { p.Config = "a\x00b" },
		"grant":  func(p *PluginSettings) { p.Grants = []string{"no way"} },
		"header": func(p *PluginSettings) { p.Headers = []string{"X-Upper"} },
		"fuel":   func(p *PluginSettings) { p.Limits.Fuel = 1 },
		"memory": func(p *PluginSettings) { p.Limits.MemoryBytes = 1000 },
		"time":   func(p *PluginSettings) { p.Limits.Time = time.Microsecond },

		"upstream without a name": func(p *PluginSettings) { p.Upstreams = []PluginUpstream{{URL: "https://a"}} },
		"upstream twice": func(p *PluginSettings) {
			p.Upstreams = []PluginUpstream{{Name: "a", URL: "https://a"}, {Name: "a", URL: "https://b"}}
		},
		"upstream without a host":  func(p *PluginSettings) { p.Upstreams = []PluginUpstream{{Name: "a", URL: "https:///v1"}} },
		"upstream with a password": func(p *PluginSettings) { p.Upstreams = []PluginUpstream{{Name: "a", URL: "https://u:p@a"}} },
		"upstream by file":         func(p *PluginSettings) { p.Upstreams = []PluginUpstream{{Name: "a", URL: "file:///etc"}} },
	} {
		bad := good
		change(&bad)
		if err := checkSettings(&bad); !own(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	good.Grants = []string{"pii", "log", "pii"}
	if err := checkSettings(&good); err != nil || !cmp.Equal(good.Grants, []string{"log", "pii"}) || good.Headers == nil || good.Upstreams == nil {
		t.Errorf("got %+v, %v", good, err)
	}
}
