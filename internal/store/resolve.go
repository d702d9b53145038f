// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/usage"
)

// Resolve writes rows for exchanges that nothing more is expected of: records with [usage.StatusUnresolved], whose tokens are estimates. It
// moves the position of b.Writer from b.From to b.To in the same transaction, and returns how many rows it wrote. It returns an error wrapping
// [usage.ErrFenced], and has written nothing, when the position is not b.From.
//
// An exchange that has a row already, of whatever status, is left alone; so Resolve may be called again with the same records. A line of
// such an exchange that is posted later after all, by any processor, takes the place of its row: see [Store.Post].
//
// All of them are written in one transaction, or none. Seq is not used.
func (s *Store) Resolve(ctx context.Context, b usage.Batch) (written int, err error) {
	if b.From < 0 || b.To <= b.From || b.Writer == uuid.Nil {
		return 0, invalid("unresolved exchanges of writer %s from %d to %d", b.Writer, b.From, b.To)
	}
	rows := make([]*usage.Record, 0, len(b.Records))
	seen := make(map[uuid.UUID]struct{}, len(b.Records))
	for i := range b.Records {
		r := b.Records[i]
		if r.Status != usage.StatusUnresolved {
			return 0, invalid("exchange %s to resolve: it has the status %q", r.Exchange, r.Status)
		}
		if _, ok := seen[r.Exchange]; ok {
			continue
		}
		seen[r.Exchange] = struct{}{}
		r.Seq = 0
		rows = append(rows, bounded(&r))
	}
	err = s.enter(ctx, entry{
		open: func(ctx context.Context, tx pgx.Tx) ([]*usage.Record, error) {
			if _, err := advance(ctx, tx, &b, nil); err != nil {
				return nil, err
			}
			// Whoever posts holds a lock on the table that this one excludes, from before it looks for unresolved exchanges until
			// it commits. So from here on, what has been posted is seen here, and what has not will see what is written here.
			if _, err := tx.Exec(ctx, `lock table weir.unresolved in exclusive mode`); err != nil {
				return nil, fmt.Errorf("lock unresolved exchanges: %w", err)
			}
			left, err := rows, error(nil)
			if len(rows) > 0 {
				left, err = without(ctx, tx, rows, ``)
			}
			written = len(left)
			return left, err
		},
		write: writeUnresolved,
	})
	if err != nil {
		return 0, fmt.Errorf("resolve %d exchanges: %w", len(rows), err)
	}
	return written, nil
}

func writeUnresolved(ctx context.Context, tx pgx.Tx, rows []*usage.Record) error {
	groups := arrange(rows)
	if err := copyUsage(ctx, tx, uuid.Nil, groups); err != nil {
		return fmt.Errorf("copy %d rows: %w", len(rows), err)
	}
	ids, times := exchanges(rows)
	// There may be an entry whose row was removed by hand.
	if _, err := tx.Exec(ctx, `insert into weir.unresolved (exchange_id, ts) select * from unnest($1::uuid[], $2::timestamptz[])
		on conflict (exchange_id) do update set ts = excluded.ts`, ids, times); err != nil {
		return fmt.Errorf("note unresolved exchanges: %w", err)
	}
	if err := addSums(ctx, tx, groups, nil); err != nil {
		return err
	}
	return addCharges(ctx, tx, rows, nil)
}

// exchanges returns what identifies the rows of some records. The ids are bare arrays, which pgx encodes as they are; a [uuid.UUID] it
// would print and parse.
func exchanges(rows []*usage.Record) (ids [][16]byte, times []time.Time) {
	for i := range rows {
		ids, times = append(ids, rows[i].Exchange), append(times, rows[i].Time)
	}
	return ids, times
}

// without returns the records of exchanges that have no row which satisfies a condition, " and …" or nothing. A row is found by its time,
// which comes from the ticket of the exchange and so is the same in whatever tells of it.
func without(ctx context.Context, tx pgx.Tx, rows []*usage.Record, condition string) ([]*usage.Record, error) {
	ids, times := exchanges(rows)
	first, last := span(rows)
	// The limit makes it one look into the index of one partition for each exchange, whatever the planner believes of their number.
	known, err := many(ctx, tx, pgx.RowTo[uuid.UUID], `select k.id from unnest($1::uuid[], $2::timestamptz[]) k (id, ts) cross join lateral
		(select 1 from weir.usage u where u.ts = k.ts and u.ts between $3 and $4 and u.exchange_id = k.id`+condition+` limit 1) u`,
		ids, times, first, last)
	if err != nil {
		return nil, fmt.Errorf("look for rows of %d exchanges: %w", len(rows), err)
	}
	if len(known) == 0 {
		return rows, nil
	}
	have := make(map[uuid.UUID]struct{}, len(known))
	for _, id := range known {
		have[id] = struct{}{}
	}
	left := make([]*usage.Record, 0, len(rows)-len(have))
	for _, r := range rows {
		if _, ok := have[r.Exchange]; !ok {
			left = append(left, r)
		}
	}
	return left, nil
}

