// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weir-proxy/weir/usage"
)

// DeadLetters returns how many records weir.dead_letter holds: records that Postgres refused for what they say. Each is an exchange
// that is in no sum until somebody has looked into it and deleted it there.
func (s *Store) DeadLetters(ctx context.Context) (int64, error) {
	var n int64
	if err := s.pool.QueryRow(ctx, `select count(*) from weir.dead_letter`).Scan(&n); err != nil {
		return 0, fmt.Errorf("count dead letters: %w", err)
	}
	return n, nil
}

// entry is a transaction that writes rows of usage. Its parts may run more than once, each time in a new transaction.
type entry struct {
	writer uuid.UUID // nil when the rows come from no log
	// open does what goes before the rows, takes the lock on weir.unresolved, and says which rows to write.
	open func(ctx context.Context, tx pgx.Tx) ([]*usage.Record, error)
	// write writes rows and adds them to the sums.
	write func(ctx context.Context, tx pgx.Tx, rows []*usage.Record) error
}

// enter runs the transaction. Rows that Postgres refuses for what they say go to weir.dead_letter in the same transaction, and the others
// to where they belong; every other failure leaves nothing behind and is returned.
func (s *Store) enter(ctx context.Context, e entry) error {
	whole := func(tx pgx.Tx) error {
		rows, err := e.open(ctx, tx)
		if err != nil || len(rows) == 0 {
			return err
		}
		return e.write(ctx, tx, rows)
	}
	err := pgx.BeginFunc(ctx, s.pool, whole)
	if unplaced(err) {
		if err := s.ensureDefault(ctx); err != nil {
			return err
		}
		err = pgx.BeginFunc(ctx, s.pool, whole)
	}
	if !refused(err) {
		return err
	}
	var dead []refusal
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		rows, err := e.open(ctx, tx)
		if err != nil {
			return err
		}
		// Pieces of a batch touch the sums in no order, so no other writer may touch them meanwhile. What is checked at the end
		// of a transaction is checked at once, or it would be nobody's fault.
		for _, sql := range []string{`lock table weir.usage_hourly, weir.balance, weir.lease, weir.ledger in exclusive mode`, `set constraints all immediate`} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		if dead, err = e.sift(ctx, tx, rows); err != nil {
			return err
		}
		if err := bury(ctx, tx, e.writer, dead); err != nil {
			return err
		}
		return chargeDead(ctx, tx, dead)
	})
	if err == nil && len(dead) > 0 {
		s.log.LogAttrs(ctx, slog.LevelError, "postgres refused rows of usage: they are in weir.dead_letter", slog.Int("rows", len(dead)),
			slog.String("writer", e.writer.String()), slog.Int64("first_seq", dead[0].record.Seq), slog.Any("err", dead[0].reason))
		if s.onDeadLetter != nil {
			s.onDeadLetter(len(dead))
		}
	}
	return err
}

// refusal is a record that Postgres refused.
type refusal struct {
	record *usage.Record
	reason error
}

// chargeDead charges budgets for refused records: they were spent, whatever is wrong with them. Those whose unresolved rows stay are charged already.
func chargeDead(ctx context.Context, tx pgx.Tx, dead []refusal) error {
	var records []*usage.Record
	for i := range dead {
		if len(dead[i].record.Charges.Accounts) > 0 {
			records = append(records, dead[i].record)
		}
	}
	if len(records) == 0 {
		return nil
	}
	ids, _ := exchanges(records)
	stay, err := many(ctx, tx, pgx.RowTo[uuid.UUID], `select exchange_id from weir.unresolved where exchange_id = any($1)`, ids)
	if err != nil {
		return err
	}
	records = slices.DeleteFunc(records, func(r *usage.Record) bool { return slices.Contains(stay, r.Exchange) })
	return addCharges(ctx, tx, records, nil)
}

// sift writes what Postgres takes of rows and returns the rest. It halves what is refused until a refused row stands alone.
func (e *entry) sift(ctx context.Context, tx pgx.Tx, rows []*usage.Record) ([]refusal, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	// Within a transaction, Begin makes a savepoint.
	err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { return e.write(ctx, tx, rows) })
	if !refused(err) {
		return nil, err
	}
	if len(rows) == 1 {
		return []refusal{{rows[0], err}}, nil
	}
	half := len(rows) / 2
	first, err := e.sift(ctx, tx, rows[:half])
	if err != nil {
		return nil, err
	}
	second, err := e.sift(ctx, tx, rows[half:])
	return append(first, second...), err
}

// bury puts refused records into weir.dead_letter.
func bury(ctx context.Context, tx pgx.Tx, writer uuid.UUID, dead []refusal) error {
	if len(dead) == 0 {
		return nil
	}
	var batch pgx.Batch
	for i := range dead {
		r := dead[i].record
		record, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("encode dead letter: %w", err)
		}
		batch.Queue(`insert into weir.dead_letter (writer, seq, ts, exchange_id, reason, record) values ($1, $2, $3, $4, $5, $6)`,
			writer, r.Seq, r.Time, r.Exchange, text(dead[i].reason.Error()), record)
	}
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("keep %d dead letters: %w", len(dead), err)
	}
	return nil
}

// refused reports whether err is Postgres refusing what rows say, so that it would refuse them again: not a lost connection, a deadlock,
// a time-out, a full disk or a lack of rights, nor a missing partition.
func refused(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || unplaced(err) {
		return false
	}
	if e.Code == stateBadCopy { // our fault, and every row's
		return false
	}
	switch e.Code[:2] {
	case "22", // data exception
		"23", // integrity constraint violation
		"44": // with check option violation
		return true
	}
	return e.Code == stateRaised || e.Code == stateLimitExceeded
}

// unplaced reports whether err is Postgres having no partition for a row, not even the default one.
func unplaced(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == stateCheckViolation && e.TableName == "usage" && e.ConstraintName == ""
}
