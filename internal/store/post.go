// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weir-proxy/weir/usage"
)

// Post writes the rows of a batch, adds them to the sums and moves the position of the log from b.From to b.To, all or nothing.
// It returns an error wrapping [usage.ErrFenced], and has written nothing, when the position is not b.From.
//
// A record of an exchange that was given up ([Store.Resolve]) takes the place of the unresolved row, here and in the sums. A record that
// Postgres refuses for what it says goes to weir.dead_letter instead, in the same transaction: [Options.OnDeadLetter] hears of it. A
// record from more than 29 days ago whose exchange has a row is left out: see [Store.PruneWriters].
//
// After any other error it is not known whether the batch was written, since the connection may have been lost while Postgres
// committed: read the [Store.Position] again and go on from there.
func (s *Store) Post(ctx context.Context, b usage.Batch) error {
	if b.From < 0 || b.To < b.From || b.Writer == uuid.Nil {
		return invalid("batch of writer %s from %d to %d", b.Writer, b.From, b.To)
	}
	rows := make([]*usage.Record, len(b.Records))
	for i := range b.Records {
		r := &b.Records[i]
		if r.Seq <= b.From || r.Seq > b.To {
			return invalid("batch of writer %s from %d to %d: it has a record at %d", b.Writer, b.From, b.To, r.Seq)
		}
		rows[i] = bounded(r)
	}
	// Every writer takes its locks in this order, and within the sums in the order of their keys: position,
	// unresolved exchanges, rows, hourly sums, balances, leases, ledger.
	var late suspects
	err := s.enter(ctx, entry{
		writer: b.Writer,
		open: func(ctx context.Context, tx pgx.Tx) ([]*usage.Record, error) {
			var err error
			if late, err = advance(ctx, tx, &b, rows); err != nil {
				return nil, err
			}
			return s.dropPosted(ctx, tx, rows)
		},
		write: func(ctx context.Context, tx pgx.Tx, rows []*usage.Record) error {
			taken, err := takeBack(ctx, tx, late.among(rows))
			if err != nil {
				return err
			}
			groups := arrange(rows)
			if err := copyUsage(ctx, tx, b.Writer, groups); err != nil {
				return fmt.Errorf("copy %d rows: %w", len(rows), err)
			}
			if err := addSums(ctx, tx, groups, taken); err != nil {
				return err
			}
			return addCharges(ctx, tx, rows, taken)
		},
	})
	if err != nil {
		return fmt.Errorf("post usage of %s from %d to %d: %w", b.Writer, b.From, b.To, err)
	}
	return nil
}

// advance moves the position of the writer from b.From to b.To. The row stays locked until the transaction ends, so that two
// processors that read one log cannot both post a batch. In the same round trip it looks for unresolved exchanges of the time of rows.
func advance(ctx context.Context, tx pgx.Tx, b *usage.Batch, rows []*usage.Record) (late suspects, err error) {
	var batch pgx.Batch
	if b.From == 0 {
		batch.Queue(`insert into weir.writer (id, seq) values ($1, 0) on conflict do nothing`, b.Writer)
	}
	moved := false
	batch.Queue(`update weir.writer set seq = $3, updated = now() where id = $1 and seq = $2`, b.Writer, b.From, b.To).
		Exec(func(tag pgconn.CommandTag) error {
			moved = tag.RowsAffected() == 1
			return nil
		})
	if len(rows) > 0 {
		queueSuspects(&batch, rows, &late)
	}
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return nil, fmt.Errorf("move position: %w", err)
	}
	if !moved {
		return nil, usage.ErrFenced
	}
	return late, nil
}
