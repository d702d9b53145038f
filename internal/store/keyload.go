// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/weir-proxy/weir/policy"
)

// selectRing reads what a [policy.Keyring] needs of keys, in few columns: a million rows are read by it.
const selectRing = `select k.id, k.tenant_id, k.hash, k.name,
	case when k.disabled then 1 else 0 end + case when k.revoked is not null then 2 else 0 end + case when k.pinnable then 4 else 0 end,
	k.expires,
	case when k.models = '{}' and k.groups = '{}' and k.networks = '{}' then ''
		else json_build_array(k.models, k.groups, k.networks)::text end,
	case when k.tags = '{}' then '' else k.tags::text end,
	k.previous_hash, k.previous_until from weir.key k `

// ringRow scans rows of selectRing.
type ringRow struct {
	key            policy.Key
	hash, previous []byte
	flags          int32
	expires, until pgtype.Timestamptz
	reach, tags    string
	reaches        map[string]reach // that were met before: many keys have the same
}

// reach is a list of models, one of groups and one of networks.
type reach struct {
	models, groups []string
	networks       []netip.Prefix
}

func parseReach(s string) (r reach, err error) {
	err = json.Unmarshal([]byte(s), &[]any{&r.models, &r.groups, &r.networks})
	r.models, r.groups, r.networks = noneIfEmpty(r.models), noneIfEmpty(r.groups), noneIfEmpty(r.networks)
	return r, err
}

func (r *ringRow) scan(rows pgx.Rows) error {
	k := &r.key
	*k = policy.Key{}
	err := rows.Scan(&k.ID, &k.Tenant, (*pgtype.DriverBytes)(&r.hash), &k.Name, &r.flags, &r.expires, &r.reach, &r.tags,
		(*pgtype.DriverBytes)(&r.previous), &r.until)
	if err != nil {
		return fmt.Errorf("read keys: %w", err)
	}
	copy(k.Hash[:], r.hash)
	k.Disabled, k.Revoked, k.Pinnable = r.flags&1 != 0, r.flags&2 != 0, r.flags&4 != 0
	if r.expires.Valid {
		k.Expires = r.expires.Time
	}
	if r.until.Valid {
		copy(k.Previous[:], r.previous)
		k.PreviousUntil = r.until.Time
	}
	if r.reach != "" {
		found, known := r.reaches[r.reach]
		if !known {
			if found, err = parseReach(r.reach); err != nil {
				return fmt.Errorf("read key %d: %w", k.ID, err)
			}
			if r.reaches == nil {
				r.reaches = make(map[string]reach)
			}
			r.reaches[r.reach] = found
		}
		k.Models, k.Groups, k.Networks = found.models, found.groups, found.networks
	}
	if r.tags != "" {
		var tags map[string]string
		if err := json.Unmarshal([]byte(r.tags), &tags); err != nil {
			return fmt.Errorf("read key %d: tags: %w", k.ID, err)
		}
		k.Tags = tagList(tags)
	}
	return nil
}

// keyPosition is how far a reader of keys has come: which transactions it has seen, as a pg_snapshot of Postgres ("xmin:xmax:xip,…"), and behind an @ of which
// table, by when its server was started, its database and its own number. Numbers of another table say nothing: it may be that of a standby that lagged, or come
// from a backup, and has transactions of its own by the time that it is asked.
type keyPosition string

// herePosition is the SQL for the present one.
const herePosition = `concat(pg_current_snapshot(), '@', extract(epoch from pg_postmaster_start_time()), ',',
	(select oid from pg_database where datname = current_database()), ',', 'weir.key'::regclass::oid)`

// snapshot returns the transactions, table what tells the table.
func (p keyPosition) snapshot() string { before, _, _ := strings.Cut(string(p), "@"); return before }
func (p keyPosition) table() string    { _, after, _ := strings.Cut(string(p), "@"); return after }

// xmin returns the first transaction that may not have been seen, and xmax the first that has not begun.
func (p keyPosition) bounds() (xmin, xmax int64) {
	low, rest, _ := strings.Cut(string(p), ":")
	high, _, _ := strings.Cut(rest, ":")
	xmin, _ = strconv.ParseInt(low, 10, 64)  // what Postgres wrote
	xmax, _ = strconv.ParseInt(high, 10, 64) // the same
	return xmin, xmax
}

// loadKeys reads all keys, and the terms of all. The position is one from which [Store.pollKeys] misses nothing.
func (s *Store) loadKeys(ctx context.Context) (b *policy.KeyBuilder, terms TermsChange, at keyPosition, err error) {
	err = pgx.BeginTxFunc(ctx, s.pool, oneSnapshot(), func(tx pgx.Tx) (err error) {
		if terms, err = loadTerms(ctx, tx); err != nil {
			return err
		}
		var n, secrets int
		err = tx.QueryRow(ctx, `select `+herePosition+`, count(*), count(previous_hash) from weir.key`).Scan(&at, &n, &secrets)
		if err != nil {
			return err
		}
		b = policy.NewKeyBuilder(n + secrets)
		rows, err := tx.Query(ctx, selectRing+`order by k.id`)
		if err != nil {
			return err
		}
		defer rows.Close()
		var row ringRow
		for rows.Next() {
			if err := row.scan(rows); err != nil {
				return err
			}
			if err := b.Add(&row.key); err != nil {
				return err
			}
		}
		return rows.Err()
	})
	if err != nil {
		return nil, TermsChange{}, "", fmt.Errorf("load keys: %w", err)
	}
	return b, terms, at, nil
}

