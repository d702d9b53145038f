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

// partitionLayout is how a partition is named after its UTC day.
const partitionLayout = "usage_20060102"

func partitionName(day time.Time) string { return day.UTC().Format(partitionLayout) }

func tableExists(ctx context.Context, q querier, name string) (yes bool, err error) {
	// Not to_regclass: that may answer from the session's cache, which does not hear of others' work within a transaction.
	err = q.QueryRow(ctx, `select exists (select from pg_tables where schemaname = 'weir' and tablename = $1)`, name).Scan(&yes)
	return yes, err
}

// EnsurePartitions makes the partitions of weir.usage for the UTC day of now and the eight days after it. Call it at least once
// a day; Migrate does too. Rows of a day that has no partition are not lost: they are in weir.usage_default, and move into the
// partition when it is made.
func (s *Store) EnsurePartitions(ctx context.Context, now time.Time) error {
	if err := s.ensureDefault(ctx); err != nil {
		return err
	}
	today := now.UTC().Truncate(24 * time.Hour)
	for d := range partitionDays + 1 {
		if err := s.ensurePartition(ctx, today.AddDate(0, 0, d)); err != nil {
			return fmt.Errorf("make partition of %s: %w", today.AddDate(0, 0, d).Format(time.DateOnly), err)
		}
	}
	return nil
}

// ensureDefault makes the partition for the rows of every other day, should somebody have removed it.
func (s *Store) ensureDefault(ctx context.Context) error {
	var yes bool
	err := s.pool.QueryRow(ctx, `select exists (select from pg_inherits where inhparent = 'weir.usage'::regclass
		and inhrelid = (select partdefid from pg_partitioned_table where partrelid = 'weir.usage'::regclass))`).Scan(&yes)
	if err == nil && !yes {
		_, err = s.pool.Exec(ctx, `create table if not exists weir.usage_default partition of weir.usage default`)
	}
	if err != nil {
		return fmt.Errorf("make default partition: %w", err)
	}
	return nil
}

func (s *Store) ensurePartition(ctx context.Context, day time.Time) error {
	name := partitionName(day)
	if yes, err := tableExists(ctx, s.pool, name); yes || err != nil {
		return err
	}
	// DDL takes no parameters; the name and the bounds are made of digits.
	from, until := day.Format(time.RFC3339), day.AddDate(0, 0, 1).Format(time.RFC3339)
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock($1)`, int64(lockPartitions)); err != nil {
			return err
		}
		if yes, err := tableExists(ctx, tx, name); yes || err != nil {
			return err
		}
		// The lock on the default partition is held from the first: rows that were posted between the move and the attachment
		// would make the attachment fail.
		for _, sql := range []string{
			`set local statement_timeout = 0`, // a day's rows may have to move, and must not fail to for ever
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

// Retain deletes the rows of the UTC days that ended so long ago or longer, as [Store.DropPartitions] does. By now, or by the clock of
// Postgres if that says less: what is gone is gone, and a clock that was set wrong must not take everything with it.
func (s *Store) Retain(ctx context.Context, now time.Time, keep time.Duration) (dropped int, err error) {
	var theirs time.Time
	if err := s.pool.QueryRow(ctx, `select now()`).Scan(&theirs); err != nil {
		return 0, fmt.Errorf("ask postgres for the time: %w", err)
	}
	if theirs.Before(now) {
		now = theirs
	}
	return s.DropPartitions(ctx, now.Add(-keep))
}

// dropLockTimeout bounds how long those who write wait behind a partition to be dropped, which waits for those who read.
const dropLockTimeout = `2s`

// DropPartitions deletes the rows of the UTC days that end at or before the time before: a day at once with its partition, and what is in
// the default partition row by row. The hourly sums and the balances stay. It returns how many days it dropped, also with an error; then
// somebody was reading them, and it can be called again.
//
// Exchanges of these days that are unresolved stay so.
func (s *Store) DropPartitions(ctx context.Context, before time.Time) (dropped int, err error) {
	end := before.UTC().Truncate(24 * time.Hour)
	names, err := many(ctx, s.pool, pgx.RowTo[string], `select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid
		where i.inhparent = 'weir.usage'::regclass and c.relname ~ '^usage_[0-9]{8}$' and c.relname < $1 order by 1`, partitionName(end))
	if err != nil {
		return 0, fmt.Errorf("list partitions: %w", err)
	}
	for _, name := range names {
		day, err := time.Parse(partitionLayout, name)
		if err != nil {
			continue // somebody's own table, as of the 99th month
		}
		gone, err := s.dropPartition(ctx, name, day)
		if err != nil {
			return dropped, fmt.Errorf("drop partition %s: %w", name, err)
		}
		if gone {
			dropped++
		}
	}
	if err := s.dropUnplaced(ctx, end); err != nil {
		return dropped, fmt.Errorf("delete old rows of the default partition: %w", err)
	}
	return dropped, nil
}

func (s *Store) dropPartition(ctx context.Context, name string, day time.Time) (gone bool, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock($1)`, int64(lockPartitions)); err != nil {
			return err
		}
		if gone, err = tableExists(ctx, tx, name); !gone || err != nil {
			return err
		}
		// First the entries, then the partition: the order in which Post locks them.
		if _, err := tx.Exec(ctx, `delete from weir.unresolved where ts >= $1 and ts < $2`, day, day.AddDate(0, 0, 1)); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `set local lock_timeout = '`+dropLockTimeout+`'`); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `drop table weir.`+name)
		return err
	})
	return gone && err == nil, err
}

// dropUnplaced deletes the rows of the default partition that are older than end, not too many at a time.
func (s *Store) dropUnplaced(ctx context.Context, end time.Time) error {
	if _, err := s.pool.Exec(ctx, `delete from weir.unresolved where ts < $1`, end); err != nil {
		return err
	}
	for {
		tag, err := s.pool.Exec(ctx, `delete from weir.usage_default where ctid = any (array(select ctid from weir.usage_default where ts < $1 limit $2))`, end, 10_000)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
	}
}
