// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Configuration reads everything the data plane runs on, in one snapshot of the database.
func (s *Store) Configuration(ctx context.Context) (Configuration, error) {
	var c Configuration
	o := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err := pgx.BeginTxFunc(ctx, s.pool, o, func(tx pgx.Tx) (err error) {
		if c.Revision, err = revision(ctx, tx); err != nil {
			return err
		}
		var errs [6]error
		c.Tenants, errs[0] = tenants(ctx, tx)
		c.Keys, errs[1] = many(ctx, tx, scanKey, selectKey+`order by k.id`)
		c.Channels, errs[2] = s.channels(ctx, tx)
		c.Attachments, errs[3] = attachments(ctx, tx)
		c.Limits, errs[4] = rateLimits(ctx, tx)
		c.Prices, errs[5] = pricesInForce(ctx, tx)
		return errors.Join(errs[:]...)
	})
	if err != nil {
		return Configuration{}, fmt.Errorf("read configuration: %w", err)
	}
	return c, nil
}

func revision(ctx context.Context, q querier) (n int64, err error) {
	err = q.QueryRow(ctx, `select n from weir.revision`).Scan(&n)
	return n, err
}
