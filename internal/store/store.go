// SPDX-License-Identifier: Apache-2.0

// Package store keeps Weir's tenants, keys, channels and usage in Postgres (schema weir).
//
// The configuration is small and changes seldom: every change runs under one row lock, which gives the changes an order and each
// state a revision. Processors follow it with [Store.Watch]. Usage is large and only grows: [Store.Post] writes a batch of rows,
// their sums and the position in the log they came from in one transaction, so that each row is counted exactly once.
//
// # References
//
// A ref names a tenant, key or channel by its decimal id or by its name. Names are unique, except that two tenants may each have
// a key of one name; "tenant/name" then tells the keys apart.
//
// # Errors
//
// Errors wrap [ErrNotFound], [ErrExists], [ErrInUse], [ErrInvalid], [usage.ErrFenced] or [ErrSecretKey] where these fit; any other
// error is the database's.
package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	connectTimeout = 5 * time.Second
	defaultConns   = 8
	maxConns       = 1000
)

// Options are what [Open] needs besides the address of the database.
type Options struct {
	// SecretKey, of 32 bytes, encrypts the credentials of channels. Without one, channels can be neither read nor written.
	SecretKey []byte
	// FormerKeys are other keys that credentials may be encrypted with; see [Store.Reseal].
	FormerKeys [][]byte
	// Logger gets changes of the store's state; nil means [slog.Default].
	Logger *slog.Logger
	// MaxConns bounds the connections of the pool; zero means 8. Watch and Migrate use one or two more for themselves.
	MaxConns int
	// OnDeadLetter hears how many records went to weir.dead_letter, after each transaction that put some there. It is called from
	// Post and Resolve and must return quickly. May be nil.
	OnDeadLetter func(n int)
}

// Store is a Postgres database with Weir's schema. It is safe for concurrent use.
type Store struct {
	pool   *pgxpool.Pool
	log    *slog.Logger
	cipher *credentialCipher // nil without a secret key

	onDeadLetter func(n int) // may be nil
}

// Open returns a store for the database at dsn, a URL or keyword string as libpq takes it. It does not connect: a database that
// is down shows in [Store.Ping] and in every other call.
func Open(ctx context.Context, dsn string, o Options) (*Store, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("%w database address: %w", ErrInvalid, err) // pgx leaves the password out of the error
	}
	if o.MaxConns < 0 || o.MaxConns > maxConns {
		return nil, fmt.Errorf("%w number of connections %d: at most %d", ErrInvalid, o.MaxConns, maxConns)
	}
	config.MaxConns = int32(cmp.Or(o.MaxConns, defaultConns)) //nolint:gosec // bounded above
	config.MaxConnIdleTime = 5 * time.Minute
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = connectTimeout
	}
	// What the address says itself wins; behind a pooler that refuses a parameter, "statement_timeout=0" and so on cannot help,
	// but the pooler's ignore_startup_parameters does.
	for name, value := range map[string]string{
		"application_name":                    "weir",
		"timezone":                            "UTC", // hours and days are grouped in UTC
		"statement_timeout":                   "30s",
		"lock_timeout":                        "10s",
		"idle_in_transaction_session_timeout": "60s",
	} {
		if _, set := config.ConnConfig.RuntimeParams[name]; !set {
			config.ConnConfig.RuntimeParams[name] = value
		}
	}
	s := &Store{log: o.Logger, onDeadLetter: o.OnDeadLetter}
	if s.log == nil {
		s.log = slog.Default()
	}
	if len(o.SecretKey) > 0 {
		if s.cipher, err = newCredentialCipher(o.SecretKey, o.FormerKeys...); err != nil {
			return nil, err
		}
	}
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	return s, nil
}

// Close closes every connection; it waits for calls under way to end.
func (s *Store) Close() { s.pool.Close() }

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.pool.Ping(ctx); err != nil {
		return fmt.Errorf("ping database: %w", err)
	}
	return nil
}

// querier is what queries run on: the pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// change runs fn in a transaction that is alone in changing the configuration: it holds the lock of the revision from the
// beginning, so that what fn checks stays true until it commits, and no two changes deadlock.
func (s *Store) change(ctx context.Context, fn func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `select `+setActor+` from weir.revision for update`, actorOf(ctx), addressOf(ctx)); err != nil {
			return fmt.Errorf("lock configuration: %w", err)
		}
		return fn(tx)
	})
}

// changeKeys runs fn in a transaction that changes keys. Those that change different keys need not wait for each other: each key is followed by itself.
func (s *Store) changeKeys(ctx context.Context, fn func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `select `+setActor, actorOf(ctx), addressOf(ctx)); err != nil {
			return fmt.Errorf("say who changes keys: %w", err)
		}
		return fn(tx)
	})
}

// SQLSTATEs: https://www.postgresql.org/docs/current/errcodes-appendix.html.
const (
	stateUniqueViolation = "23505"
	stateForeignKey      = "23503"
	stateCheckViolation  = "23514" // a row that no partition takes, too
	stateLimitExceeded   = "54000" // a value that is too long for an index
	stateBadCopy         = "22P04" // COPY was not in its format
	stateRaised          = "P0001" // raised by a trigger
)

// hasState reports whether err is Postgres refusing something with this SQLSTATE.
func hasState(err error, state string) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == state
}

// violates reports whether err is Postgres refusing a duplicate under the named unique constraint or index.
func violates(err error, constraint string) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == stateUniqueViolation && e.ConstraintName == constraint
}
