// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/policy"
)

// NewKey describes a key to make.
type NewKey struct {
	Tenant   string // ref; empty means the default tenant
	Name     string // empty means "key-" and the id
	Models   []string
	Groups   []string // of channels; none means those of the tenant
	Networks []string // of clients, as in "10.0.0.0/8" or "192.0.2.7"; none means any
	Tags     map[string]string
	Metadata map[string]string
	Expires  time.Time
	Pinnable bool
	Secret   Secret // empty means a new one of 256 random bits

	// Hash, if it is not zero, is that of a secret that only its holder knows, and Hint what may be shown of it.
	Hash policy.KeyHash
	Hint string

	Budget *BudgetChange
	Limits *RatesChange // for all models
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
	Groups   *[]string
	Networks *[]string
	Tags     *map[string]string
	Metadata *map[string]string
	Pinnable *bool
	Disabled *bool
	Expires  *time.Time // the zero time means never

	// Hash puts another secret, which exists, in the place of this one, at once; Hint is what may be shown of it.
	Hash   *policy.KeyHash
	Hint   *string
	Budget *BudgetChange
	Limits *RatesChange // for all models
}

const (
	keyColumns = `k.id, k.tenant_id, t.name, k.hash, k.hint, k.name, k.models, k.groups, k.networks, k.tags, k.metadata, k.disabled, k.pinnable,
		k.revoked is not null, k.expires, k.previous_hash, k.previous_until, k.created`
	selectKey = `select ` + keyColumns + ` from weir.key k join weir.tenant t on t.id = k.tenant_id `
)

func scanKey(row pgx.CollectableRow) (k Key, err error) {
	var hash, previous []byte
	var tags map[string]string
	var expires, until *time.Time
	err = row.Scan(&k.ID, &k.Tenant, &k.TenantName, &hash, &k.Hint, &k.Name, &k.Models, &k.Groups, &k.Networks, &tags, &k.Metadata, &k.Disabled,
		&k.Pinnable, &k.Revoked, &expires, &previous, &until, &k.Created)
	if err != nil {
		return k, err
	}
	copy(k.Hash[:], hash)
	copy(k.Previous[:], previous)
	k.Models, k.Groups, k.Networks = noneIfEmpty(k.Models), noneIfEmpty(k.Groups), noneIfEmpty(k.Networks)
	k.Tags = tagList(tags)
	if len(k.Metadata) == 0 {
		k.Metadata = nil
	}
	k.Expires, k.PreviousUntil = timeOf(expires), timeOf(until)
	k.Created = k.Created.UTC()
	return k, nil
}

func noneIfEmpty[T any](list []T) []T {
	if len(list) == 0 {
		return nil
	}
	return list
}

// tagList returns tags by name.
func tagList(m map[string]string) []policy.Tag {
	var tags []policy.Tag
	for _, name := range slices.Sorted(maps.Keys(m)) {
		tags = append(tags, policy.Tag{Name: name, Value: m[name]})
	}
	return tags
}

// CreateKey makes a key, with what it is held to in the same transaction, and returns it with its secret, which is kept nowhere and cannot be had again; it is empty for a key that was given by its hash.
func (s *Store) CreateKey(ctx context.Context, n NewKey) (Key, Secret, error) {
	var networks []netip.Prefix
	err := n.prepare(time.Now(), &networks)
	if err != nil {
		return Key{}, "", err
	}
	var k Key
	err = s.changeKeys(ctx, func(tx pgx.Tx) error {
		t, err := findTenant(ctx, tx, cmp.Or(n.Tenant, DefaultTenant))
		if err != nil {
			return err
		}
		if err := unusedHash(ctx, tx, n.Hash); err != nil {
			return err
		}
		k, err = one(ctx, tx, scanKey, `
			with t as (select id, name from weir.tenant where id = $1),
			new as (select nextval(pg_get_serial_sequence('weir.key', 'id')) as id),
			k as (
				insert into weir.key (id, tenant_id, hash, hint, name, models, expires, groups, networks, tags, metadata, pinnable)
				select id, $1, $2, $3, case $4::text when '' then 'key-' || id else $4 end, $5, $6, $7, $8, $9, $10, $11 from new
				returning *
			)
			select `+keyColumns+` from k, t`,
			t.ID, n.Hash[:], n.Hint, n.Name, list(n.Models), timeOrNull(n.Expires), list(n.Groups), list(networks), texts(n.Tags), texts(n.Metadata), n.Pinnable)
		if err != nil {
			return err
		}
		return setTerms(ctx, tx, owner{k.Tenant, k.ID}, n.Budget, n.Limits)
	})
	if err != nil {
		return Key{}, "", keyError("create", n.Name, err)
	}
	return k, n.Secret, nil
}

