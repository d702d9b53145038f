// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// DefaultTenant is the name of the tenant that a key gets when none is named. Migrate makes it.
const DefaultTenant = "default"

// TenantChange says what to change of a tenant; nil leaves a field as it is.
type TenantChange struct {
	Name     *string
	Disabled *bool
	Groups   *[]string // of channels; an empty list means any
	Parent   *string   // ref of the tenant whose budgets count too; empty: none
	Zone     *string   // in which the periods of budgets begin, such as Europe/Berlin
	Budget   *BudgetChange
	Limits   *RatesChange // of all its keys together, for all models
}

const selectTenant = `select t.id, t.name, t.disabled, t.groups, t.created, coalesce(t.parent_id, 0), coalesce(p.name, ''), t.time_zone
	from weir.tenant t left join weir.tenant p on p.id = t.parent_id `

func scanTenant(row pgx.CollectableRow) (t Tenant, err error) {
	err = row.Scan(&t.ID, &t.Name, &t.Disabled, &t.Groups, &t.Created, &t.Parent, &t.ParentName, &t.Zone)
	t.Groups = noneIfEmpty(t.Groups)
	t.Created = t.Created.UTC()
	return t, err
}

// CreateTenant makes a tenant, with what is said of it besides.
func (s *Store) CreateTenant(ctx context.Context, name string, with ...TenantChange) (Tenant, error) {
	if err := checkName("tenant", name); err != nil {
		return Tenant{}, err
	}
	var t Tenant
	err := s.change(ctx, func(tx pgx.Tx) (err error) {
		var id int64
		if err := tx.QueryRow(ctx, `insert into weir.tenant (name) values ($1) returning id`, name).Scan(&id); err != nil {
			return err
		}
		t, err = one(ctx, tx, scanTenant, selectTenant+`where t.id = $1`, id)
		for _, c := range with {
			if err != nil {
				return err
			}
			t, err = setTenant(ctx, tx, t, c)
		}
		return err
	})
	if err != nil {
		return Tenant{}, tenantError("create", name, err)
	}
	return t, nil
}

// Tenants returns all tenants, oldest first.
func (s *Store) Tenants(ctx context.Context) ([]Tenant, error) {
	tenants, err := tenants(ctx, s.pool)
	if err != nil {
		return nil, fmt.Errorf("list tenants: %w", err)
	}
	return tenants, nil
}

func tenants(ctx context.Context, q querier) ([]Tenant, error) {
	return many(ctx, q, scanTenant, selectTenant+`order by t.id`)
}

// Tenant returns the tenant that ref names.
func (s *Store) Tenant(ctx context.Context, ref string) (Tenant, error) {
	return findTenant(ctx, s.pool, ref)
}

func findTenant(ctx context.Context, q querier, ref string) (Tenant, error) {
	id, name, err := parseRef("tenant", ref)
	if err != nil {
		return Tenant{}, err
	}
	t, err := one(ctx, q, scanTenant, selectTenant+`where t.id = $1 or t.name = $2`, id, name)
	if errors.Is(err, pgx.ErrNoRows) {
		return Tenant{}, notFound("tenant", ref)
	}
	if err != nil {
		return Tenant{}, fmt.Errorf("find tenant %q: %w", ref, err)
	}
	return t, nil
}

// SetTenant changes a tenant. The keys of a disabled tenant are refused.
func (s *Store) SetTenant(ctx context.Context, ref string, c TenantChange) (Tenant, error) {
	var t Tenant
	err := s.change(ctx, func(tx pgx.Tx) (err error) {
		if t, err = findTenant(ctx, tx, ref); err != nil {
			return err
		}
		t, err = setTenant(ctx, tx, t, c)
		return err
	})
	if err != nil {
		return Tenant{}, tenantError("change", cmp.Or(t.Name, ref), err)
	}
	return t, nil
}

