// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/admin/admintest"
	"github.com/weir-proxy/weir/plugins/wasmtest"
)

// picky is a plugin that wants a configuration, of any kind if the schema is empty, and the capability log.
func picky(tag, schema string) []byte {
	return wasmtest.Guest{
		Request: wasmtest.TagVerdict("v", tag), Picky: true, Imports: []string{"log"}, About: `{"name":"picky"}`, Schema: schema,
	}.Wasm()
}

// done returns what a call returned, or fails the test.
func done[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func plugins(t *testing.T, c *admin.Client, tenant admin.Tenant) {
	t.Helper()
	ctx := t.Context()
	pushed := done(c.PushPlugin(ctx, "picky", "", picky("one", `{"type":"object"}`)))(t)
	first := pushed.Versions[0].Digest
	if string(pushed.Versions[0].About) != `{"name":"picky"}` || string(pushed.Versions[0].Schema) != `{"type":"object"}` || pushed.Tenant != nil {
		t.Errorf("pushed: %+v", pushed)
	}
	config := admin.PluginConfig(`{"b": 1, "a": [2]}`)
	made, err := c.Attach(ctx, admin.NewAttachment{
		Plugin: "picky", Tenant: tenant.Name, Place: 3, Config: config, Grants: []string{"log"}, Headers: []string{"x-team"}, Body: true,
		Limits: admin.PluginLimits{Fuel: 1_000_000, MemoryBytes: 1 << 20, TimeMS: 20},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := admin.Attachment{
		PluginID: pushed.ID, Plugin: "picky", Digest: first, TenantID: &tenant.ID, Tenant: &tenant.Name, Place: 3, Mode: "closed", Config: `{"b":1,"a":[2]}`,
		PluginRights: admin.PluginRights{Grants: []string{"log"}, Headers: []string{"x-team"}, Body: true, Upstreams: []admin.PluginUpstream{}},
		Limits:       admin.PluginLimits{Fuel: 1_000_000, MemoryBytes: 1 << 20, TimeMS: 20},
	}
	ignore := cmpopts.IgnoreFields(admin.Attachment{}, "ID", "AttachmentHistory.Created", "AttachmentHistory.Swapped")
	if diff := cmp.Diff(made, want, ignore); diff != "" {
		t.Errorf("attached (-got +want):\n%s", diff)
	}
	second := done(c.PushPlugin(ctx, "picky", "", picky("two", "")))(t).Versions[0].Digest
	latest, mode, text := "", "open", admin.PluginConfig("plain words")
	changed := done(c.SetAttachment(ctx, made.ID, admin.AttachmentChange{Version: &latest, Mode: &mode, Config: &text}))(t)
	if changed.Digest != second || changed.Previous == nil || *changed.Previous != first || changed.Config != text || changed.Mode != mode {
		t.Errorf("changed: %+v", changed)
	}
	if shown := done(c.Attachment(ctx, made.ID))(t); !cmp.Equal(shown, changed) {
		t.Errorf("shown (-got +want):\n%s", cmp.Diff(shown, changed))
	}
	back := done(c.RollBack(ctx, made.ID, "worse"))(t)
	if back.Digest != first || back.RolledBack == nil || back.RolledBack.From != second || back.RolledBack.Why != "worse" || back.Previous != nil {
		t.Errorf("rolled back: %+v", back)
	}
	if _, err := c.RollBack(ctx, made.ID, ""); !isProblem(err, http.StatusUnprocessableEntity, "no version before") && err == nil {
		t.Errorf("rolled back twice: %v", err)
	}
	if all := done(c.Attachments(ctx, "picky"))(t); len(all) != 1 || all[0].ID != made.ID {
		t.Errorf("attachments: %+v", all)
	}
	if all := done(c.Plugins(ctx))(t); len(all) != 1 || all[0].Attached != 1 || len(all[0].Versions) != 2 {
		t.Errorf("plugins: %+v", all)
	}
	if err := c.DeletePlugin(ctx, "picky"); !isProblem(err, http.StatusConflict, "attached 1 times") {
		t.Errorf("deleted while attached: %v", err)
	}
	if err := c.Detach(ctx, made.ID); err != nil {
		t.Error(err)
	}
	if _, err := c.Attachment(ctx, made.ID); !isProblem(err, http.StatusNotFound, "attachment") {
		t.Errorf("shown when detached: %v", err)
	}
	if p := done(c.Plugin(ctx, "picky"))(t); p.Attached != 0 {
		t.Errorf("detached: %+v", p)
	}
	if err := c.DeletePlugin(ctx, "picky"); err != nil {
		t.Error(err)
	}
}

func TestWhatDoesNotLoadIsNotStored(t *testing.T) {
	s := admintest.Start(t, nil, nil)
	c, ctx := client(t, s), t.Context()
	for name, bad := range map[string]struct {
		wasm []byte
		want string
	}{
		"nothing to call": {wasmtest.Guest{}.Wasm(), "nothing to call"},
		"unknown import":  {wasmtest.Guest{Request: []byte{}, Imports: []string{"exec"}}.Wasm(), "weir.exec"},
		"garbage":         {[]byte("GIF89a"), "plugin x"},
	} {
		if _, err := c.PushPlugin(ctx, "x", "", bad.wasm); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if all := done(c.Plugins(ctx))(t); len(all) != 0 {
		t.Errorf("stored: %+v", all)
	}
	done(c.PushPlugin(ctx, "picky", "", picky("one", `{"type":"object"}`)))(t)
	good := admin.NewAttachment{Plugin: "picky", Config: "{}", Grants: []string{"log"}}
	for want, change := range map[string]func(*admin.NewAttachment){
		"an empty configuration":   func(n *admin.NewAttachment) { n.Config = "" },
		`needs the capability`:     func(n *admin.NewAttachment) { n.Grants = nil },
		`no capability "fly"`:      func(n *admin.NewAttachment) { n.Grants = []string{"log", "fly"} },
		`"cookie" does not come`:   func(n *admin.NewAttachment) { n.Headers = []string{"cookie"} },
		`mode "loud"`:              func(n *admin.NewAttachment) { n.Mode = "loud" },
		`"picky@abcdef"`:           func(n *admin.NewAttachment) { n.Version = "abcdef" },
		`plugin "none": not found`: func(n *admin.NewAttachment) { n.Plugin = "none" },
		`tenant "none": not found`: func(n *admin.NewAttachment) { n.Tenant = "none" },
		"fuel 1":                   func(n *admin.NewAttachment) { n.Limits.Fuel = 1 },
	} {
		bad := good
		change(&bad)
		if _, err := c.Attach(ctx, bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if all := done(c.Attachments(ctx, ""))(t); len(all) != 0 {
		t.Errorf("stored: %+v", all)
	}
	a := done(c.Attach(ctx, good))(t)
	none := admin.PluginConfig("")
	if _, err := c.SetAttachment(ctx, a.ID, admin.AttachmentChange{Config: &none}); err == nil {
		t.Error("a configuration that is refused was stored")
	}
	if got := done(c.Attachment(ctx, a.ID))(t); got.Config != "{}" {
		t.Errorf("config: %q", got.Config)
	}
}

func TestModulesComeAsModules(t *testing.T) {
	s := admintest.Start(t, nil, nil)
	res, body := call(t, s.URL+"/api/v1/plugins/x", "PUT", "{}")
	if p := problemIn(t, res, body); res.StatusCode != http.StatusUnsupportedMediaType || !strings.Contains(p.Hint, "application/wasm") {
		t.Errorf("JSON: %s", body)
	}
	res, body = call(t, s.URL+"/api/v1/plugins/x", "PUT", strings.Repeat("x", 16<<20+1), "Content-Type", "application/wasm")
	if problemIn(t, res, body); res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("too large: %s", body)
	}
	res, body = call(t, s.URL+"/api/v1/plugins/x?owner=me", "PUT", "x", "Content-Type", "application/wasm")
	if problemIn(t, res, body); res.StatusCode != http.StatusBadRequest {
		t.Errorf("unknown parameter: %s", body)
	}
	res, body = call(t, s.URL+"/api/v1/attachments/x", "GET", "")
	if problemIn(t, res, body); res.StatusCode != http.StatusNotFound {
		t.Errorf("no id: %s", body)
	}
}
