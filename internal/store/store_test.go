// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/internal/postgres/pgtest"
	"github.com/weir-proxy/weir/policy"
)

func secretKey() []byte { return bytes.Repeat([]byte{7}, secretKeyLen) }

func mustOpen(t *testing.T, dsn string, o Options) *Store {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := Open(t.Context(), dsn, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// migrated returns a store of an empty database of its own.
func migrated(t *testing.T) *Store {
	t.Helper()
	s := mustOpen(t, pgtest.Database(t), Options{SecretKey: secretKey()})
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func query[T any](t *testing.T, s *Store, sql string, args ...any) T {
	t.Helper()
	v, err := one(t.Context(), s.pool, pgx.RowTo[T], sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func exec(t *testing.T, s *Store, sql string, args ...any) {
	t.Helper()
	if _, err := s.pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// wantError checks that err wraps sentinel and says something.
func wantError(t *testing.T, err, sentinel error, says string) {
	t.Helper()
	if !errors.Is(err, sentinel) || !strings.Contains(fmt.Sprint(err), says) {
		t.Errorf("error = %v, want one wrapping %q that says %q", err, sentinel, says)
	}
}

func TestOpenChecksWhatItIsGiven(t *testing.T) {
	_, err := Open(t.Context(), "postgres://weir:hunter2@localhost:notaport/weir", Options{})
	wantError(t, err, ErrInvalid, "database address")
	if err != nil && strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error gives the password away: %v", err)
	}
	_, err = Open(t.Context(), "postgres://localhost/weir", Options{SecretKey: []byte("short")})
	wantError(t, err, ErrSecretKey, "5 bytes")
	_, err = Open(t.Context(), "postgres://localhost/weir", Options{MaxConns: -1})
	wantError(t, err, ErrInvalid, "-1")
}

func TestPingTellsADatabaseThatIsAway(t *testing.T) {
	s := mustOpen(t, pgtest.Database(t), Options{})
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	away := mustOpen(t, "postgres://postgres@127.0.0.1:1/none?sslmode=disable", Options{})
	if err := away.Ping(t.Context()); err == nil {
		t.Error("no error from a port where nothing listens")
	}
}

func TestSessionSettingsYieldToTheAddress(t *testing.T) {
	dsn := pgtest.Database(t)
	s := mustOpen(t, dsn+"&statement_timeout=7000", Options{})
	for name, want := range map[string]string{"statement_timeout": "7s", "timezone": "UTC", "application_name": "weir", "lock_timeout": "10s"} {
		if got := query[string](t, s, `select current_setting($1)`, name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
}

func TestMigrateFromTwoStoresAtOnce(t *testing.T) {
	dsn := pgtest.Database(t)
	var wg sync.WaitGroup
	for range 4 {
		s := mustOpen(t, dsn, Options{MaxConns: 1})
		wg.Go(func() {
			if err := s.Migrate(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s := mustOpen(t, dsn, Options{})
	if err := s.Migrate(t.Context()); err != nil {
		t.Errorf("again: %v", err)
	}
	if got := query[int64](t, s, `select count(*) from weir.migration where version_id = 1`); got != 1 {
		t.Errorf("migration 1 ran %d times", got)
	}
	tenants, err := s.Tenants(t.Context())
	if err != nil || len(tenants) != 1 || tenants[0].Name != DefaultTenant {
		t.Errorf("tenants = %+v, %v", tenants, err)
	}
	if got := query[int64](t, s, `select count(*) from pg_inherits where inhparent = 'weir.usage'::regclass`); got != 1+1+partitionDays {
		t.Errorf("%d partitions", got)
	}
}

func TestMigrateRefusesADatabaseOfALaterWeir(t *testing.T) {
	s := migrated(t)
	exec(t, s, `insert into weir.migration (version_id, is_applied) values (99, true)`)
	wantError(t, s.Migrate(t.Context()), ErrInvalid, "newer weir")
}

func TestMigrateEndsWithItsContext(t *testing.T) {
	s := migrated(t)
	conn, err := s.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(t.Context(), `select pg_advisory_lock($1)`, int64(lockMigrate)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Migrate(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("migrate behind a lock = %v", err)
	}
	if _, err := conn.Exec(t.Context(), `select pg_advisory_unlock_all()`); err != nil {
		t.Fatal(err)
	}
}

func TestConfigurationIsEverythingAtOneRevision(t *testing.T) {
	s := migrated(t)
	before, err := s.Configuration(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	acme, err := s.CreateTenant(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	k, secret, err := s.CreateKey(t.Context(), NewKey{Tenant: "acme", Name: "ci", Models: []string{"gpt-*"}})
	if err != nil {
		t.Fatal(err)
	}
	ch, err := s.CreateChannel(t.Context(), NewChannel{
		Name: "one", Provider: "openai", BaseURL: "https://api.example.com/v1", Credential: "sk-up", Models: []policy.Model{{Name: "gpt-5"}}, Tenant: "acme",
	})
	if err != nil {
		t.Fatal(err)
	}
	push(t, s, PushedModule{Name: "guard", Wasm: module(1)})
	a := attach(t, s, NewAttachment{Plugin: "guard", Tenant: "acme"})
	got, err := s.Configuration(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := Configuration{Tenants: []Tenant{before.Tenants[0], acme}, Channels: []Channel{ch}, Attachments: []Attachment{a}}
	if diff := cmp.Diff(got, want, cmpopts.IgnoreFields(Configuration{}, "Revision")); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
	if got.Revision <= before.Revision {
		t.Errorf("revision %d after %d", got.Revision, before.Revision)
	}
	if k.Hash != policy.HashKey(secret.Reveal()) {
		t.Error("the hash is not that of the secret")
	}
}

func TestEachChangeGrowsTheRevision(t *testing.T) {
	s := migrated(t)
	changes := []struct {
		name string
		do   func(ctx context.Context) error
	}{
		{"create tenant", func(ctx context.Context) error { _, err := s.CreateTenant(ctx, "acme"); return err }},
		{"set tenant", func(ctx context.Context) error {
			_, err := s.SetTenant(ctx, "acme", TenantChange{Disabled: new(true)})
			return err
		}},
		{"create channel", func(ctx context.Context) error { _, err := s.CreateChannel(ctx, plain("c")); return err }},
		{"set channel", func(ctx context.Context) error {
			_, err := s.SetChannel(ctx, "c", ChannelChange{Weight: new(2)})
			return err
		}},
		{"set models", func(ctx context.Context) error {
			_, err := s.SetChannel(ctx, "c", ChannelChange{Models: &[]policy.Model{{Name: "n"}}})
			return err
		}},
		{"delete channel", func(ctx context.Context) error { return s.DeleteChannel(ctx, "c") }},
		{"delete tenant", func(ctx context.Context) error { return s.DeleteTenant(ctx, "acme") }},
		{"by hand", func(ctx context.Context) error {
			_, err := s.pool.Exec(ctx, `update weir.tenant set disabled = disabled`)
			return err
		}},
	}
	last, err := revision(t.Context(), s.pool)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changes {
		if err := c.do(t.Context()); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		n, err := revision(t.Context(), s.pool)
		if err != nil || n <= last {
			t.Errorf("%s: revision %d after %d, %v", c.name, n, last, err)
		}
		last = n
	}
}

func TestTenantGoesWithItsRevokedKeys(t *testing.T) {
	s := migrated(t)
	if _, err := s.CreateTenant(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	mustKey(t, s, NewKey{Tenant: "acme", Name: "k"})
	wantError(t, s.DeleteTenant(t.Context(), "acme"), ErrInUse, "1 keys")
	if _, err := s.RevokeKey(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteTenant(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	_, err := s.RevokeKey(t.Context(), "k")
	wantError(t, err, ErrNotFound, "key")
}

func plain(name string) NewChannel {
	return NewChannel{Name: name, Provider: "fake", BaseURL: "http://127.0.0.1:8080/v1", Models: []policy.Model{{Name: "m"}}}
}

func TestChangesAtOnceDoNotDeadlock(t *testing.T) {
	s := migrated(t)
	if _, err := s.CreateChannel(t.Context(), plain("shared")); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			name := fmt.Sprintf("t%d", i)
			_, err1 := s.CreateTenant(t.Context(), name)
			_, _, err2 := s.CreateKey(t.Context(), NewKey{Tenant: name, Name: "k"})
			_, err3 := s.SetChannel(t.Context(), "shared", ChannelChange{Priority: &i, Models: &[]policy.Model{{Name: name}}})
			_, err4 := s.RevokeKey(t.Context(), name+"/k")
			if err := errors.Join(err1, err2, err3, err4, s.DeleteTenant(t.Context(), name)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
