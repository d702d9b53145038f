// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/policy"
)

// Reseal encrypts the credentials of channels that one of [Options.FormerKeys] decrypts with [Options.SecretKey], and returns how many these were. Without former keys
// it asks nothing. Those that no key decrypts are left as they are: whoever reads them is told.
func (s *Store) Reseal(ctx context.Context) (n int, err error) {
	if s.cipher == nil || len(s.cipher.former) == 0 {
		return 0, nil
	}
	err = s.change(ctx, func(tx pgx.Tx) error {
		stale, err := s.staleCredentials(ctx, tx)
		if err != nil {
			return err
		}
		for id, credential := range stale {
			sealed, err := s.cipher.seal(id, credential)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, `update weir.channel set credential = $2 where id = $1`, id, sealed); err != nil {
				return fmt.Errorf("write credential: %w", err)
			}
		}
		n = len(stale)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("encrypt credentials anew: %w", err)
	}
	return n, nil
}

// staleCredentials are those that a former key decrypts.
func (s *Store) staleCredentials(ctx context.Context, tx pgx.Tx) (map[policy.ChannelID]Secret, error) {
	rows, err := tx.Query(ctx, `select id, credential from weir.channel`)
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	stale := map[policy.ChannelID]Secret{}
	var id policy.ChannelID
	var sealed []byte
	_, err = pgx.ForEachRow(rows, []any{&id, &sealed}, func() error {
		if credential, former, err := s.cipher.openAny(id, sealed); err == nil && former {
			stale[id] = credential
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	return stale, nil
}
