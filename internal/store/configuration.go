// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// oneSnapshot is for reads that must fit together.
func oneSnapshot() pgx.TxOptions {
	return pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
}

// Configuration reads what the data plane runs on, but for keys and terms, in one snapshot of the database.
func (s *Store) Configuration(ctx context.Context) (Configuration, error) {
	var c Configuration
	err := pgx.BeginTxFunc(ctx, s.pool, oneSnapshot(), func(tx pgx.Tx) (err error) {
		if c.Revision, err = revision(ctx, tx); err != nil {
			return err
		}
		var errs [4]error
		c.Tenants, errs[0] = tenants(ctx, tx)
		c.Channels, errs[1] = s.channels(ctx, tx)
		c.Attachments, errs[2] = attachments(ctx, tx)
		c.Prices, errs[3] = pricesInForce(ctx, tx)
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