// keyChanges is what has become of keys since a position.
type keyChanges struct {
	at       keyPosition
	changed  []policy.Key
	gone     []policy.KeyID
	terms    TermsChange
	all      bool  // too many, or nobody knows which: all are to be read again
	revision int64 // of the configuration, as of when the changes were read or later
}

// maxDelta is how many changed keys are taken one by one. Behind more, reading all is quicker.
const maxDelta = 50_000

// unseen selects the rows of transactions that the reader has not seen: those that began after its snapshot was taken, and those that were under way then. A
// sequence or a time would not do: what commits late has an early one.
const unseen = ` row_xid >= pg_snapshot_xmax($1::text::pg_snapshot) or row_xid = any(array(select pg_snapshot_xip($1::text::pg_snapshot)))`

// byIndex keeps the planner, until the transaction ends, from reading the whole table: it knows nothing of how transactions lie, and takes any number of them for
// many once there was an import.
const byIndex = `set_config('enable_seqscan', 'off', true)`

// pollKeys reads what has changed since a position, of keys and of the terms that they are held to, in one round trip and as of one moment: a key is never
// seen before its budget, and an owner whose budget is replaced by another has one all the time.
func (s *Store) pollKeys(ctx context.Context, since keyPosition) (keyChanges, error) {
	var c keyChanges
	var batch pgx.Batch
	batch.Queue(`begin isolation level repeatable read read only`)
	batch.Queue(`select ` + herePosition + `, ` + byIndex).QueryRow(func(r pgx.Row) error { return r.Scan(&c.at, nil) })
	batch.Queue(selectRing+`where`+unseen+` limit $2`, since.snapshot(), maxDelta+1).Query(func(rows pgx.Rows) error {
		row := ringRow{}
		for rows.Next() {
			if err := row.scan(rows); err != nil {
				return err
			}
			c.changed = append(c.changed, row.key)
		}
		return rows.Err()
	})
	batch.Queue(`select id from weir.key_gone where`+unseen+` limit $2`, since.snapshot(), maxDelta+1).Query(func(rows pgx.Rows) (err error) {
		c.gone, err = pgx.CollectRows(rows, pgx.RowTo[policy.KeyID])
		return err
	})
	queueTerms(&batch, since, &c.terms)
	batch.Queue(`select n from weir.revision`).QueryRow(func(r pgx.Row) error { return r.Scan(&c.revision) })
	batch.Queue(`commit`)
	if err := s.pool.SendBatch(ctx, &batch).Close(); err != nil {
		return c, fmt.Errorf("ask for changes: %w", err)
	}
	c.settle(since)
	return c, nil
}

// settle sees what the changes cannot tell one by one.
func (c *keyChanges) settle(since keyPosition) {
	_, before := since.bounds()
	_, now := c.at.bounds()
	c.all = len(c.changed)+len(c.gone)+c.terms.len() > maxDelta || now < before || since.table() != c.at.table() // another table, perhaps of an earlier time
	for _, id := range c.gone {
		c.all = c.all || id == 0
	}
	c.all = c.all || c.terms.truncated()
	if c.all {
		c.changed, c.gone, c.terms = nil, nil, TermsChange{}
	}
}

// Transaction returns a number that grows with every transaction: whoever follows the keys and has seen it has seen all that is committed now.
func (s *Store) Transaction(ctx context.Context) (int64, error) {
	var at keyPosition
	if err := s.pool.QueryRow(ctx, `select pg_current_snapshot()::text`).Scan(&at); err != nil {
		return 0, fmt.Errorf("ask for the last transaction: %w", err)
	}
	_, xmax := at.bounds()
	return xmax, nil
}

// forgetKeys is how long it is remembered that a key was deleted: much longer than a reader goes without reading all.
const forgetKeys = "1 day"

// PruneKeys forgets keys, budgets and limits that were deleted long ago.
func (s *Store) PruneKeys(ctx context.Context) error {
	for _, table := range []string{"weir.key_gone", "weir.terms_gone"} {
		if _, err := s.pool.Exec(ctx, `delete from `+table+` where gone < now() - $1::interval`, forgetKeys); err != nil {
			return fmt.Errorf("forget what was deleted: %w", err)
		}
	}
	return nil
}

// stampKeys gives keys, budgets and limits that came from another server, by a dump, a transaction of this one: those of the other may be far ahead, and would look new until this
// server has come there.
func (s *Store) stampKeys(ctx context.Context) error {
	for _, table := range []string{"weir.key", "weir.key_gone", "weir.budget", "weir.rate_limit", "weir.terms_gone"} {
		_, err := s.pool.Exec(ctx, `update `+table+` set row_xid = pg_current_xact_id() where row_xid >= pg_snapshot_xmax(pg_current_snapshot())`)
		if err != nil {
			return fmt.Errorf("stamp keys: %w", err)
		}
	}
	return nil
}
