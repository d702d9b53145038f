// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"

	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/policy"
)

func channelOf(c store.Channel) Channel {
	out := Channel{
		ID:            int64(c.ID),
		Name:          c.Name,
		Provider:      c.Provider,
		BaseURL:       c.BaseURL,
		HasCredential: c.Credential != "",
		Models:        listOf(c.Models, func(m policy.Model) Model { return Model(m) }).Items,
		Priority:      c.Priority,
		Weight:        c.Weight,
		Disabled:      c.Disabled,
		BillPartial:   string(c.Partial),
		Groups:        append([]string{}, c.Groups...),
		Created:       c.Created,
	}
	if out.HasCredential {
		out.CredentialFingerprint = CredentialFingerprint(c.Credential.Reveal())
	}
	if c.Tenant != 0 {
		id := int64(c.Tenant)
		out.TenantID, out.Tenant = &id, &c.TenantName
	}
	return out
}

// CredentialFingerprint returns 32 bits of a hash: enough to see that a credential is another, too few to tell which it is.
func CredentialFingerprint(credential string) string {
	h := sha256.Sum256([]byte("weir credential " + credential))
	return hex.EncodeToString(h[:4])
}

// KnownBase returns the base URL of a provider that has only one; else nothing.
func KnownBase(provider string) string {
	switch provider {
	case "openai":
		return "https://api.openai.com/v1"
	case "anthropic":
		return "https://api.anthropic.com/v1"
	}
	return ""
}

func modelsOf(models []Model) []policy.Model {
	return listOf(models, func(m Model) policy.Model { return policy.Model(m) }).Items
}

func (a *api) listChannels(w http.ResponseWriter, r *http.Request) error {
	all, err := a.Store.Channels(r.Context())
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, listOf(all, channelOf))
	return nil
}

func (a *api) createChannel(w http.ResponseWriter, r *http.Request) error {
	var n NewChannel
	if err := decode(w, r, &n); err != nil {
		return err
	}
	weight := 0 // The store's default.
	if n.Weight != nil {
		if weight = *n.Weight; weight < 1 {
			return invalid(`"weight" must be at least 1`).hint("disable the channel to keep requests from it")
		}
	}
	c, err := a.Store.CreateChannel(r.Context(), store.NewChannel{
		Name:       n.Name,
		Provider:   n.Provider,
		BaseURL:    n.BaseURL,
		Credential: store.Secret(n.Credential),
		Models:     modelsOf(n.Models),
		Priority:   n.Priority,
		Weight:     weight,
		Tenant:     n.Tenant,
		Partial:    policy.Partial(n.BillPartial),
		Groups:     n.Groups,
	})
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, channelOf(c))
	return nil
}

func (a *api) showChannel(w http.ResponseWriter, r *http.Request) error {
	c, err := a.Store.Channel(r.Context(), r.PathValue("ref"))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, channelOf(c))
	return nil
}

func (a *api) changeChannel(w http.ResponseWriter, r *http.Request) error {
	var c ChannelChange
	if err := decode(w, r, &c, "tenant"); err != nil {
		return err
	}
	want := store.ChannelChange{
		Name:     c.Name,
		Provider: c.Provider,
		BaseURL:  c.BaseURL,
		Priority: c.Priority,
		Weight:   c.Weight,
		Disabled: c.Disabled,
		Partial:  (*policy.Partial)(c.BillPartial),
		Groups:   c.Groups,
	}
	if c.Credential != nil {
		secret := store.Secret(*c.Credential)
		want.Credential = &secret
	}
	if c.Models != nil {
		models := modelsOf(*c.Models)
		want.Models = &models
	}
	if c.Tenant.Present {
		var everybody string
		want.Tenant = &everybody
		if c.Tenant.Value != nil {
			want.Tenant = c.Tenant.Value
		}
	}
	got, err := a.Store.SetChannel(r.Context(), r.PathValue("ref"), want)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, channelOf(got))
	return nil
}

func (a *api) deleteChannel(w http.ResponseWriter, r *http.Request) error {
	if err := a.Store.DeleteChannel(r.Context(), r.PathValue("ref")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// testChannel answers 200 also when the channel does not work: the test did.
func (a *api) testChannel(w http.ResponseWriter, r *http.Request) error {
	c, err := a.Store.Channel(r.Context(), r.PathValue("ref"))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, a.ChannelTester.TestChannel(r.Context(), c))
	return nil
}
