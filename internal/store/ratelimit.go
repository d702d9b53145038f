// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/policy/limit"
)

// RateLimit is a row of weir.rate_limit.
type RateLimit struct {
	limit.Limit
	TenantName, KeyName string // empty: of all
	Created             time.Time
}

// LimitScope says whose limit is meant. There is at most one of each scope.
type LimitScope struct {
	Tenant  string // ref; empty: of all tenants, unless there is a key
	Key     string // ref; empty: of all keys
	EachKey bool   // every key has it for itself; not with Key
	Model   string // * for any characters; empty means *
}

// RatesChange says what to change of a limit: nil leaves a rate as it is, zero lifts it.
type RatesChange struct {
	Requests, Input, Output, Total, Concurrent *int64
	Burst                                      *time.Duration
}

// Apply makes the change in rates.
func (c *RatesChange) Apply(r *limit.Rates) {
	set(&r.Requests, c.Requests)
	set(&r.Input, c.Input)
	set(&r.Output, c.Output)
	set(&r.Total, c.Total)
	set(&r.Concurrent, c.Concurrent)
	set(&r.Burst, c.Burst)
}

const selectRateLimit = `select l.id, coalesce(l.tenant_id, 0), coalesce(t.name, ''), coalesce(l.key_id, 0), coalesce(k.name, ''), l.each_key, l.model,
	coalesce(l.requests, 0), coalesce(l.input_tokens, 0), coalesce(l.output_tokens, 0), coalesce(l.tokens, 0), coalesce(l.concurrency, 0),
	coalesce(l.burst_ms, 0), l.created
	from weir.rate_limit l left join weir.tenant t on t.id = l.tenant_id left join weir.key k on k.id = l.key_id `

func scanRateLimit(row pgx.CollectableRow) (l RateLimit, err error) {
	var burst int64
	err = row.Scan(&l.ID, &l.Tenant, &l.TenantName, &l.Key, &l.KeyName, &l.Each, &l.Model, &l.Requests, &l.Input, &l.Output, &l.Total, &l.Concurrent,
		&burst, &l.Created)
	l.Burst, l.Created = time.Duration(burst)*time.Millisecond, l.Created.UTC()
	return l, err
}

// RateLimits returns limits in the order of their ids: all, or those of a tenant, which are also those of its keys, or those of a key.
func (s *Store) RateLimits(ctx context.Context, tenantRef, keyRef string) ([]RateLimit, error) {
	tenant, key, err := scopeOf(ctx, s.pool, tenantRef, keyRef)
	if err != nil {
		return nil, err
	}
	all, err := many(ctx, s.pool, scanRateLimit, selectRateLimit+`where ($1::bigint = 0 or l.tenant_id = $1) and ($2::bigint = 0 or l.key_id = $2) order by l.id`,
		int64(tenant), int64(key))
	if err != nil {
		return nil, fmt.Errorf("list limits: %w", err)
	}
	return all, nil
}

// SetRateLimit makes or changes the limit of a scope. One that limits nothing any more is deleted, and the answer has no id.
func (s *Store) SetRateLimit(ctx context.Context, scope LimitScope, c RatesChange) (RateLimit, error) {
	scope.Model = cmp.Or(scope.Model, "*")
	if err := checkModelName("model of a limit", scope.Model); err != nil {
		return RateLimit{}, err
	}
	if scope.EachKey && scope.Key != "" {
		return RateLimit{}, invalid("limit: it is for one key or for each key, not both")
	}
	run := s.change // one at a time
	if scope.Key != "" {
		run = s.changeKeys // one at a time of that key
	}
	var l RateLimit
	err := run(ctx, func(tx pgx.Tx) error {
		tenant, key, err := scopeOf(ctx, tx, scope.Tenant, scope.Key)
		if err != nil {
			return err
		}
		if key != 0 {
			if _, err := lockKey(ctx, tx, strconv.FormatInt(int64(key), 10)); err != nil {
				return err
			}
		}
		l, err = setRates(ctx, tx, limit.Limit{Tenant: tenant, Key: key, Each: scope.EachKey, Model: scope.Model}, c)
		return err
	})
	if err != nil {
		return RateLimit{}, limitError("set", err)
	}
	return l, nil
}

