// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/policy"
)

// NewAttachment says where a plugin is to judge exchanges: with neither Tenant nor Key, all of them.
type NewAttachment struct {
	Plugin  string // ref
	Version string // as [Plugin.Version] takes it
	Tenant  string // ref
	Key     string // ref; its tenant follows from it
	PluginSettings
}

// AttachmentChange says what to change of an attachment; nil leaves a field as it is.
type AttachmentChange struct {
	Version  *string // as [Plugin.Version] takes it
	Place    *int
	Mode     *PluginMode
	Config   *string
	Grants   *[]string
	Headers  *[]string
	Body     *bool
	Limits   *PluginLimits
	Disabled *bool

	Upstreams   *[]PluginUpstream
	RequestOnly *bool
}

// Apply makes the change in settings.
func (c *AttachmentChange) Apply(s *PluginSettings) {
	set(&s.Place, c.Place)
	set(&s.Mode, c.Mode)
	set(&s.Config, c.Config)
	set(&s.Grants, c.Grants)
	set(&s.Headers, c.Headers)
	set(&s.Body, c.Body)
	set(&s.Limits, c.Limits)
	set(&s.Disabled, c.Disabled)
	set(&s.Upstreams, c.Upstreams)
	set(&s.RequestOnly, c.RequestOnly)
}

const selectAttachment = `select a.id, a.plugin_id, p.name, a.digest, coalesce(a.tenant_id, 0), coalesce(t.name, ''), coalesce(a.key_id, 0),
	coalesce(k.name, ''), a.place, a.mode, a.config, a.grants, a.headers, a.body, coalesce(a.fuel, 0), coalesce(a.memory_bytes, 0),
	coalesce(a.time_ms, 0), a.disabled, a.upstreams, a.request_only, a.created, a.swapped, a.previous, coalesce(a.previous_config, ''), a.rolled_back,
	coalesce(a.rolled_back_why, ''), a.rolled_back_of
	from weir.attachment a join weir.plugin p on p.id = a.plugin_id left join weir.tenant t on t.id = a.tenant_id
	left join weir.key k on k.id = a.key_id `

func scanAttachment(row pgx.CollectableRow) (a Attachment, err error) {
	var digest, previous, left []byte
	var ms int64
	var rolledBack *time.Time
	err = row.Scan(&a.ID, &a.PluginID, &a.Plugin, &digest, &a.Tenant, &a.TenantName, &a.Key, &a.KeyName, &a.Place, &a.Mode, &a.Config, &a.Grants,
		&a.Headers, &a.Body, &a.Limits.Fuel, &a.Limits.MemoryBytes, &ms, &a.Disabled, &a.Upstreams, &a.RequestOnly, &a.Created, &a.Swapped, &previous,
		&a.PreviousConfig, &rolledBack, &a.RolledBackWhy, &left)
	copy(a.Digest[:], digest)
	copy(a.Previous[:], previous)
	copy(a.RolledBackOf[:], left)
	a.Limits.Time = time.Duration(ms) * time.Millisecond
	a.Created, a.Swapped, a.RolledBack = a.Created.UTC(), a.Swapped.UTC(), timeOf(rolledBack)
	return a, err
}

// Attach attaches a version of a plugin. Who attaches it has seen that it loads with these settings.
func (s *Store) Attach(ctx context.Context, n NewAttachment) (Attachment, error) {
	if err := checkSettings(&n.PluginSettings); err != nil {
		return Attachment{}, err
	}
	var a Attachment
	err := s.change(ctx, func(tx pgx.Tx) error {
		p, err := findPlugin(ctx, tx, n.Plugin)
		if err != nil {
			return err
		}
		v, err := p.Version(n.Version)
		if err != nil {
			return err
		}
		tenant, key, err := scopeOf(ctx, tx, n.Tenant, n.Key)
		if err != nil {
			return err
		}
		if !p.owns(tenant) {
			return invalid("attachment: the plugin %s belongs to the tenant %s, and may be attached to that and its keys alone", p.Name, p.TenantName)
		}
		var id int64
		err = tx.QueryRow(ctx, `insert into weir.attachment (plugin_id, digest, tenant_id, key_id, place, mode, config, grants, headers, body,
			fuel, memory_bytes, time_ms, disabled, upstreams, request_only) values ($1, $2, nullif($3::bigint, 0), nullif($4::bigint, 0),
			$5, $6, $7, $8, $9, $10, nullif($11::bigint, 0), nullif($12::bigint, 0), nullif($13::bigint, 0), $14, $15, $16) returning id`,
			int64(p.ID), v.Digest[:], int64(tenant), int64(key), n.Place, string(n.Mode), n.Config, n.Grants, n.Headers, n.Body,
			n.Limits.Fuel, n.Limits.MemoryBytes, n.Limits.Time.Milliseconds(), n.Disabled, n.Upstreams, n.RequestOnly).Scan(&id)
		if err != nil {
			return err
		}
		a, err = findAttachment(ctx, tx, AttachmentID(id))
		return err
	})
	if err != nil {
		return Attachment{}, attachmentError("attach plugin "+n.Plugin, err)
	}
	return a, nil
}

// scopeOf finds the tenant and the key whose exchanges are meant; zero stands for all.
func scopeOf(ctx context.Context, q querier, tenantRef, keyRef string) (policy.TenantID, policy.KeyID, error) {
	var t Tenant
	var k Key
	var err error
	if tenantRef != "" {
		if t, err = findTenant(ctx, q, tenantRef); err != nil {
			return 0, 0, err
		}
	}
	if keyRef == "" {
		return t.ID, 0, nil
	}
	if k, err = findKey(ctx, q, keyRef); err != nil {
		return 0, 0, err
	}
	if tenantRef != "" && k.Tenant != t.ID {
		return 0, 0, invalid("scope: the key %s belongs to the tenant %s, not to %s", k.Name, k.TenantName, t.Name)
	}
	if k.Revoked {
		return 0, 0, invalid("scope: the key %s is revoked", k.Name)
	}
	return k.Tenant, k.ID, nil
}

