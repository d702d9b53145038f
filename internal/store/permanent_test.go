// SPDX-License-Identifier: Apache-2.0

package store

import (
	"net/url"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/internal/postgres/pgtest"
)

// altered returns the address of a test database after a change.
func altered(t *testing.T, dsn string, change func(u *url.URL)) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	change(u)
	return u.String()
}

func TestPermanentErrorsAreTheOperators(t *testing.T) {
	dsn := pgtest.Database(t)
	s := mustOpen(t, dsn, Options{})
	const role = "weir_test_nobody"
	exec(t, s, `do $$ begin create role `+role+` login; exception when duplicate_object or unique_violation then null; end $$`)
	newer := pgtest.Database(t)
	later := mustOpen(t, newer, Options{})
	if err := later.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec(t, later, `insert into weir.migration (version_id, is_applied) values (9999, true)`)
	for name, tt := range map[string]struct {
		dsn  string
		hint string // empty: not permanent
	}{
		"no such database": {altered(t, dsn, func(u *url.URL) { u.Path = "/weir_no_such_database" }), "createdb"},
		"no such user":     {altered(t, dsn, func(u *url.URL) { u.User = url.User("weir_no_such_user") }), "user"},
		"no right":         {altered(t, dsn, func(u *url.URL) { u.User = url.User(role) }), "grant create"},
		"a later schema":   {newer, "newest weir"},
		"nobody listens":   {"postgres://postgres@127.0.0.1:1/x?sslmode=disable", ""},
		"no such host":     {"postgres://postgres@host.invalid/x?sslmode=disable", ""},
	} {
		err := mustOpen(t, tt.dsn, Options{}).Migrate(t.Context())
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		hint, yes := Permanent(err)
		if yes != (tt.hint != "") || !strings.Contains(hint, tt.hint) {
			t.Errorf("%s: %v: permanent %v with the hint %q, want %q", name, err, yes, hint, tt.hint)
		}
	}
}
