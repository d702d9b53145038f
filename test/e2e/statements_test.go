// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/test/rig"
)

// TestARequestAsksTheDatabaseNothing counts every statement that Postgres gets while many requests are served. The processor asks now and then what has changed, and
// posts batches of rows: neither has to do with how many requests there are. Where the server has pg_stat_statements each statement is counted, else transactions.
func TestARequestAsksTheDatabaseNothing(t *testing.T) {
	const requests, clients = 2000, 8
	db := newDatabase(t)
	admin, err := pgx.Connect(t.Context(), db.server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	var there bool
	err = admin.QueryRow(t.Context(), `select exists (select from pg_available_extensions where name = 'pg_stat_statements')`).Scan(&there)
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if there {
		db.stop()
		db.o.Settings = map[string]string{"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track": "all"}
		db.start()
	}
	r := rig.Start(t, rig.Options{Production: true, DSN: db.server.DSN(), Config: "usage: {batch_interval: 2s}\n"})
	w := &world{Rig: r, provider: r.Provider(fake.Options{})}
	w.channel = r.Channel(store.NewChannel{Name: "one", BaseURL: w.provider.URL})
	w.key, _ = r.Key(store.NewKey{Name: "k"})
	r.Settle()
	if err := w.ask(http.DefaultClient, hello, "usage"); err != nil {
		t.Fatal(err)
	}
	w.Rows(1)

	counter, err := pgx.Connect(t.Context(), db.server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer counter.Close(t.Context()) //nolint:errcheck // the server ends with the test
	// What the counting itself asks is left out; the rig asks nothing meanwhile.
	count := `select 'transactions', xact_commit + xact_rollback from pg_stat_database where datname = current_database()`
	if there {
		for _, sql := range []string{`create extension pg_stat_statements`, `select pg_stat_statements_reset()`} {
			if _, err := counter.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
		count = `select query, calls from pg_stat_statements where query not like '%pg_stat_statements%' order by calls desc`
	}
	before := counted(t, counter, count)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for range requests / clients {
				if err := w.ask(client, hello, "usage"); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	after := counted(t, counter, count)
	total := 0
	for query, n := range after {
		n -= before[query]
		total += n
		if n*10 > requests {
			t.Errorf("%d requests, and %d times %.200s", requests, n, query)
		}
	}
	t.Logf("%d requests, %d statements, none of a request", requests, total)
	if total*2 > requests {
		t.Errorf("%d statements for %d requests", total, requests)
	}
	w.Eventually("all are in the sums", func() error {
		sums, err := w.Store.SumUsage(t.Context(), store.UsageFilter{}, nil)
		if err == nil && (len(sums) != 1 || sums[0].Requests != requests+1) {
			err = fmt.Errorf("sums %+v", sums)
		}
		return err
	})
}

// counted returns how often each statement was called.
func counted(t *testing.T, c *pgx.Conn, sql string) map[string]int {
	t.Helper()
	rows, err := c.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]int{}
	var query string
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&query, &n}, func() error { calls[query] += n; return nil }); err != nil {
		t.Fatal(err)
	}
	return calls
}
