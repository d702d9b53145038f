// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/usage"
)

// Bounds on what goes into a row. Nothing a client or provider sends may make a row that Postgres refuses, for it would hold up
// every row behind it; nor one whose numbers make a sum overflow.
const (
	maxCount = 1 << 40 // tokens or bytes of one exchange
	maxText  = 512     // bytes
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
	rows := make([]usage.Record, len(b.Records))
	for i, r := range b.Records {
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
		open: func(ctx context.Context, tx pgx.Tx) ([]usage.Record, error) {
			var err error
			if late, err = advance(ctx, tx, &b, rows); err != nil {
				return nil, err
			}
			return s.dropPosted(ctx, tx, rows)
		},
		write: func(ctx context.Context, tx pgx.Tx, rows []usage.Record) error {
			taken, err := takeBack(ctx, tx, late.among(rows))
			if err != nil {
				return err
			}
			order := arrange(rows)
			if err := copyUsage(ctx, tx, b.Writer, order); err != nil {
				return fmt.Errorf("copy %d rows: %w", len(rows), err)
			}
			if err := addSums(ctx, tx, order, taken); err != nil {
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
func advance(ctx context.Context, tx pgx.Tx, b *usage.Batch, rows []usage.Record) (late suspects, err error) {
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

// bounded returns the record as it can be kept.
func bounded(r usage.Record) usage.Record {
	if y := r.Time.Year(); y < 1 || y > 9999 {
		r.Time = time.Unix(0, 0)
	}
	r.Time = r.Time.UTC().Truncate(time.Microsecond)
	d := &r.Details
	for _, n := range []*int64{
		&r.Input, &r.CachedInput, &r.Output, &r.Reasoning, &d.CacheWrite, &d.AudioInput, &d.ImageInput, &d.AudioOutput, &d.ImageOutput,
		&r.BilledInput, &r.BilledOutput, &r.RequestBytes, &r.ResponseBytes,
	} {
		*n = min(max(*n, 0), maxCount)
	}
	r.CostNanoUSD = min(max(r.CostNanoUSD, 0), usage.MaxCost)
	for _, n := range []*int{&r.HTTPStatus, &r.Attempts} {
		*n = min(max(*n, 0), math.MaxInt32)
	}
	r.Model, r.UpstreamModel = text(r.Model), text(r.UpstreamModel)
	r.Operation, r.Status = policy.Operation(text(string(r.Operation))), usage.Status(text(string(r.Status)))
	return r
}

// text returns s as Postgres takes it: valid UTF-8 without zero bytes, and not too long for an index.
func text(s string) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "")
	}
	return s
}
