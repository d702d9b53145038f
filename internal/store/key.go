// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/policy"
)

// NewKey describes a key to make.
type NewKey struct {
	Tenant  string // ref; empty means the default tenant
	Name    string // empty means "key-" and the id
	Models  []string
	Expires time.Time
	Secret  Secret // empty means a new one of 256 random bits
}

// KeyFilter selects keys. Zero fields do not restrict.
type KeyFilter struct {
	Tenant  string // ref
	AfterID policy.KeyID
	Limit   int
}

// KeyChange says what to change of a key; nil leaves a field as it is.
type KeyChange struct {
	Name     *string
	Models   *[]string // an empty list allows every model
	Disabled *bool
	Expires  *time.Time // the zero time means never
}

const (
	secretPrefix   = "sk-weir-"
	secretAlphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	secretLen      = 43 // of 62 letters: 62^43 > 2^256
)

// newSecret returns a secret that carries 256 random bits.
func newSecret() Secret {
	const fair = 256 - 256%len(secretAlphabet) // larger bytes would favour the first letters
	b := make([]byte, 0, len(secretPrefix)+secretLen)
	b = append(b, secretPrefix...)
	var random [64]byte
	for len(b) < cap(b) {
		rand.Read(random[:]) // never fails: see crypto/rand
		for _, c := range random {
			if int(c) < fair && len(b) < cap(b) {
				b = append(b, secretAlphabet[int(c)%len(secretAlphabet)])
			}
		}
	}
	return Secret(b)
}

// hint returns what may be shown of a secret: four random letters of at least 24, or next to nothing of a short one.
func hint(s Secret) string {
	const ends, enough = 2, 24
	if len(s) < enough {
		return string(s[:ends]) + "…"
	}
	head := 0
	if i := strings.LastIndexByte(string(s[:12]), '-'); i >= 0 {
		head = i + 1
	}
	return string(s[:head+ends]) + "…" + string(s[len(s)-ends:])
}

const (
	keyColumns = `k.id, k.tenant_id, t.name, k.hash, k.hint, k.name, k.models, k.disabled, k.revoked is not null, k.expires, k.created`
	selectKey  = `select ` + keyColumns + ` from weir.key k join weir.tenant t on t.id = k.tenant_id `
)

func scanKey(row pgx.CollectableRow) (k Key, err error) {
	var hash []byte
	var expires *time.Time
	err = row.Scan(&k.ID, &k.Tenant, &k.TenantName, &hash, &k.Hint, &k.Name, &k.Models, &k.Disabled, &k.Revoked, &expires, &k.Created)
	if err != nil {
		return k, err
	}
	copy(k.Hash[:], hash)
	if len(k.Models) == 0 {
		k.Models = nil
	}
	if expires != nil {
		k.Expires = expires.UTC()
	}
	k.Created = k.Created.UTC()
	return k, nil
}

// CreateKey makes a key and returns it with its secret, which is kept nowhere and cannot be had again.
func (s *Store) CreateKey(ctx context.Context, n NewKey) (Key, Secret, error) {
	if n.Secret == "" {
		n.Secret = newSecret()
	}
	err := errors.Join(checkKeySecret(n.Secret), checkGlobs(n.Models), checkExpires(n.Expires, time.Now()))
	if n.Name != "" {
		err = errors.Join(err, checkName("key", n.Name))
	}
	if err != nil {
		return Key{}, "", err
	}
	var k Key
	err = s.change(ctx, func(tx pgx.Tx) error {
		t, err := findTenant(ctx, tx, cmp.Or(n.Tenant, DefaultTenant))
		if err != nil {
			return err
		}
		hash := policy.HashKey(n.Secret.Reveal())
		k, err = one(ctx, tx, scanKey, `
			with t as (select id, name from weir.tenant where id = $1),
			new as (select nextval(pg_get_serial_sequence('weir.key', 'id')) as id),
			k as (
				insert into weir.key (id, tenant_id, hash, hint, name, models, expires)
				select id, $1, $2, $3, case $4::text when '' then 'key-' || id else $4 end, $5, $6 from new
				returning *
			)
			select `+keyColumns+` from k, t`,
			t.ID, hash[:], hint(n.Secret), n.Name, list(n.Models), timeOrNull(n.Expires))
		return err
	})
	if err != nil {
		return Key{}, "", keyError("create", n.Name, err)
	}
	return k, n.Secret, nil
}

