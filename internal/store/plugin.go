// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/policy"
)

// keptVersions is how many versions of a plugin are kept besides those that an attachment names.
const keptVersions = 20

// PushedModule is a version of a plugin to store. Who pushes it has checked it.
type PushedModule struct {
	Name   string // of the plugin; made if there is none
	Tenant string // ref of whose it is; empty means the operator's own, or whoever the plugin has already
	Wasm   []byte
	About  string
	Schema string
}

const selectPlugin = `select p.id, p.name, coalesce(p.tenant_id, 0), coalesce(t.name, ''), p.created,
	(select count(*) from weir.attachment a where a.plugin_id = p.id)
	from weir.plugin p left join weir.tenant t on t.id = p.tenant_id `

func scanPlugin(row pgx.CollectableRow) (p Plugin, err error) {
	err = row.Scan(&p.ID, &p.Name, &p.Tenant, &p.TenantName, &p.Created, &p.Attached)
	p.Created = p.Created.UTC()
	return p, err
}

// versionOf is a version with the plugin that it is of.
type versionOf struct {
	plugin PluginID
	PluginVersion
}

const selectVersion = `select plugin_id, digest, size, about, schema, pushed from weir.plugin_version `

func scanVersion(row pgx.CollectableRow) (v versionOf, err error) {
	var digest []byte
	err = row.Scan(&v.plugin, &digest, &v.Size, &v.About, &v.Schema, &v.Pushed)
	copy(v.Digest[:], digest)
	v.Pushed = v.Pushed.UTC()
	return v, err
}

// PushPlugin stores a module as the latest version of a plugin. A module that is there already becomes the latest again. Old versions that nothing
// is attached with are deleted when there are more than twenty.
func (s *Store) PushPlugin(ctx context.Context, m PushedModule) (Plugin, error) {
	if err := errors.Join(checkName("plugin", m.Name), checkModule(&m)); err != nil {
		return Plugin{}, err
	}
	var p Plugin
	err := s.change(ctx, func(tx pgx.Tx) (err error) {
		if p, err = ownPlugin(ctx, tx, m.Name, m.Tenant); err != nil {
			return err
		}
		digest := DigestOf(m.Wasm)
		_, err = tx.Exec(ctx, `insert into weir.plugin_version (plugin_id, digest, size, about, schema, wasm) values ($1, $2, $3, $4, $5, $6)
			on conflict (plugin_id, digest) do update set pushed = clock_timestamp()`,
			int64(p.ID), digest[:], len(m.Wasm), m.About, m.Schema, m.Wasm)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `delete from weir.plugin_version v where plugin_id = $1
			and digest not in (select digest from weir.plugin_version where plugin_id = $1 order by pushed desc limit $2)
			and not exists (select from weir.attachment a where a.plugin_id = $1 and v.digest in (a.digest, a.previous))`, int64(p.ID), keptVersions)
		if err != nil {
			return err
		}
		p, err = findPlugin(ctx, tx, m.Name)
		return err
	})
	if err != nil {
		return Plugin{}, pluginError("push", m.Name, err)
	}
	return p, nil
}

// ownPlugin finds the plugin of a name, or makes it.
func ownPlugin(ctx context.Context, tx pgx.Tx, name, tenant string) (Plugin, error) {
	var owner Tenant
	if tenant != "" {
		var err error
		if owner, err = findTenant(ctx, tx, tenant); err != nil {
			return Plugin{}, err
		}
	}
	p, err := one(ctx, tx, scanPlugin, selectPlugin+`where p.name = $1`, name)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		_, err = tx.Exec(ctx, `insert into weir.plugin (name, tenant_id) values ($1, nullif($2::bigint, 0))`, name, int64(owner.ID))
		if err != nil {
			return Plugin{}, err
		}
		return one(ctx, tx, scanPlugin, selectPlugin+`where p.name = $1`, name)
	case err == nil && tenant != "" && p.Tenant != owner.ID:
		return Plugin{}, fmt.Errorf("plugin %q: %w, and belongs to %s", name, ErrExists, ownerName(p.TenantName))
	}
	return p, err
}

