// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/policy"
)

// NewChannel describes a channel to make.
type NewChannel struct {
	Name       string
	Provider   string // one of [Providers]
	BaseURL    string // as SDKs take it: with the version, as in "https://api.openai.com/v1"
	Credential Secret // empty for an upstream that asks for none
	Models     []policy.Model
	Priority   int            // higher goes first
	Weight     int            // zero means 1
	Tenant     string         // ref; empty means that every tenant may use it
	Partial    policy.Partial // empty means policy.BillEstimate
	Groups     []string       // that it belongs to
}

// ChannelChange says what to change of a channel; nil leaves a field as it is.
type ChannelChange struct {
	Name       *string
	Provider   *string
	BaseURL    *string
	Credential *Secret
	Models     *[]policy.Model
	Priority   *int
	Weight     *int
	Tenant     *string // ref; empty means that every tenant may use it
	Disabled   *bool
	Partial    *policy.Partial
	Groups     *[]string
}

const selectChannel = `select c.id, c.name, c.provider, c.base_url, c.credential, c.priority, c.weight, coalesce(c.tenant_id, 0),
	coalesce(t.name, ''), c.disabled, c.bill_partial, c.groups, c.created,
	array(select m.name from weir.channel_model m where m.channel_id = c.id order by m.position),
	array(select m.upstream from weir.channel_model m where m.channel_id = c.id order by m.position)
	from weir.channel c left join weir.tenant t on t.id = c.tenant_id `

// scanChannel returns an error wrapping [ErrSecretKey] besides a channel that is whole but for its credential.
func (s *Store) scanChannel(row pgx.CollectableRow) (c Channel, err error) {
	var sealed []byte
	var names, upstreams []string
	err = row.Scan(&c.ID, &c.Name, &c.Provider, &c.BaseURL, &sealed, &c.Priority, &c.Weight, &c.Tenant, &c.TenantName, &c.Disabled,
		&c.Partial, &c.Groups, &c.Created, &names, &upstreams)
	if err != nil {
		return c, err
	}
	c.Created, c.Groups = c.Created.UTC(), noneIfEmpty(c.Groups)
	for i, name := range names {
		c.Models = append(c.Models, policy.Model{Name: name, Upstream: upstreams[i]})
	}
	if c.Credential, err = s.cipher.open(c.ID, sealed); err != nil {
		return c, fmt.Errorf("channel %q: %w", c.Name, err)
	}
	return c, nil
}

// CreateChannel makes a channel.
func (s *Store) CreateChannel(ctx context.Context, n NewChannel) (Channel, error) {
	c := Channel{
		Channel:  policy.Channel{Name: n.Name, Models: n.Models, Priority: n.Priority, Weight: cmp.Or(n.Weight, defaultWeight), Partial: cmp.Or(n.Partial, policy.BillEstimate), Groups: n.Groups},
		Provider: n.Provider, BaseURL: n.BaseURL, Credential: n.Credential,
	}
	if err := checkChannel(&c); err != nil {
		return Channel{}, err
	}
	err := s.change(ctx, func(tx pgx.Tx) (err error) {
		if err := setChannelTenant(ctx, tx, &c, n.Tenant); err != nil {
			return err
		}
		// The id comes first: the credential is bound to it.
		err = tx.QueryRow(ctx, `select nextval(pg_get_serial_sequence('weir.channel', 'id'))`).Scan(&c.ID)
		if err != nil {
			return err
		}
		sealed, err := s.cipher.seal(c.ID, c.Credential)
		if err != nil {
			return fmt.Errorf("channel %q: %w", c.Name, err)
		}
		_, err = tx.Exec(ctx, `insert into weir.channel (id, name, provider, base_url, credential, priority, weight, tenant_id, bill_partial, groups)
			values ($1, $2, $3, $4, $5, $6, $7, nullif($8::bigint, 0), $9, $10)`,
			c.ID, c.Name, c.Provider, c.BaseURL, sealed, c.Priority, c.Weight, c.Tenant, c.Partial, list(c.Groups))
		if err != nil {
			return err
		}
		if err := insertModels(ctx, tx, c.ID, c.Models); err != nil {
			return err
		}
		c, err = one(ctx, tx, s.scanChannel, selectChannel+`where c.id = $1`, c.ID)
		return err
	})
	if err != nil {
		return Channel{}, channelError("create", n.Name, err)
	}
	return c, nil
}

// checkChannel checks what an operator has said of a channel and brings its base URL into its usual form.
func checkChannel(c *Channel) (err error) {
	base, err := checkBaseURL(c.BaseURL)
	err = errors.Join(checkName("channel", c.Name), checkProvider(c.Provider), err, checkCredential(c.Credential), checkModels(c.Models),
		checkPlace(c.Priority, c.Weight), checkPartial(c.Partial), checkGroups("channel", c.Groups))
	c.BaseURL = base
	return err
}

func setChannelTenant(ctx context.Context, tx pgx.Tx, c *Channel, ref string) error {
	c.Tenant = 0
	if ref == "" {
		return nil
	}
	t, err := findTenant(ctx, tx, ref)
	c.Tenant = t.ID
	return err
}

