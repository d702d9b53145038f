// SPDX-License-Identifier: Apache-2.0

package store

import (
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

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

// serverOf returns the address of a server that lets everybody in, says that it is of the version, and knows no more.
func serverOf(t *testing.T, version string) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			backend := pgproto3.NewBackend(conn, conn)
			if _, err := backend.ReceiveStartupMessage(); err == nil {
				backend.Send(&pgproto3.AuthenticationOk{})
				backend.Send(&pgproto3.ParameterStatus{Name: "server_version", Value: version})
				backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
				_ = backend.Flush() // the client notices
			}
			_ = conn.Close()
		}
	}()
	return "postgres://postgres@" + l.Addr().String() + "/x?sslmode=disable"
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
		"an old server":    {serverOf(t, "13.22 (Debian 13.22-1.pgdg12+1)"), "upgrade the server"},
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
