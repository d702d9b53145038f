// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/policy/limit"
)

var _ limit.Board = (*Store)(nil)

// Meet implements [limit.Board]. Replicas take turns by the lock of one row, which each holds for some milliseconds.
func (s *Store) Meet(ctx context.Context, replica uuid.UUID, decide func(*limit.State) *limit.Notice) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		state, err := readBoard(ctx, tx)
		if err != nil {
			return fmt.Errorf("read board of limits: %w", err)
		}
		if err := writeBoard(ctx, tx, replica, decide(state)); err != nil {
			return fmt.Errorf("write board of limits: %w", err)
		}
		return nil
	})
}

// seconds is an age as Postgres tells it; the clock of a server may have been set back.
func seconds(s float64) time.Duration { return time.Duration(max(0, s) * float64(time.Second)) }

func readBoard(ctx context.Context, tx pgx.Tx) (*limit.State, error) {
	var batch pgx.Batch // the lock is held for one round trip less each
	// Who falls silent with the lock must not hold up the others until it is missed.
	batch.Queue(`set local idle_in_transaction_session_timeout = '3s'`)
	state := &limit.State{}
	batch.Queue(`update weir.limit_board set met = clock_timestamp(),
		since = case when clock_timestamp() - met > make_interval(secs => $1) then clock_timestamp() else since end
		returning extract(epoch from met - since)::float8`, limit.Lease.Seconds()).QueryRow(func(row pgx.Row) error {
		var awake float64
		err := row.Scan(&awake)
		state.Awake = seconds(awake)
		return err
	})
	batch.Queue(`select replica, part, extract(epoch from clock_timestamp() - heard)::float8 from weir.limit_member`).Query(func(rows pgx.Rows) (err error) {
		state.Members, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (m limit.Member, err error) {
			var age float64
			err = row.Scan(&m.Replica, &m.Part, &age)
			m.Age = seconds(age)
			return m, err
		})
		return err
	})
	batch.Queue(`select replica, limit_id, subject, share, want, requests, input, output, tokens, extract(epoch from clock_timestamp() - at)::float8
		from weir.limit_claim`).Query(func(rows pgx.Rows) (err error) {
		state.Claims, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (c limit.Claim, err error) {
			var age float64
			err = row.Scan(&c.Replica, &c.Limit, &c.Subject, &c.Share, &c.Want, &c.Level[0], &c.Level[1], &c.Level[2], &c.Level[3], &age)
			c.Age = seconds(age)
			return c, err
		})
		return err
	})
	batch.Queue(`select limit_id, subject, requests, input, output, tokens, extract(epoch from clock_timestamp() - at)::float8 from weir.limit_pot`).Query(func(rows pgx.Rows) (err error) {
		state.Pots, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (p limit.Pot, err error) {
			var age float64
			err = row.Scan(&p.Limit, &p.Subject, &p.Tokens[0], &p.Tokens[1], &p.Tokens[2], &p.Tokens[3], &age)
			p.Age = seconds(age)
			return p, err
		})
		return err
	})
	return state, tx.SendBatch(ctx, &batch).Close()
}

// boardColumns are rows turned on their side, as unnest takes them.
type boardColumns struct {
	limits, subjects []int64
	shares, wants    []float64
	levels           [4][]float64
}

func (c *boardColumns) add(b limit.Bucket, levels [4]float64) {
	c.limits, c.subjects = append(c.limits, int64(b.Limit)), append(c.subjects, b.Subject)
	for i, v := range levels {
		c.levels[i] = append(c.levels[i], v)
	}
}

func writeBoard(ctx context.Context, tx pgx.Tx, replica uuid.UUID, n *limit.Notice) error {
	var claims, pots boardColumns
	for _, c := range n.Claims {
		claims.add(c.Bucket, c.Level)
		claims.shares, claims.wants = append(claims.shares, c.Share), append(claims.wants, c.Want)
	}
	for _, p := range n.Pots {
		pots.add(p.Bucket, p.Tokens)
	}
	b := &pgx.Batch{}
	b.Queue(`insert into weir.limit_member values ($1, $2, clock_timestamp())
		on conflict (replica) do update set part = excluded.part, heard = excluded.heard`, replica, n.Part)
	b.Queue(`delete from weir.limit_claim c where replica = $1 and not exists
		(select from unnest($2::bigint[], $3::bigint[]) as k (l, s) where k.l = c.limit_id and k.s = c.subject)`, replica, claims.limits, claims.subjects)
	if len(n.Claims) > 0 {
		b.Queue(`insert into weir.limit_claim select $1, *, clock_timestamp() from
			unnest($2::bigint[], $3::bigint[], $4::float8[], $5::float8[], $6::float8[], $7::float8[], $8::float8[], $9::float8[])
			on conflict (replica, limit_id, subject) do update set share = excluded.share, want = excluded.want, requests = excluded.requests,
			input = excluded.input, output = excluded.output, tokens = excluded.tokens, at = excluded.at`,
			replica, claims.limits, claims.subjects, claims.shares, claims.wants, claims.levels[0], claims.levels[1], claims.levels[2], claims.levels[3])
	}
	if len(n.Pots) > 0 {
		b.Queue(`insert into weir.limit_pot select *, clock_timestamp() from
			unnest($1::bigint[], $2::bigint[], $3::float8[], $4::float8[], $5::float8[], $6::float8[])
			on conflict (limit_id, subject) do update set requests = excluded.requests, input = excluded.input, output = excluded.output,
			tokens = excluded.tokens, at = excluded.at`,
			pots.limits, pots.subjects, pots.levels[0], pots.levels[1], pots.levels[2], pots.levels[3])
	}
	b.Queue(`delete from weir.limit_pot where at < clock_timestamp() - make_interval(secs => $1)`, 2*limit.Lease.Seconds())
	if len(n.Gone) > 0 {
		b.Queue(`delete from weir.limit_member where replica = any ($1)`, n.Gone)
	}
	return tx.SendBatch(ctx, b).Close()
}
