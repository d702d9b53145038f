// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"net/http"

	"github.com/weir-proxy/weir/internal/store"
)

func tenantOf(t store.Tenant) Tenant {
	out := Tenant{ID: int64(t.ID), Name: t.Name, Disabled: t.Disabled, TimeZone: t.Zone, Groups: append([]string{}, t.Groups...), Created: t.Created}
	if id := int64(t.Parent); id != 0 {
		out.ParentID, out.Parent = &id, &t.ParentName
	}
	return out
}

func (a *api) listTenants(w http.ResponseWriter, r *http.Request) error {
	all, err := a.Store.Tenants(r.Context())
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, listOf(all, tenantOf))
	return nil
}

func (a *api) createTenant(w http.ResponseWriter, r *http.Request) error {
	var n NewTenant
	if err := decode(w, r, &n); err != nil {
		return err
	}
	with := store.TenantChange{Budget: n.Budget.change()}
	var err error
	if with.Limits, err = n.Limits.change(); err != nil {
		return err
	}
	if n.Parent != "" {
		with.Parent = &n.Parent
	}
	if n.TimeZone != "" {
		with.Zone = &n.TimeZone
	}
	t, err := a.Store.CreateTenant(r.Context(), n.Name, with)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, tenantOf(t))
	return nil
}

func (a *api) showTenant(w http.ResponseWriter, r *http.Request) error {
	t, err := a.Store.Tenant(r.Context(), r.PathValue("ref"))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, tenantOf(t))
	return nil
}

func (a *api) changeTenant(w http.ResponseWriter, r *http.Request) error {
	var c TenantChange
	if err := decode(w, r, &c, "parent", "budget"); err != nil {
		return err
	}
	want := store.TenantChange{Name: c.Name, Disabled: c.Disabled, Groups: c.Groups, Parent: c.Parent.Value, Zone: c.TimeZone, Budget: changeOf(c.Budget)}
	if c.Parent.Present && c.Parent.Value == nil {
		none := ""
		want.Parent = &none
	}
	var err error
	if want.Limits, err = c.Limits.change(); err != nil {
		return err
	}
	t, err := a.Store.SetTenant(r.Context(), r.PathValue("ref"), want)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, tenantOf(t))
	return nil
}

func (a *api) deleteTenant(w http.ResponseWriter, r *http.Request) error {
	if err := a.Store.DeleteTenant(r.Context(), r.PathValue("ref")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// listOf converts what the store returned; its items are never null.
func listOf[S, T any](all []S, convert func(S) T) List[T] {
	items := make([]T, len(all))
	for i, s := range all {
		items[i] = convert(s)
	}
	return List[T]{Items: items}
}