func insertModels(ctx context.Context, tx pgx.Tx, id policy.ChannelID, models []policy.Model) error {
	names, upstreams := make([]string, len(models)), make([]string, len(models))
	for i, m := range models {
		names[i], upstreams[i] = m.Name, m.Upstream
	}
	_, err := tx.Exec(ctx, `insert into weir.channel_model (channel_id, position, name, upstream)
		select $1, position, name, upstream from unnest($2::text[], $3::text[]) with ordinality as m (name, upstream, position)
		on conflict (channel_id, name) do update set position = excluded.position, upstream = excluded.upstream
		where (channel_model.position, channel_model.upstream) <> (excluded.position, excluded.upstream)`,
		id, names, upstreams)
	return err
}

// Channels returns all channels, oldest first.
func (s *Store) Channels(ctx context.Context) ([]Channel, error) {
	channels, err := s.channels(ctx, s.pool)
	if err != nil {
		return nil, channelError("list", "*", err)
	}
	return channels, nil
}

func (s *Store) channels(ctx context.Context, q querier) ([]Channel, error) {
	return many(ctx, q, s.scanChannel, selectChannel+`order by c.id`)
}

// Channel returns the channel that ref names.
func (s *Store) Channel(ctx context.Context, ref string) (Channel, error) {
	return s.findChannel(ctx, s.pool, ref)
}

func (s *Store) findChannel(ctx context.Context, q querier, ref string) (Channel, error) {
	id, name, err := parseRef("channel", ref)
	if err != nil {
		return Channel{}, err
	}
	c, err := one(ctx, q, s.scanChannel, selectChannel+`where c.id = $1 or c.name = $2`, id, name)
	if errors.Is(err, pgx.ErrNoRows) {
		return Channel{}, notFound("channel", ref)
	}
	return c, channelError("find", ref, err)
}

// SetChannel changes a channel. A channel whose credential cannot be read any more can be mended by giving it a new one.
func (s *Store) SetChannel(ctx context.Context, ref string, ch ChannelChange) (Channel, error) {
	var c Channel
	err := s.change(ctx, func(tx pgx.Tx) (err error) {
		c, err = s.findChannel(ctx, tx, ref)
		if err != nil && (ch.Credential == nil || !errors.Is(err, ErrSecretKey)) {
			return err
		}
		set(&c.Name, ch.Name)
		set(&c.Provider, ch.Provider)
		set(&c.BaseURL, ch.BaseURL)
		set(&c.Credential, ch.Credential)
		set(&c.Models, ch.Models)
		set(&c.Priority, ch.Priority)
		set(&c.Weight, ch.Weight)
		set(&c.Disabled, ch.Disabled)
		set(&c.Partial, ch.Partial)
		set(&c.Groups, ch.Groups)
		if err := checkChannel(&c); err != nil {
			return err
		}
		if ch.Tenant != nil {
			if err := setChannelTenant(ctx, tx, &c, *ch.Tenant); err != nil {
				return err
			}
		}
		if err := s.updateChannel(ctx, tx, &c, ch.Credential != nil); err != nil {
			return err
		}
		if ch.Models != nil {
			if err := setModels(ctx, tx, c.ID, c.Models); err != nil {
				return err
			}
		}
		c, err = one(ctx, tx, s.scanChannel, selectChannel+`where c.id = $1`, c.ID)
		return err
	})
	if err != nil {
		return Channel{}, channelError("change", cmp.Or(c.Name, ref), err)
	}
	return c, nil
}

// updateChannel writes a channel, its credential only if that is another: sealed again it would look as if it were.
func (s *Store) updateChannel(ctx context.Context, tx pgx.Tx, c *Channel, credential bool) error {
	var sealed []byte // null
	if credential {
		var err error
		if sealed, err = s.cipher.seal(c.ID, c.Credential); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, `update weir.channel set name = $2, provider = $3, base_url = $4, credential = coalesce($5, credential), priority = $6,
		weight = $7, tenant_id = nullif($8::bigint, 0), disabled = $9, bill_partial = $10, groups = $11 where id = $1`,
		c.ID, c.Name, c.Provider, c.BaseURL, sealed, c.Priority, c.Weight, c.Tenant, c.Disabled, c.Partial, list(c.Groups))
	return err
}

// setModels makes models those that a channel serves. What stays is not touched.
func setModels(ctx context.Context, tx pgx.Tx, id policy.ChannelID, models []policy.Model) error {
	names := make([]string, len(models))
	for i, m := range models {
		names[i] = m.Name
	}
	if _, err := tx.Exec(ctx, `delete from weir.channel_model where channel_id = $1 and name <> all ($2)`, id, names); err != nil {
		return err
	}
	return insertModels(ctx, tx, id, models)
}

// DeleteChannel deletes a channel. Rows of usage that name it stay. It works without the right secret key, so that a channel
// whose credential cannot be read any more can be got rid of.
func (s *Store) DeleteChannel(ctx context.Context, ref string) error {
	id, name, err := parseRef("channel", ref)
	if err != nil {
		return err
	}
	err = s.change(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `delete from weir.channel where id = $1 or name = $2`, id, name)
		if err == nil && tag.RowsAffected() == 0 {
			return notFound("channel", ref)
		}
		return err
	})
	return channelError("delete", ref, err)
}

func channelError(verb, name string, err error) error {
	switch {
	case err == nil:
		return nil
	case violates(err, "channel_name"):
		return fmt.Errorf("channel %q: %w", name, ErrExists)
	case own(err):
		return err
	}
	return fmt.Errorf("%s channel %q: %w", verb, name, err)
}