func setTenant(ctx context.Context, tx pgx.Tx, t Tenant, c TenantChange) (Tenant, error) {
	if c.Name != nil && *c.Name != t.Name {
		if t.Name == DefaultTenant {
			return t, invalid("change: the tenant %q keeps its name", DefaultTenant)
		}
		if err := checkName("tenant", *c.Name); err != nil {
			return t, err
		}
	}
	set(&t.Name, c.Name)
	if c.Groups != nil {
		if err := checkGroups("tenant", *c.Groups); err != nil {
			return t, err
		}
	}
	set(&t.Disabled, c.Disabled)
	set(&t.Groups, c.Groups)
	if err := setPlace(ctx, tx, &t, c); err != nil {
		return t, err
	}
	if (c == TenantChange{Budget: c.Budget, Limits: c.Limits}) { // tenants are read as a whole for each change of one
		return t, setTerms(ctx, tx, owner{tenant: t.ID}, c.Budget, c.Limits)
	}
	if _, err := tx.Exec(ctx, `update weir.tenant set name = $2, disabled = $3, parent_id = nullif($4::bigint, 0), time_zone = $5, groups = $6 where id = $1`,
		t.ID, t.Name, t.Disabled, int64(t.Parent), t.Zone, list(t.Groups)); err != nil {
		return t, err
	}
	return t, setTerms(ctx, tx, owner{tenant: t.ID}, c.Budget, c.Limits)
}

// DeleteTenant deletes a tenant, its revoked keys and what is attached to it. It returns an error wrapping [ErrInUse] while the tenant has
// keys that are not revoked, channels or plugins. Its rows of usage stay.
func (s *Store) DeleteTenant(ctx context.Context, ref string) error {
	err := s.change(ctx, func(tx pgx.Tx) error {
		t, err := findTenant(ctx, tx, ref)
		if err != nil {
			return err
		}
		if t.Name == DefaultTenant {
			return fmt.Errorf("tenant %q: %w: keys get it when no tenant is named", t.Name, ErrInUse)
		}
		var keys, channels, plugins int
		err = tx.QueryRow(ctx, `select (select count(*) from weir.key where tenant_id = $1 and revoked is null),
			(select count(*) from weir.channel where tenant_id = $1), (select count(*) from weir.plugin where tenant_id = $1)`,
			t.ID).Scan(&keys, &channels, &plugins)
		if err != nil {
			return err
		}
		if keys > 0 || channels > 0 {
			return fmt.Errorf("tenant %q: %w: it has %d keys that are not revoked and %d channels", t.Name, ErrInUse, keys, channels)
		}
		var below int
		if err := tx.QueryRow(ctx, `select count(*) from weir.tenant where parent_id = $1`, t.ID).Scan(&below); err != nil {
			return err
		}
		if below > 0 {
			return fmt.Errorf("tenant %q: %w: it is the parent of %d tenants", t.Name, ErrInUse, below)
		}
		if plugins > 0 {
			return fmt.Errorf("tenant %q: %w: it has %d plugins", t.Name, ErrInUse, plugins)
		}
		if _, err := tx.Exec(ctx, `delete from weir.key where tenant_id = $1`, t.ID); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `delete from weir.tenant where id = $1`, t.ID)
		return err
	})
	return tenantError("delete", ref, err)
}

func tenantError(verb, name string, err error) error {
	switch {
	case err == nil:
		return nil
	case violates(err, "tenant_name"):
		return fmt.Errorf("tenant %q: %w", name, ErrExists)
	case hasState(err, stateForeignKey):
		return fmt.Errorf("tenant %q: %w: it has just got a key", name, ErrInUse)
	case own(err):
		return err
	}
	return fmt.Errorf("%s tenant %q: %w", verb, name, err)
}

// own reports whether err is one of this package's, which say all that an operator needs.
func own(err error) bool {
	for _, sentinel := range []error{ErrNotFound, ErrExists, ErrInUse, ErrInvalid, ErrSecretKey} {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	return false
}

// set assigns *to when there is something to assign.
func set[T any](field, to *T) {
	if to != nil {
		*field = *to
	}
}

func one[T any](ctx context.Context, q querier, scan pgx.RowToFunc[T], sql string, args ...any) (T, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		var zero T
		return zero, err
	}
	return pgx.CollectOneRow(rows, scan)
}

func many[T any](ctx context.Context, q querier, scan pgx.RowToFunc[T], sql string, args ...any) ([]T, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scan)
}