// span returns the earliest and the latest time of rows, of which there is at least one.
func span(rows []*usage.Record) (first, last time.Time) {
	first, last = rows[0].Time, rows[0].Time
	for i := range rows {
		if t := rows[i].Time; t.Before(first) {
			first = t
		} else if t.After(last) {
			last = t
		}
	}
	return first, last
}

// maxSuspects is how many unresolved exchanges of the time of a batch are compared with it here; of more, Postgres is asked.
const maxSuspects = 1000

// suspects are unresolved exchanges, some of which a batch may tell the end of.
type suspects map[uuid.UUID]struct{}

// queueSuspects asks for the unresolved exchanges of the time of rows. The lock goes first: see [Store.Resolve].
func queueSuspects(batch *pgx.Batch, rows []*usage.Record, into *suspects) {
	batch.Queue(`lock table weir.unresolved in row exclusive mode`)
	first, last := span(rows)
	batch.Queue(`select exchange_id from weir.unresolved where ts between $1 and $2 limit $3`, first, last, maxSuspects+1).
		Query(func(r pgx.Rows) error {
			ids, err := pgx.CollectRows(r, pgx.RowTo[uuid.UUID])
			*into = make(suspects, len(ids))
			for _, id := range ids {
				(*into)[id] = struct{}{}
			}
			return err
		})
}

// among returns the exchanges of rows that may be unresolved.
func (s suspects) among(rows []*usage.Record) [][16]byte {
	if len(s) == 0 {
		return nil
	}
	var ids [][16]byte
	for i := range rows {
		if _, ok := s[rows[i].Exchange]; ok || len(s) > maxSuspects {
			ids = append(ids, rows[i].Exchange)
		}
	}
	return ids
}

// takeBack deletes the rows of those exchanges that are unresolved and returns what they added to the sums.
func takeBack(ctx context.Context, tx pgx.Tx, ids [][16]byte) ([]contribution, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	type taken struct {
		ID uuid.UUID
		TS time.Time
	}
	late, err := many(ctx, tx, pgx.RowToStructByPos[taken], `delete from weir.unresolved where exchange_id = any($1) returning exchange_id, ts`, ids)
	if err != nil || len(late) == 0 {
		return nil, err
	}
	var batch pgx.Batch
	var sums []contribution
	for _, l := range late {
		// One statement each, so that each looks into the index of one partition. A row that is gone was deleted with its day.
		batch.Queue(`delete from weir.usage where ts = $1 and exchange_id = $2 and status = $3 returning ts, tenant_id, key_id, model,
			coalesce(channel_id, 0), 1, estimated::int, (cost_nanousd is null)::int, input_tokens, cached_input_tokens, output_tokens,
			reasoning_tokens, billed_input_tokens, billed_output_tokens, coalesce(cost_nanousd, 0), request_bytes, response_bytes, exchange_id`, l.TS, l.ID, string(usage.StatusUnresolved)).
			Query(func(r pgx.Rows) error {
				found, err := pgx.CollectRows(r, scanContribution)
				sums = append(sums, found...)
				return err
			})
	}
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return nil, fmt.Errorf("take back %d unresolved rows: %w", len(late), err)
	}
	return sums, nil
}

func scanContribution(row pgx.CollectableRow) (c contribution, err error) {
	t, ts := &c.total, time.Time{}
	err = row.Scan(&ts, &c.tenant, &c.key, &c.model, &c.channel, &t.requests, &t.estimated, &t.unpriced, &t.tokens.Input, &t.tokens.CachedInput,
		&t.tokens.Output, &t.tokens.Reasoning, &t.billed.BilledInput, &t.billed.BilledOutput, &t.cost, &t.requestBytes, &t.responseBytes, &c.exchange)
	c.hour = hourOf(ts)
	return c, err
}