// setRates makes or changes the limit of a scope, which nobody else changes meanwhile.
func setRates(ctx context.Context, tx pgx.Tx, scope limit.Limit, c RatesChange) (RateLimit, error) {
	l, err := one(ctx, tx, scanRateLimit, selectRateLimit+`where coalesce(l.tenant_id, 0) = $1 and coalesce(l.key_id, 0) = $2 and l.each_key = $3 and l.model = $4`,
		int64(scope.Tenant), int64(scope.Key), scope.Each, scope.Model)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return l, err
	}
	c.Apply(&l.Rates)
	if none := (limit.Rates{Burst: l.Burst}); l.ID != 0 && l.Rates == none {
		id := l.ID
		l.ID = 0
		_, err := tx.Exec(ctx, `delete from weir.rate_limit where id = $1`, int64(id))
		return l, err
	}
	if err := l.Check(); err != nil {
		return l, invalid("limit: %w", err)
	}
	l.Tenant, l.Key, l.Each, l.Model = scope.Tenant, scope.Key, scope.Each, scope.Model
	return putRateLimit(ctx, tx, &l)
}

// setOwnRates changes the rates of a key or a tenant, for all models; nil leaves them as they are.
func setOwnRates(ctx context.Context, tx pgx.Tx, o owner, c *RatesChange) error {
	if c == nil || *c == (RatesChange{}) {
		return nil
	}
	_, err := setRates(ctx, tx, limit.Limit{Tenant: o.tenant, Key: o.key, Model: "*"}, *c)
	return err
}

// putRateLimit writes a limit, a new one if it has no id.
func putRateLimit(ctx context.Context, tx pgx.Tx, l *RateLimit) (RateLimit, error) {
	id := int64(l.ID)
	if id == 0 {
		err := tx.QueryRow(ctx, `insert into weir.rate_limit (tenant_id, key_id, each_key, model, requests, input_tokens, output_tokens, tokens, concurrency, burst_ms)
			values (nullif($1::bigint, 0), nullif($2::bigint, 0), $3, $4, nullif($5::bigint, 0), nullif($6::bigint, 0), nullif($7::bigint, 0), nullif($8::bigint, 0),
			nullif($9::bigint, 0), nullif($10::bigint, 0)) returning id`,
			int64(l.Tenant), int64(l.Key), l.Each, l.Model, l.Requests, l.Input, l.Output, l.Total, l.Concurrent, l.Burst.Milliseconds()).Scan(&id)
		if err != nil {
			return RateLimit{}, err
		}
	} else if _, err := tx.Exec(ctx, `update weir.rate_limit set requests = nullif($2::bigint, 0), input_tokens = nullif($3::bigint, 0),
		output_tokens = nullif($4::bigint, 0), tokens = nullif($5::bigint, 0), concurrency = nullif($6::bigint, 0), burst_ms = nullif($7::bigint, 0) where id = $1`,
		id, l.Requests, l.Input, l.Output, l.Total, l.Concurrent, l.Burst.Milliseconds()); err != nil {
		return RateLimit{}, err
	}
	return one(ctx, tx, scanRateLimit, selectRateLimit+`where l.id = $1`, id)
}

// DeleteRateLimit deletes a limit.
func (s *Store) DeleteRateLimit(ctx context.Context, id limit.ID) error {
	err := s.changeKeys(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `delete from weir.rate_limit where id = $1`, int64(id))
		if err == nil && tag.RowsAffected() == 0 {
			return notFound("limit", fmt.Sprint(id))
		}
		return err
	})
	return limitError("delete", err)
}

func limitError(verb string, err error) error {
	if err == nil || own(err) {
		return err
	}
	return fmt.Errorf("%s limit: %w", verb, err)
}
