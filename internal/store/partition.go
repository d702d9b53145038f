// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// partitionDays is how many days after today have a partition ahead of time.
const partitionDays = 8

// EnsurePartitions makes the partitions of weir.usage for the UTC day of now and the eight days after it. Call it at least once
// a day; Migrate does too. Rows of a day that has no partition are not lost: they are in weir.usage_default, and move into the
// partition when it is made.
func (s *Store) EnsurePartitions(ctx context.Context, now time.Time) error {
	today := now.UTC().Truncate(24 * time.Hour)
	for d := range partitionDays + 1 {
		if err := s.ensurePartition(ctx, today.AddDate(0, 0, d)); err != nil {
			return fmt.Errorf("make partition of %s: %w", today.AddDate(0, 0, d).Format(time.DateOnly), err)
		}
	}
	return nil
}

func (s *Store) ensurePartition(ctx context.Context, day time.Time) error {
	name := "usage_" + day.Format("20060102")
	exists := func(q querier) (yes bool, err error) {
		// Not to_regclass: that may answer from the session's cache, which does not hear of others' work within a transaction.
		err = q.QueryRow(ctx, `select exists (select from pg_tables where schemaname = 'weir' and tablename = $1)`, name).Scan(&yes)
		return yes, err
	}
	if yes, err := exists(s.pool); yes || err != nil {
		return err
	}
	// DDL takes no parameters; the name and the bounds are made of digits.
	from, until := day.Format(time.RFC3339), day.AddDate(0, 0, 1).Format(time.RFC3339)
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock($1)`, int64(lockPartitions)); err != nil {
			return err
		}
		if yes, err := exists(tx); yes || err != nil {
			return err
		}
		// The lock on the default partition is held from the first: rows that were posted between the move and the attachment
		// would make the attachment fail.
		for _, sql := range []string{
			`lock table weir.usage in share update exclusive mode`,
			`lock table weir.usage_default in access exclusive mode`,
			`create table weir.` + name + ` (like weir.usage including defaults including constraints)`,
			`with moved as (delete from weir.usage_default where ts >= '` + from + `' and ts < '` + until + `' returning *)
				insert into weir.` + name + ` select * from moved`,
			`alter table weir.usage attach partition weir.` + name + ` for values from ('` + from + `') to ('` + until + `')`,
		} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	})
}
