// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/test/rig"
)

// What docs/operations.md promises of a restore: what Postgres took since the backup comes back from the logs, once, by itself, while requests
// are served; what people changed since then does not.
func TestARestoredDatabaseGetsItsRowsBackFromTheLogs(t *testing.T) {
	for name, way := range map[string]func(*testing.T, *database) (restore func()){
		"physical": copyOfData, "pg_dump": dumpOfSchema,
	} {
		t.Run(name, func(t *testing.T) {
			w, db := newWorldOnDatabase(t, 5)
			restore := way(t, db)
			w.Eventually("the test's own connections are renewed", func() error {
				_, err := w.Store.Tenants(t.Context())
				return err
			})

			old := w.key
			w.key, _ = w.Key(store.NewKey{Name: "made-after-the-backup"})
			w.Settle()
			for range 3 {
				w.mustAsk(t)
			}
			w.Rows(8)
			lost := w.key
			w.key = old
			for range 4 {
				w.mustAsk(t)
			}
			w.Rows(12)
			before := books(t, db.server.DSN())

			restore()
			w.mustAsk(t) // served, whatever Postgres is at
			w.Rows(13)
			after := books(t, db.server.DSN())
			if after.rows != before.rows+1 || after.sums != after.rows || after.balances != after.rows || after.twice != 0 {
				t.Errorf("books before %+v, after %+v: want one more row, sums and balances that agree, and none twice", before, after)
			}
			w.key = lost
			w.Eventually("the key that the backup does not know is refused", func() error {
				if a := w.post(t, "/v1/chat/completions", hello); a.status != http.StatusUnauthorized {
					return fmt.Errorf("got %d %s", a.status, a.body)
				}
				return nil
			})
		})
	}
}

// newWorldOnDatabase is a gateway with one channel and one key on a database that can be backed up and restored, after some requests.
func newWorldOnDatabase(t *testing.T, requests int) (*world, *database) {
	t.Helper()
	db := newDatabase(t)
	r := rig.Start(t, rig.Options{Production: true, DSN: db.server.DSN()})
	w := &world{Rig: r, provider: r.Provider(fake.Options{})}
	w.channel = r.Channel(store.NewChannel{Name: "one", BaseURL: w.provider.URL})
	w.key, _ = r.Key(store.NewKey{Name: "k"})
	r.Settle()
	for range requests {
		w.mustAsk(t)
	}
	w.Rows(requests)
	return w, db
}

func (w *world) mustAsk(t *testing.T) {
	t.Helper()
	if err := w.ask(http.DefaultClient, hello, "usage"); err != nil {
		t.Fatal(err)
	}
}

// numbers are what the tables of usage add up to.
type numbers struct {
	rows, sums, balances int64 // exchanges
	twice                int64 // rows whose exchange has another one
}

func books(t *testing.T, dsn string) numbers {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // it is only read from
	var n numbers
	if err := conn.QueryRow(t.Context(), `select
		(select count(*) from weir.usage), (select coalesce(sum(requests), 0)::bigint from weir.usage_hourly),
		(select coalesce(sum(requests), 0)::bigint from weir.balance),
		(select count(*) - count(distinct exchange_id) from weir.usage)`).Scan(&n.rows, &n.sums, &n.balances, &n.twice); err != nil {
		t.Fatal(err)
	}
	return n
}

// copyOfData is a backup of the files of the server, as pg_basebackup and snapshots of a volume make one.
func copyOfData(t *testing.T, d *database) (restore func()) {
	t.Helper()
	data := d.server.Dir()
	d.stop()
	run(t, "cp", "-a", data, data+".backup")
	t.Cleanup(func() { _ = os.RemoveAll(data + ".backup") })
	d.start()
	return func() {
		d.stop()
		if err := os.RemoveAll(data); err != nil {
			t.Fatal(err)
		}
		run(t, "cp", "-a", data+".backup", data)
		d.start()
	}
}

// dumpOfSchema is a backup by pg_dump, which comes with every installation of Postgres that Weir finds or fetches.
func dumpOfSchema(t *testing.T, d *database) (restore func()) {
	t.Helper()
	dump, err := exec.LookPath(filepath.Join(d.o.Install.Bin, "pg_dump"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "weir.dump")
	run(t, dump, "--format=custom", "--schema=weir", "--file="+file, d.server.DSN())
	return func() {
		conn, err := pgx.Connect(t.Context(), d.server.DSN())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // it has done its work
		if _, err := conn.Exec(t.Context(), `drop schema weir cascade`); err != nil {
			t.Fatal(err)
		}
		run(t, filepath.Join(d.o.Install.Bin, "pg_restore"), "--single-transaction", "--dbname="+d.server.DSN(), file)
	}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", filepath.Base(name), err, out)
	}
}