// Keys returns keys in the order of their ids, revoked ones too.
func (s *Store) Keys(ctx context.Context, f KeyFilter) ([]Key, error) {
	var tenant policy.TenantID
	if f.Tenant != "" {
		t, err := s.Tenant(ctx, f.Tenant)
		if err != nil {
			return nil, err
		}
		tenant = t.ID
	}
	if f.Limit < 0 {
		return nil, invalid("limit %d: it must not be negative", f.Limit)
	}
	keys, err := many(ctx, s.pool, scanKey,
		selectKey+`where k.id > $1 and ($2::bigint = 0 or k.tenant_id = $2) order by k.id limit nullif($3::bigint, 0)`, f.AfterID, tenant, f.Limit)
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	return keys, nil
}

// Key returns the key that ref names: an id, a name, or "tenant/name". Among keys of one name, those that are not revoked go
// first, then the newest.
func (s *Store) Key(ctx context.Context, ref string) (Key, error) { return findKey(ctx, s.pool, ref) }

func findKey(ctx context.Context, q querier, ref string) (Key, error) {
	id, name, err := parseRef("key", ref)
	if err != nil {
		return Key{}, err
	}
	tenant, short, qualified := strings.Cut(name, "/")
	if qualified {
		name = short
	} else {
		tenant = ""
	}
	keys, err := many(ctx, q, scanKey, selectKey+`where k.id = $1 or k.name = $2 and ($3 = '' or t.name = $3)
		order by k.revoked is not null, k.id desc limit 2`, id, name, tenant)
	switch {
	case err != nil:
		return Key{}, fmt.Errorf("find key %q: %w", ref, err)
	case len(keys) == 0:
		return Key{}, notFound("key", ref)
	case len(keys) == 2 && !keys[1].Revoked:
		return Key{}, invalid("key %q: several tenants have one of this name: say %s/%s or %s/%s", ref,
			keys[0].TenantName, name, keys[1].TenantName, name)
	}
	return keys[0], nil
}

// SetKey changes a key.
func (s *Store) SetKey(ctx context.Context, ref string, c KeyChange) (Key, error) {
	var k Key
	err := s.change(ctx, func(tx pgx.Tx) (err error) {
		if k, err = findKey(ctx, tx, ref); err != nil {
			return err
		}
		if c.Name != nil {
			err = checkName("key", *c.Name)
		}
		if c.Models != nil {
			err = errors.Join(err, checkGlobs(*c.Models))
		}
		if c.Expires != nil {
			err = errors.Join(err, checkExpires(*c.Expires, time.Now()))
		}
		if err != nil {
			return err
		}
		set(&k.Name, c.Name)
		set(&k.Models, c.Models)
		set(&k.Disabled, c.Disabled)
		set(&k.Expires, c.Expires)
		_, err = tx.Exec(ctx, `update weir.key set name = $2, models = $3, disabled = $4, expires = $5 where id = $1`,
			k.ID, k.Name, list(k.Models), k.Disabled, timeOrNull(k.Expires))
		if err != nil {
			return err
		}
		k, err = one(ctx, tx, scanKey, selectKey+`where k.id = $1`, k.ID)
		return err
	})
	if err != nil {
		return Key{}, keyError("change", cmp.Or(k.Name, ref), err)
	}
	return k, nil
}

// RevokeKey ends a key for good. Revoking it again changes nothing.
func (s *Store) RevokeKey(ctx context.Context, ref string) (Key, error) {
	var k Key
	err := s.change(ctx, func(tx pgx.Tx) (err error) {
		if k, err = findKey(ctx, tx, ref); err != nil || k.Revoked {
			return err
		}
		k.Revoked = true
		_, err = tx.Exec(ctx, `update weir.key set revoked = now() where id = $1`, k.ID)
		return err
	})
	if err != nil {
		return Key{}, keyError("revoke", ref, err)
	}
	return k, nil
}

func keyError(verb, name string, err error) error {
	switch {
	case violates(err, "key_name"):
		return fmt.Errorf("key %q: %w", name, ErrExists)
	case violates(err, "key_hash"):
		return fmt.Errorf("key with this secret: %w (perhaps revoked)", ErrExists)
	case own(err):
		return err
	}
	return fmt.Errorf("%s key %q: %w", verb, name, err)
}

// list makes an empty list of none, which Postgres would take for null.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func timeOrNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