// prepare checks what an operator has said of a key, and makes its secret unless it has one.
func (n *NewKey) prepare(now time.Time, networks *[]netip.Prefix) (err error) {
	if *networks, err = parseNetworks(n.Networks); err != nil {
		return err
	}
	err = errors.Join(checkGlobs(n.Models), checkGroups("key", n.Groups), checkTags(n.Tags), checkMetadata(n.Metadata), checkExpires(n.Expires, now))
	if n.Name != "" {
		err = errors.Join(err, checkName("key", n.Name))
	}
	if n.Hash != (policy.KeyHash{}) {
		if n.Secret != "" {
			err = errors.Join(err, invalid("key: it has a secret and a hash; give one of them"))
		}
		return errors.Join(err, checkHint(n.Hint))
	}
	if n.Secret == "" {
		n.Secret = newSecret()
	}
	if err = errors.Join(err, checkKeySecret(n.Secret)); err == nil {
		n.Hash, n.Hint = policy.HashKey(n.Secret.Reveal()), hint(n.Secret)
	}
	return err
}

// unusedHash returns an error if a secret still works as the one before of some key.
func unusedHash(ctx context.Context, q querier, h policy.KeyHash) error {
	var used bool
	err := q.QueryRow(ctx, `select exists (select from weir.key where previous_hash = $1 and previous_until > now())`, h[:]).Scan(&used)
	if err == nil && used {
		err = fmt.Errorf("key with this secret: %w: a key that was rotated has it for a while yet", ErrExists)
	}
	return err
}

// lockKey finds a key and keeps others from changing it until the transaction ends.
func lockKey(ctx context.Context, tx pgx.Tx, ref string) (Key, error) {
	k, err := findKey(ctx, tx, ref)
	if err != nil {
		return Key{}, err
	}
	return one(ctx, tx, scanKey, selectKey+`where k.id = $1 for update of k`, k.ID)
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
	err := s.changeKeys(ctx, func(tx pgx.Tx) (err error) {
		if k, err = lockKey(ctx, tx, ref); err != nil {
			return err
		}
		if err := c.apply(&k, time.Now()); err != nil {
			return err
		}
		if c.Hash != nil {
			if err := unusedHash(ctx, tx, k.Hash); err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, `update weir.key set name = $2, models = $3, disabled = $4, expires = $5, groups = $6, networks = $7, tags = $8,
			metadata = $9, pinnable = $10, hash = $11, hint = $12 where id = $1`, k.ID, k.Name, list(k.Models), k.Disabled, timeOrNull(k.Expires), list(k.Groups), list(k.Networks),
			tagTexts(k.Tags), texts(k.Metadata), k.Pinnable, k.Hash[:], k.Hint)
		if err != nil {
			return err
		}
		if err := setTerms(ctx, tx, owner{k.Tenant, k.ID}, c.Budget, c.Limits); err != nil {
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

// apply checks the change and makes it in a key.
func (c *KeyChange) apply(k *Key, now time.Time) (err error) {
	if c.Name != nil {
		err = checkName("key", *c.Name)
	}
	if c.Models != nil {
		err = errors.Join(err, checkGlobs(*c.Models))
	}
	if c.Groups != nil {
		err = errors.Join(err, checkGroups("key", *c.Groups))
	}
	if c.Networks != nil {
		networks, bad := parseNetworks(*c.Networks)
		k.Networks, err = networks, errors.Join(err, bad)
	}
	if c.Tags != nil {
		k.Tags, err = tagList(*c.Tags), errors.Join(err, checkTags(*c.Tags))
	}
	if c.Metadata != nil {
		err = errors.Join(err, checkMetadata(*c.Metadata))
	}
	if c.Expires != nil {
		err = errors.Join(err, checkExpires(*c.Expires, now))
	}
	if c.Hash != nil || c.Hint != nil {
		var hint string
		set(&hint, c.Hint)
		err = errors.Join(err, checkHint(hint))
	}
	set(&k.Hash, c.Hash)
	set(&k.Hint, c.Hint)
	set(&k.Name, c.Name)
	set(&k.Models, c.Models)
	set(&k.Groups, c.Groups)
	set(&k.Metadata, c.Metadata)
	set(&k.Pinnable, c.Pinnable)
	set(&k.Disabled, c.Disabled)
	set(&k.Expires, c.Expires)
	return err
}

// RevokeKey ends a key for good. Revoking it again changes nothing.
func (s *Store) RevokeKey(ctx context.Context, ref string) (Key, error) {
	var k Key
	err := s.changeKeys(ctx, func(tx pgx.Tx) (err error) {
		if k, err = lockKey(ctx, tx, ref); err != nil || k.Revoked {
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
	case hasState(err, stateForeignKey):
		return fmt.Errorf("tenant of key %q: %w: it has just been deleted", name, ErrNotFound)
	case own(err):
		return err
	}
	return fmt.Errorf("%s key %q: %w", verb, name, err)
}

// list makes an empty list of none, which Postgres would take for null.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// texts makes an empty object of none.
func texts(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

func tagTexts(tags []policy.Tag) map[string]string {
	m := make(map[string]string, len(tags))
	for _, t := range tags {
		m[t.Name] = t.Value
	}
	return m
}

func timeOrNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
