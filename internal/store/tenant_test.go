// SPDX-License-Identifier: Apache-2.0

package store

import (
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTenantGoesByIdAndName(t *testing.T) {
	s := migrated(t)
	acme, err := s.CreateTenant(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	if acme.ID == 0 || acme.Name != "acme" || acme.Created.IsZero() {
		t.Errorf("created %+v", acme)
	}
	for _, ref := range []string{"acme", strconv.Itoa(int(acme.ID))} {
		got, err := s.Tenant(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got, acme); diff != "" {
			t.Errorf("%s (-got +want):\n%s", ref, diff)
		}
	}
	for _, ref := range []string{"other", "99", "0", "99999999999999999999", "acme'--", "\x00"} {
		_, err := s.Tenant(t.Context(), ref)
		wantError(t, err, ErrNotFound, "tenant")
	}
	_, err = s.Tenant(t.Context(), "")
	wantError(t, err, ErrInvalid, "needed")
}

func TestTenantNameIsTakenOnce(t *testing.T) {
	s := migrated(t)
	if _, err := s.CreateTenant(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	got, err := s.CreateTenant(t.Context(), "acme")
	wantError(t, err, ErrExists, `tenant "acme"`)
	if got.ID != 0 {
		t.Errorf("besides the error: %+v", got)
	}
	_, err = s.SetTenant(t.Context(), "acme", TenantChange{Name: new("Acme!")})
	wantError(t, err, ErrInvalid, "Acme!")
	if _, err := s.CreateTenant(t.Context(), "beta"); err != nil {
		t.Fatal(err)
	}
	_, err = s.SetTenant(t.Context(), "acme", TenantChange{Name: new("beta")})
	wantError(t, err, ErrExists, "beta")
	changed, err := s.SetTenant(t.Context(), "acme", TenantChange{Name: new("gamma"), Disabled: new(true)})
	if err != nil || changed.Name != "gamma" || !changed.Disabled {
		t.Errorf("changed = %+v, %v", changed, err)
	}
	changed, err = s.SetTenant(t.Context(), "gamma", TenantChange{})
	if err != nil || changed.Name != "gamma" || !changed.Disabled {
		t.Errorf("unchanged = %+v, %v", changed, err)
	}
}

func TestDefaultTenantStays(t *testing.T) {
	s := migrated(t)
	wantError(t, s.DeleteTenant(t.Context(), "default"), ErrInUse, "default")
	_, err := s.SetTenant(t.Context(), "default", TenantChange{Name: new("other")})
	wantError(t, err, ErrInvalid, "keeps its name")
	if _, err := s.SetTenant(t.Context(), "default", TenantChange{Name: new("default"), Disabled: new(true)}); err != nil {
		t.Error(err)
	}
}

func TestTenantInUseIsNotDeleted(t *testing.T) {
	s := migrated(t)
	if _, err := s.CreateTenant(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.CreateKey(t.Context(), NewKey{Tenant: "acme", Name: "k"}); err != nil {
		t.Fatal(err)
	}
	wantError(t, s.DeleteTenant(t.Context(), "acme"), ErrInUse, "1 keys")
	if _, err := s.RevokeKey(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	n := plain("c")
	n.Tenant = "acme"
	if _, err := s.CreateChannel(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	wantError(t, s.DeleteTenant(t.Context(), "acme"), ErrInUse, "1 channels")
	if _, err := s.SetChannel(t.Context(), "c", ChannelChange{Tenant: new("")}); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteTenant(t.Context(), "acme"); err != nil {
		t.Error(err)
	}
	wantError(t, s.DeleteTenant(t.Context(), "acme"), ErrNotFound, "acme")
}
