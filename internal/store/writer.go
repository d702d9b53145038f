// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/usage"
)

// minWriterAge is how long the position of a log is kept at least after it last moved.
const minWriterAge = 30 * 24 * time.Hour

// oldRecord is the age from which on the position of a record's log may be forgotten; a day's difference between clocks is allowed for.
const oldRecord = minWriterAge - 24*time.Hour

// Position returns how far the log of a writer has been posted, in bytes; 0 for a writer that is not known.
func (s *Store) Position(ctx context.Context, writer uuid.UUID) (int64, error) {
	var seq int64
	err := s.pool.QueryRow(ctx, `select seq from weir.writer where id = $1`, writer).Scan(&seq)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("read position of %s: %w", writer, err)
	}
	return seq, nil
}

// PruneWriters forgets the positions of logs that have not moved for so long, at least 30 days, and returns how many there were. A log
// whose position is forgotten is posted from its beginning if it comes back; rows that are still in weir.usage are then not written a
// second time (see [Store.Post]), but rows that retention has dropped would be. So olderThan must be longer than any log is kept.
func (s *Store) PruneWriters(ctx context.Context, olderThan time.Duration) (pruned int, err error) {
	if olderThan < minWriterAge {
		return 0, invalid("age %s of positions to forget: at least %s", olderThan, minWriterAge)
	}
	tag, err := s.pool.Exec(ctx, `delete from weir.writer where updated < now() - $1::interval`, olderThan)
	if err != nil {
		return 0, fmt.Errorf("forget positions: %w", err)
	}
	return int(tag.RowsAffected()), nil
}

// dropPosted leaves out old records that have a row already: their log's position was forgotten, and they are read for a second time.
func (s *Store) dropPosted(ctx context.Context, tx pgx.Tx, rows []*usage.Record) ([]*usage.Record, error) {
	limit := time.Now().Add(-oldRecord)
	var old, left []*usage.Record
	for i := range rows {
		if rows[i].Time.Before(limit) {
			old = append(old, rows[i])
		}
	}
	if len(old) == 0 {
		return rows, nil
	}
	fresh, err := without(ctx, tx, old, ` and u.status <> 'unresolved'`) // an unresolved row is to be replaced
	if err != nil || len(fresh) == len(old) {
		return rows, err
	}
	s.log.LogAttrs(ctx, slog.LevelWarn, "an old log is read again: its rows are there already", slog.Int("rows", len(old)-len(fresh)))
	for i := range rows {
		if !rows[i].Time.Before(limit) {
			left = append(left, rows[i])
		}
	}
	return append(fresh, left...), nil
}
