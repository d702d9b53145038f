// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// AuditEntry is a row of weir.audit: a change of the configuration. Triggers write it in the transaction of the change, so that none is missing and none is there that
// was not made.
type AuditEntry struct {
	ID       int64
	Time     time.Time
	Actor    string // see [Actor]; "sql:" and a role for who was no part of Weir
	Address  string
	Action   string // create, change or delete
	Kind     string // of the thing: tenant, key, channel, plugin, plugin-version, attachment, …
	ObjectID string
	Object   string          // the name that it had then
	Before   json.RawMessage // an object of what was there before; nil: nothing
	After    json.RawMessage
}

// AuditFilter selects entries. Zero fields do not restrict.
type AuditFilter struct {
	Kind         string
	Object       string // an id or a name
	Actor        string
	Since, Until time.Time
	Before       int64 // only entries with a lower id (paging)
	Limit        int   // newest first; at most 1000
}

// maxAudit is how many entries are read at once.
const maxAudit = 1000

// Audit returns entries, newest first.
func (s *Store) Audit(ctx context.Context, f AuditFilter) ([]AuditEntry, error) {
	if f.Limit < 1 || f.Limit > maxAudit {
		return nil, invalid("limit %d: it must be 1 to %d", f.Limit, maxAudit)
	}
	var where strings.Builder
	var args []any
	and := func(sql string, arg any) {
		args = append(args, arg)
		where.WriteString(" and " + strings.ReplaceAll(sql, "?", "$"+strconv.Itoa(len(args))))
	}
	for _, c := range []struct{ sql, value string }{{`kind = ?`, f.Kind}, {`(object_id = ? or object = ?)`, f.Object}, {`actor = ?`, f.Actor}} {
		if c.value != "" {
			and(c.sql, text(c.value))
		}
	}
	if !f.Since.IsZero() {
		and(`ts >= ?`, f.Since)
	}
	if !f.Until.IsZero() {
		and(`ts < ?`, f.Until)
	}
	if f.Before > 0 {
		and(`id < ?`, f.Before)
	}
	entries, err := many(ctx, s.pool, scanAudit, `select id, ts, actor, address, action, kind, object_id, object, before, after from weir.audit
		where true`+where.String()+` order by id desc limit `+strconv.Itoa(f.Limit), args...)
	if err != nil {
		return nil, fmt.Errorf("list audit: %w", err)
	}
	return entries, nil
}

func scanAudit(row pgx.CollectableRow) (e AuditEntry, err error) {
	err = row.Scan(&e.ID, &e.Time, &e.Actor, &e.Address, &e.Action, &e.Kind, &e.ObjectID, &e.Object, &e.Before, &e.After)
	e.Time = e.Time.UTC()
	return e, err
}

// PruneAudit deletes entries that are older than keep, and returns how many.
func (s *Store) PruneAudit(ctx context.Context, keep time.Duration) (int64, error) {
	tag, err := s.pool.Exec(ctx, `delete from weir.audit where ts < now() - $1 * interval '1 second'`, keep.Seconds())
	if err != nil {
		return 0, fmt.Errorf("prune audit: %w", err)
	}
	return tag.RowsAffected(), nil
}