func ownerName(tenant string) string {
	if tenant == "" {
		return "the operator"
	}
	return "the tenant " + tenant
}

// Plugins returns all plugins, oldest first.
func (s *Store) Plugins(ctx context.Context) ([]Plugin, error) {
	plugins, err := many(ctx, s.pool, scanPlugin, selectPlugin+`order by p.id`)
	if err != nil {
		return nil, fmt.Errorf("list plugins: %w", err)
	}
	versions, err := many(ctx, s.pool, scanVersion, selectVersion+`order by pushed desc`)
	if err != nil {
		return nil, fmt.Errorf("list versions of plugins: %w", err)
	}
	at := map[PluginID]int{}
	for i, p := range plugins {
		at[p.ID] = i
	}
	for _, v := range versions {
		if i, ok := at[v.plugin]; ok { // one that was made in between has none
			plugins[i].Versions = append(plugins[i].Versions, v.PluginVersion)
		}
	}
	return plugins, nil
}

// Plugin returns the plugin that ref names.
func (s *Store) Plugin(ctx context.Context, ref string) (Plugin, error) {
	return findPlugin(ctx, s.pool, ref)
}

func findPlugin(ctx context.Context, q querier, ref string) (Plugin, error) {
	id, name, err := parseRef("plugin", ref)
	if err != nil {
		return Plugin{}, err
	}
	p, err := one(ctx, q, scanPlugin, selectPlugin+`where p.id = $1 or p.name = $2`, id, name)
	if errors.Is(err, pgx.ErrNoRows) {
		return Plugin{}, notFound("plugin", ref)
	}
	if err != nil {
		return Plugin{}, fmt.Errorf("find plugin %q: %w", ref, err)
	}
	versions, err := many(ctx, q, scanVersion, selectVersion+`where plugin_id = $1 order by pushed desc`, int64(p.ID))
	if err != nil {
		return Plugin{}, fmt.Errorf("find versions of plugin %q: %w", ref, err)
	}
	for _, v := range versions {
		p.Versions = append(p.Versions, v.PluginVersion)
	}
	return p, nil
}

// DeletePlugin deletes a plugin with all its versions. It returns an error wrapping [ErrInUse] while it is attached.
func (s *Store) DeletePlugin(ctx context.Context, ref string) error {
	err := s.change(ctx, func(tx pgx.Tx) error {
		p, err := findPlugin(ctx, tx, ref)
		if err != nil {
			return err
		}
		if p.Attached > 0 {
			return fmt.Errorf("plugin %q: %w: it is attached %d times", p.Name, ErrInUse, p.Attached)
		}
		_, err = tx.Exec(ctx, `delete from weir.plugin where id = $1`, int64(p.ID))
		return err
	})
	return pluginError("delete", ref, err)
}

// Wasm returns the module of a digest, whichever plugin it belongs to.
func (s *Store) Wasm(ctx context.Context, d Digest) ([]byte, error) {
	wasm, err := one(ctx, s.pool, pgx.RowTo[[]byte], `select wasm from weir.plugin_version where digest = $1 limit 1`, d[:])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, notFound("plugin version", d.String())
	}
	if err != nil {
		return nil, fmt.Errorf("read plugin version %s: %w", d, err)
	}
	if DigestOf(wasm) != d {
		return nil, fmt.Errorf("read plugin version %s: its bytes have another digest: the table was tampered with, or is damaged", d)
	}
	return wasm, nil
}

func pluginError(verb, name string, err error) error {
	switch {
	case err == nil, own(err):
		return err
	case violates(err, "plugin_name"):
		return fmt.Errorf("plugin %q: %w", name, ErrExists)
	}
	return fmt.Errorf("%s plugin %q: %w", verb, name, err)
}

// timeOf is the zero time for null.
func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// owns reports whether a plugin may be attached to a tenant; zero stands for all of them.
func (p *Plugin) owns(tenant policy.TenantID) bool { return p.Tenant == 0 || p.Tenant == tenant }
