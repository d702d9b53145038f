// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
)

// What docs/operations.md promises of an upgrade and of going back: a processor goes on when a later Weir brings the schema forward; one that is started then refuses
// to, and says what to do; with the backup of before it serves again, and has all rows.
func TestGoingBackIsRestoringTheBackup(t *testing.T) {
	w, db := newWorldOnDatabase(t, 3)
	restore := dumpOfSchema(t, db)

	conn, err := pgx.Connect(t.Context(), db.server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // it has done its work
	if _, err := conn.Exec(t.Context(), `alter table weir.usage add column of_a_later_weir text`); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `insert into weir.migration (version_id, is_applied) values (99999, true)`); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		w.mustAsk(t)
	}
	w.Rows(7)

	w.StopProcessor()
	p, err := w.LaunchProcessor()
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if p.Err() == nil {
		t.Error("a processor that is older than the schema has ended without an error")
	}
	said, err := os.ReadFile(filepath.Join(w.Dir, "processor.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"version 99999", "run a newer weir", "hint: "} {
		if !bytes.Contains(said, []byte(word)) {
			t.Errorf("it does not say %q: %s", word, said[max(0, len(said)-500):])
		}
	}

	restore()
	w.StartProcessor()
	w.Eventually("it serves", func() error {
		if a := w.post(t, "/v1/chat/completions", hello); a.status != 200 {
			return fmt.Errorf("got %d %s", a.status, a.body)
		}
		return nil
	})
	w.Rows(8)
	if n := books(t, db.server.DSN()); n.rows != 8 || n.sums != 8 || n.balances != 8 || n.twice != 0 {
		t.Errorf("books %+v, want 8 rows, and sums and balances that agree", n)
	}
}
