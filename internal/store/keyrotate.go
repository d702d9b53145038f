// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/policy"
)

// MaxOverlap bounds how long the secret before works after a rotation.
const MaxOverlap = 366 * 24 * time.Hour

// maxImport is how many keys one call imports.
const maxImport = 1000

// RotateKey gives a key a new secret. The one that it has works for the overlap yet, which may be zero; one from an earlier rotation ends now. The new
// secret is kept nowhere and cannot be had again.
func (s *Store) RotateKey(ctx context.Context, ref string, overlap time.Duration) (Key, Secret, error) {
	if overlap < 0 || overlap > MaxOverlap {
		return Key{}, "", invalid("overlap %s: it must be 0s to %s", overlap, MaxOverlap)
	}
	secret := newSecret()
	hash := policy.HashKey(secret.Reveal())
	var k Key
	err := s.changeKeys(ctx, func(tx pgx.Tx) (err error) {
		if k, err = lockKey(ctx, tx, ref); err != nil {
			return err
		}
		if k.Revoked {
			return invalid("key %q: it is revoked, which is final; make another", k.Name)
		}
		_, err = tx.Exec(ctx, `update weir.key set hash = $2, hint = $3, previous_hash = case when $4::bigint > 0 then hash end,
			previous_until = case when $4::bigint > 0 then now() + $4::bigint * interval '1 microsecond' end where id = $1`,
			k.ID, hash[:], hint(secret), overlap.Microseconds())
		if err != nil {
			return err
		}
		k, err = one(ctx, tx, scanKey, selectKey+`where k.id = $1`, k.ID)
		return err
	})
	if err != nil {
		return Key{}, "", keyError("rotate", cmp.Or(k.Name, ref), err)
	}
	return k, secret, nil
}

// ImportedKey is a key from elsewhere, known by its hash.
type ImportedKey struct {
	Hash policy.KeyHash
	Hint string
	Name string // empty means "key-" and the id
}

// ImportKeys makes keys that have secrets already, at most 1000 at a time, all or none. What all of them have in common is in like; its Name, Secret and Hash are not
// used. Keys whose secret is known already are left as they are, and counted.
func (s *Store) ImportKeys(ctx context.Context, like NewKey, keys []ImportedKey) (made, known int, err error) {
	if len(keys) > maxImport {
		return 0, 0, invalid("import: %d keys at once, at most %d", len(keys), maxImport)
	}
	networks, err := parseNetworks(like.Networks)
	if err != nil {
		return 0, 0, err
	}
	for i, k := range keys {
		n := like
		n.Name, n.Secret, n.Hash, n.Hint = k.Name, "", k.Hash, k.Hint
		if k.Hash == (policy.KeyHash{}) {
			return 0, 0, invalid("import: key %d has no hash", i+1)
		}
		if err := n.prepare(time.Now(), &networks); err != nil {
			return 0, 0, fmt.Errorf("key %d: %w", i+1, err)
		}
	}
	err = s.changeKeys(ctx, func(tx pgx.Tx) error {
		t, err := findTenant(ctx, tx, cmp.Or(like.Tenant, DefaultTenant))
		if err != nil {
			return err
		}
		var batch pgx.Batch
		for _, k := range keys {
			batch.Queue(`with new as (select nextval(pg_get_serial_sequence('weir.key', 'id')) as id)
				insert into weir.key (id, tenant_id, hash, hint, name, models, expires, groups, networks, tags, metadata, pinnable)
				select id, $1, $2, $3, case $4::text when '' then 'key-' || id else $4 end, $5, $6, $7, $8, $9, $10, $11 from new
				where not exists (select from weir.key where hash = $2 or previous_hash = $2)
				on conflict (hash) do nothing`,
				t.ID, k.Hash[:], k.Hint, k.Name, list(like.Models), timeOrNull(like.Expires), list(like.Groups), list(networks), texts(like.Tags),
				texts(like.Metadata), like.Pinnable)
		}
		results := tx.SendBatch(ctx, &batch)
		for _, k := range keys {
			tag, err := results.Exec()
			if err != nil {
				_ = results.Close()
				return keyError("import", k.Name, err)
			}
			made += int(tag.RowsAffected())
		}
		return results.Close()
	})
	if err != nil {
		if !own(err) {
			err = fmt.Errorf("import keys: %w", err)
		}
		return 0, 0, err
	}
	return made, len(keys) - made, nil
}