// Attachments returns all attachments, oldest first.
func (s *Store) Attachments(ctx context.Context) ([]Attachment, error) {
	all, err := attachments(ctx, s.pool)
	if err != nil {
		return nil, fmt.Errorf("list attachments: %w", err)
	}
	return all, nil
}

func attachments(ctx context.Context, q querier) ([]Attachment, error) {
	return many(ctx, q, scanAttachment, selectAttachment+`order by a.id`)
}

// Attachment returns one attachment.
func (s *Store) Attachment(ctx context.Context, id AttachmentID) (Attachment, error) {
	return findAttachment(ctx, s.pool, id)
}

func findAttachment(ctx context.Context, q querier, id AttachmentID) (Attachment, error) {
	a, err := one(ctx, q, scanAttachment, selectAttachment+`where a.id = $1`, int64(id))
	if errors.Is(err, pgx.ErrNoRows) {
		return a, notFound("attachment", strconv.FormatInt(int64(id), 10))
	}
	if err != nil {
		return a, fmt.Errorf("find attachment %d: %w", id, err)
	}
	return a, nil
}

// SetAttachment changes an attachment. Another version becomes the one in force, and what was in force before, with its configuration, is kept as
// the way back.
func (s *Store) SetAttachment(ctx context.Context, id AttachmentID, c AttachmentChange) (Attachment, error) {
	var a Attachment
	err := s.change(ctx, func(tx pgx.Tx) (err error) {
		if a, err = findAttachment(ctx, tx, id); err != nil {
			return err
		}
		digest, config := a.Digest, a.Config
		if c.Version != nil {
			p, err := findPlugin(ctx, tx, a.Plugin)
			if err != nil {
				return err
			}
			v, err := p.Version(*c.Version)
			if err != nil {
				return err
			}
			a.Digest = v.Digest
		}
		c.Apply(&a.PluginSettings)
		if err := checkSettings(&a.PluginSettings); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `update weir.attachment set place = $2, mode = $3, config = $4, grants = $5, headers = $6, body = $7,
			fuel = nullif($8::bigint, 0), memory_bytes = nullif($9::bigint, 0), time_ms = nullif($10::bigint, 0), disabled = $11,
			upstreams = $12, request_only = $13 where id = $1`,
			int64(id), a.Place, string(a.Mode), a.Config, a.Grants, a.Headers, a.Body, a.Limits.Fuel, a.Limits.MemoryBytes,
			a.Limits.Time.Milliseconds(), a.Disabled, a.Upstreams, a.RequestOnly)
		if err != nil {
			return err
		}
		if a.Digest != digest {
			_, err = tx.Exec(ctx, `update weir.attachment set digest = $2, swapped = now(), previous = $3, previous_config = $4,
				rolled_back = null, rolled_back_why = null, rolled_back_of = null where id = $1`, int64(id), a.Digest[:], digest[:], config)
			if err != nil {
				return err
			}
		}
		a, err = findAttachment(ctx, tx, id)
		return err
	})
	if err != nil {
		return Attachment{}, attachmentError(fmt.Sprintf("change attachment %d", id), err)
	}
	return a, nil
}

// Detach deletes an attachment.
func (s *Store) Detach(ctx context.Context, id AttachmentID) error {
	err := s.change(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `delete from weir.attachment where id = $1`, int64(id))
		if err == nil && tag.RowsAffected() == 0 {
			return notFound("attachment", strconv.FormatInt(int64(id), 10))
		}
		return err
	})
	return attachmentError(fmt.Sprintf("detach %d", id), err)
}

// RollBack says which way back to take.
type RollBack struct {
	Attachment AttachmentID
	From       Digest        // the version that must be in force; zero: any
	Within     time.Duration // the version must have been put in force no longer ago; zero: any time
	Why        string        // for people
}

// RollBack puts the previous version of an attachment in force, with the configuration that it had. Of several processors that want the same one does it; done
// tells whether it was this call. It returns an error wrapping [ErrInvalid] if From and Within are zero and there is no way back.
func (s *Store) RollBack(ctx context.Context, r RollBack) (a Attachment, done bool, err error) {
	err = s.change(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `update weir.attachment set digest = previous, config = previous_config, swapped = now(), previous = null,
			previous_config = null, rolled_back = now(), rolled_back_why = $4, rolled_back_of = digest
			where id = $1 and previous is not null and ($2::bytea is null or digest = $2) and ($3::float8 = 0 or swapped > now() - make_interval(secs => $3))`,
			int64(r.Attachment), digestOrNull(r.From), r.Within.Seconds(), clip(r.Why, maxWhy))
		if err != nil {
			return err
		}
		done = tag.RowsAffected() > 0
		if a, err = findAttachment(ctx, tx, r.Attachment); err != nil {
			return err
		}
		if !done && r.From == (Digest{}) && r.Within == 0 {
			return invalid("roll-back: attachment %d has no version before the one in force", r.Attachment)
		}
		return nil
	})
	if err != nil {
		return Attachment{}, false, attachmentError(fmt.Sprintf("roll back attachment %d", r.Attachment), err)
	}
	return a, done, nil
}

func digestOrNull(d Digest) []byte {
	if d == (Digest{}) {
		return nil
	}
	return d[:]
}

func attachmentError(doing string, err error) error {
	if err == nil || own(err) {
		return err
	}
	return fmt.Errorf("%s: %w", doing, err)
}
