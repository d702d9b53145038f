// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/usage"
)

// Bounds on what goes into a row. Nothing a client or provider sends may make a row that Postgres refuses, for it would hold up
// every row behind it; nor one whose numbers make a sum overflow.
const (
	maxCount = 1 << 40 // tokens or bytes of one exchange
	maxText  = 512     // bytes
)

// Position returns how far the log of a writer has been posted, in bytes; 0 for a writer that is not known.
func (s *Store) Position(ctx context.Context, writer uuid.UUID) (int64, error) {
	var seq int64
	err := s.pool.QueryRow(ctx, `select seq from weir.writer where id = $1`, writer).Scan(&seq)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("read position of %s: %w", writer, err)
	}
	return seq, nil
}

// Post writes the rows of a batch, adds them to the sums and moves the position of the log from b.From to b.To, all or nothing.
// It returns an error wrapping [usage.ErrFenced], and has written nothing, when the position is not b.From.
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
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := advance(ctx, tx, &b); err != nil || len(rows) == 0 {
			return err
		}
		// Every writer takes its locks in this order, and within each table in the order of the primary key.
		if err := copyUsage(ctx, tx, b.Writer, rows); err != nil {
			return fmt.Errorf("copy %d rows: %w", len(rows), err)
		}
		return addSums(ctx, tx, rows)
	})
	if err != nil {
		return fmt.Errorf("post usage of %s from %d to %d: %w", b.Writer, b.From, b.To, err)
	}
	return nil
}

// advance moves the position of the writer from b.From to b.To. The row stays locked until the transaction ends, so that two
// processors that read one log cannot both post a batch.
func advance(ctx context.Context, tx pgx.Tx, b *usage.Batch) error {
	var batch pgx.Batch
	if b.From == 0 {
		batch.Queue(`insert into weir.writer (id, seq) values ($1, 0) on conflict do nothing`, b.Writer)
	}
	moved := false
	batch.Queue(`update weir.writer set seq = $3, updated = now() where id = $1 and seq = $2`, b.Writer, b.From, b.To)
	results := tx.SendBatch(ctx, &batch)
	for range batch.Len() {
		tag, err := results.Exec()
		if err != nil {
			return errors.Join(fmt.Errorf("move position: %w", err), results.Close())
		}
		moved = tag.RowsAffected() == 1
	}
	if err := results.Close(); err != nil {
		return fmt.Errorf("move position: %w", err)
	}
	if !moved {
		return usage.ErrFenced
	}
	return nil
}

// bounded returns the record as it can be kept.
func bounded(r usage.Record) usage.Record {
	if y := r.Time.Year(); y < 1 || y > 9999 {
		r.Time = time.Unix(0, 0)
	}
	r.Time = r.Time.UTC().Truncate(time.Microsecond)
	for _, n := range []*int64{&r.Input, &r.CachedInput, &r.Output, &r.Reasoning, &r.RequestBytes, &r.ResponseBytes} {
		*n = min(max(*n, 0), maxCount)
	}
	for _, n := range []*int{&r.HTTPStatus, &r.Attempts} {
		*n = min(max(*n, 0), math.MaxInt32)
	}
	r.Model, r.UpstreamModel = text(r.Model), text(r.UpstreamModel)
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

// usageColumns are in the order of the values in copyUsage.
func usageColumns() []string {
	return []string{
		"ts", "tenant_id", "key_id", "channel_id", "input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens",
		"request_bytes", "response_bytes", "seq", "http_status", "attempts", "first_byte_ms", "duration_ms", "stream", "estimated",
		"exchange_id", "writer", "model", "upstream_model", "operation", "status",
	}
}

func copyUsage(ctx context.Context, tx pgx.Tx, writer uuid.UUID, rows []usage.Record) error {
	source := pgx.CopyFromSlice(len(rows), func(i int) ([]any, error) {
		r := &rows[i]
		var channel, firstByte any
		if r.Channel != 0 {
			channel = int64(r.Channel)
		}
		if r.FirstByte >= 0 {
			firstByte = milliseconds(r.FirstByte)
		}
		return []any{
			r.Time, int64(r.Tenant), int64(r.Key), channel, r.Input, r.CachedInput, r.Output, r.Reasoning,
			r.RequestBytes, r.ResponseBytes, r.Seq, int32(r.HTTPStatus), int32(r.Attempts), firstByte, milliseconds(r.Duration), r.Stream, r.Estimated, //nolint:gosec // bounded
			[16]byte(r.Exchange), [16]byte(writer), r.Model, r.UpstreamModel, string(r.Operation), string(r.Status),
		}, nil
	})
	n, err := tx.CopyFrom(ctx, pgx.Identifier{"weir", "usage"}, usageColumns(), source)
	if err == nil && n != int64(len(rows)) {
		err = fmt.Errorf("postgres took %d", n)
	}
	return err
}

func milliseconds(d time.Duration) int32 {
	return int32(min(max(d.Milliseconds(), 0), math.MaxInt32)) //nolint:gosec // bounded
}
