// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Keys of the advisory locks that keep processors from doing the same thing at once; the numbers spell "weir".
const (
	lockMigrate    = 0x77656972_00000001
	lockPartitions = 0x77656972_00000002
)

// migrationTable is where goose notes which migrations have run.
const migrationTable = "weir.migration"

// OldestPostgres is the oldest major version of Postgres that the schema is meant for.
const OldestPostgres = 14

// Migrate brings the schema up to date and makes the partitions of the next days. Any number of processors may call it at once:
// one does the work, the others wait for it. Migrations go forward only; a database of a later Weir is left alone and refused. A server
// older than [OldestPostgres] is an error that wraps [ErrTooOld].
func (s *Store) Migrate(ctx context.Context) error {
	config := s.pool.Config().ConnConfig
	config.RuntimeParams["statement_timeout"] = "0" // waiting for the lock, and index builds, take as long as they take
	config.RuntimeParams["lock_timeout"] = "0"
	config.RuntimeParams["idle_in_transaction_session_timeout"] = "0"
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing hangs on it
	if err := checkServer(conn); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	// The lock is one of a transaction, not of a session, so that it holds behind a pooler too. Goose's own transactions run
	// on other connections.
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock($1)`, int64(lockMigrate)); err != nil {
			return fmt.Errorf("take lock: %w", err)
		}
		return s.migrate(ctx, config)
	})
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if err := s.stampKeys(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return s.EnsurePartitions(ctx, time.Now())
}

func (s *Store) migrate(ctx context.Context, config *pgx.ConnConfig) error {
	db := stdlib.OpenDB(*config)
	defer db.Close() //nolint:errcheck // nothing hangs on it
	if _, err := db.ExecContext(ctx, `create schema if not exists weir`); err != nil {
		return fmt.Errorf("create schema: %w", err)
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithTableName(migrationTable),
		goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	version, err := provider.GetDBVersion(ctx)
	if err != nil && !errors.Is(err, database.ErrVersionNotFound) {
		return fmt.Errorf("read schema version: %w", err)
	}
	sources := provider.ListSources()
	if newest := sources[len(sources)-1].Version; version > newest {
		return fmt.Errorf("%w: the database has schema version %d, this program knows versions up to %d: run a newer weir", ErrInvalid, version, newest)
	}
	done, err := provider.Up(ctx)
	if len(done) > 0 {
		var took time.Duration
		for _, m := range done {
			took += m.Duration
		}
		s.log.LogAttrs(ctx, slog.LevelInfo, "migrated the database",
			slog.Int64("from", version), slog.Int64("to", done[len(done)-1].Source.Version), slog.Duration("took", took))
	}
	return err
}

// checkServer refuses a server that is too old for the schema before a migration fails half way. What a pooler says in its place is believed; what cannot be read,
// such as the version of something that only speaks Postgres' protocol, is tried.
func checkServer(conn *pgx.Conn) error {
	said := conn.PgConn().ParameterStatus("server_version")
	digits := strings.IndexFunc(said, func(r rune) bool { return r < '0' || r > '9' })
	if digits < 0 {
		digits = len(said)
	}
	if major, err := strconv.Atoi(said[:digits]); err == nil && major < OldestPostgres {
		return fmt.Errorf("the server is Postgres %s, which is %w: Weir needs %d or later", said, ErrTooOld, OldestPostgres)
	}
	return nil
}
