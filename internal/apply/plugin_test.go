// SPDX-License-Identifier: Apache-2.0

package apply_test

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/plugins/wasmtest"
)

// module is a plugin that denies every request with a status.
func module(status int) string {
	return string(wasmtest.Guest{Request: wasmtest.Denial(int64(status), "no", "No.")}.Wasm())
}

func sum(wasm string) string {
	s := sha256.Sum256([]byte(wasm))
	return hex.EncodeToString(s[:])
}

const attached = `
attachments:
- {plugin: p, tenant: default, mode: open, grants: [log], config: {b: 1, a: [x, "<y>"], n: 12345678901234567890}, fuel: 5000000, time: 20ms}
- {plugin: p, config: " as it is ", headers: [X-Team], upstreams: [{name: u, url: "http://127.0.0.1:9", private: true}]}
plugins:
- {name: p, source: p.wasm}
`

// filter is a plugin that may call others.
func filter(header string) string { return string(wasmtest.Filter{Header: header}.Wasm()) }

// in returns what is attached of the plugin p, one line each.
func in(t *testing.T, c *admin.Client) (lines []string) {
	t.Helper()
	all, err := c.Attachments(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		who := "all"
		if a.Tenant != nil {
			who = *a.Tenant
		}
		lines = append(lines, strings.Join([]string{who, a.Digest[:8], a.Mode, string(a.Config)}, " "))
	}
	return lines
}

func TestPluginsAreInForceAsDeclared(t *testing.T) {
	c, _ := client(t)
	one, two := filter("one"), filter("two")
	env := map[string]string{"module p.wasm": one}
	expect := func(what string, got []string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("%s (-got +want):\n%s", what, diff)
		}
	}
	first := []string{"create plugin p", "create attachment p, for the tenant default", "create attachment p, for all"}
	expect("the first time", run(t, c, true, env, attached), first...)
	expect("again", run(t, c, true, env, attached))
	expect("in force", in(t, c), "default "+sum(one)[:8]+` open {"a":["x","\u003cy\u003e"],"b":1,"n":12345678901234567890}`, "all "+sum(one)[:8]+" closed  as it is ")

	env["module p.wasm"] = two
	expect("another module", run(t, c, true, env, attached), "change plugin p version", "change attachment p, for the tenant default version",
		"change attachment p, for all version")
	expect("and again", run(t, c, true, env, attached))
	if got := in(t, c); !strings.Contains(got[0], sum(two)[:8]) || !strings.Contains(got[1], sum(two)[:8]) {
		t.Errorf("in force %q, want %s", got, sum(two))
	}
	expect("the first again", run(t, c, true, map[string]string{"module p.wasm": one}, attached), "change plugin p version",
		"change attachment p, for the tenant default version", "change attachment p, for all version")

	// Without the plugin in the files its version stays; one that is named holds.
	alone := "attachments:\n- {plugin: p, tenant: default, place: 7}\n"
	expect("attachment alone", run(t, c, false, nil, alone), "change attachment p, for the tenant default place mode config grants fuel time")
	expect("version by digest", run(t, c, false, nil, strings.Replace(alone, "place", "version: "+sum(two)+", place", 1)), "change attachment p, for the tenant default version")
	expect("whichever version", run(t, c, false, nil, alone))

	// What somebody attached beside is pruned.
	if _, err := c.Attach(t.Context(), admin.NewAttachment{Plugin: "p", Tenant: "default", Mode: "shadow"}); err != nil {
		t.Fatal(err)
	}
	got := run(t, c, true, nil, alone)
	if len(got) != 2 || !slices.Contains(got, "delete attachment p, for all") || !strings.HasPrefix(got[0], "delete attachment p, for the tenant default (") {
		t.Errorf("pruned %q", got)
	}
}

// A source that says its SHA-256 is read once, when it is pushed.
func TestPinnedSourcesAreOnlyReadToBePushed(t *testing.T) {
	c, _ := client(t)
	wasm := module(401)
	source := "https://plugins.example.com/p.wasm#sha256=" + sum(wasm)
	text := "plugins:\n- {name: p, source: '" + source + "'}\n"
	if got := run(t, c, false, map[string]string{"module " + source: wasm}, text); len(got) != 1 || got[0] != "create plugin p" {
		t.Errorf("the first time %q", got)
	}
	if got := run(t, c, false, nil, text); len(got) != 0 {
		t.Errorf("again %q", got)
	}
}
