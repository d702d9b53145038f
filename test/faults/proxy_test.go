// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/internal/postgres/pgtest"
)

// throughProxy returns a connection through a proxy, and one past it, to a database with a table t of one column n.
func throughProxy(t *testing.T) (p *proxy, through, past *pgx.Conn) {
	t.Helper()
	u, err := url.Parse(pgtest.Database(t))
	check(t, err)
	p, err = newProxy(u.Host)
	check(t, err)
	t.Cleanup(p.close)
	past = connect(t, u.String())
	_, err = past.Exec(t.Context(), `create table t (n int)`)
	check(t, err)
	u.Host = p.addr()
	return p, connect(t, u.String()), past
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	check(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// copyRows copies rows in a transaction, as the processor does with a batch.
func copyRows(t *testing.T, conn *pgx.Conn, n int) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		rows := make([][]any, n)
		for i := range rows {
			rows[i] = []any{i}
		}
		_, err := tx.CopyFrom(ctx, pgx.Identifier{"t"}, []string{"n"}, pgx.CopyFromRows(rows))
		return err
	})
}

func count(t *testing.T, conn *pgx.Conn) (n int) {
	t.Helper()
	check(t, conn.QueryRow(t.Context(), `select count(*) from t`).Scan(&n))
	return n
}

func TestProxyPassesEverythingOn(t *testing.T) {
	p, through, past := throughProxy(t)
	if err := copyRows(t, through, 50_000); err != nil {
		t.Fatal(err)
	}
	if got := count(t, past); got != 50_000 || p.dropped.Load() != 0 {
		t.Errorf("got %d rows, %d dropped commits", got, p.dropped.Load())
	}
	var long string
	check(t, through.QueryRow(t.Context(), `select repeat('x', 1000000)`).Scan(&long))
	if len(long) != 1_000_000 {
		t.Errorf("got %d bytes", len(long))
	}
}

func TestDroppedReplyIsOfACommitThatCounts(t *testing.T) {
	p, through, past := throughProxy(t)
	p.replies.Store(1)
	if err := copyRows(t, through, 3); err == nil {
		t.Error("the client learnt of the commit")
	}
	if got := count(t, past); got != 3 || p.dropped.Load() != 1 {
		t.Errorf("got %d rows, %d dropped commits; want 3, 1", got, p.dropped.Load())
	}
}

func TestDroppedCommitDoesNotCount(t *testing.T) {
	p, through, past := throughProxy(t)
	p.commits.Store(1)
	if err := copyRows(t, through, 3); err == nil {
		t.Error("the client was told of a commit")
	}
	if got := count(t, past); got != 0 || p.dropped.Load() != 1 {
		t.Errorf("got %d rows, %d dropped commits; want 0, 1", got, p.dropped.Load())
	}
}

func TestOnlyCommitsOfBatchesAreDropped(t *testing.T) {
	p, through, _ := throughProxy(t)
	p.replies.Store(1)
	p.commits.Store(1)
	err := pgx.BeginFunc(t.Context(), through, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `insert into t values (1)`)
		return err
	})
	if err != nil || p.dropped.Load() != 0 {
		t.Errorf("got %v, %d dropped commits", err, p.dropped.Load())
	}
}

func TestCutConnectionsFail(t *testing.T) {
	p, through, _ := throughProxy(t)
	p.cutAll()
	if _, err := through.Exec(t.Context(), `select 1`); err == nil {
		t.Error("the connection lives")
	}
}
