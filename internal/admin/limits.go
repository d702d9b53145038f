// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/policy/limit"
)

// Limit is what some exchanges are held to. A rate that is null is not limited.
type Limit struct {
	ID           int64     `json:"id"`
	TenantID     *int64    `json:"tenant_id"` // null means that it is for all tenants
	Tenant       *string   `json:"tenant"`
	KeyID        *int64    `json:"key_id"` // null means that it is for all keys
	Key          *string   `json:"key"`
	EachKey      bool      `json:"each_key"` // every key has it for itself
	Model        string    `json:"model"`    // * for any characters
	Requests     *int64    `json:"requests_per_minute"`
	Input        *int64    `json:"input_tokens_per_minute"`
	Output       *int64    `json:"output_tokens_per_minute"`
	Total        *int64    `json:"tokens_per_minute"`
	Concurrency  *int64    `json:"concurrency"`
	BurstSeconds float64   `json:"burst_seconds"` // what falls due in that time may come at once
	Created      time.Time `json:"created"`
}

// Rates changes what a limit allows: absent leaves a rate as it is, null lifts it.
type Rates struct {
	Requests     Nullable[int64]   `json:"requests_per_minute,omitzero"`
	Input        Nullable[int64]   `json:"input_tokens_per_minute,omitzero"`
	Output       Nullable[int64]   `json:"output_tokens_per_minute,omitzero"`
	Total        Nullable[int64]   `json:"tokens_per_minute,omitzero"`
	Concurrency  Nullable[int64]   `json:"concurrency,omitzero"`
	BurstSeconds Nullable[float64] `json:"burst_seconds,omitzero"`
}

// SetLimit makes or changes the limit of a scope: there is at most one of each.
type SetLimit struct {
	Tenant  string `json:"tenant,omitempty"`   // id or name
	Key     string `json:"key,omitempty"`      // id or name
	EachKey bool   `json:"each_key,omitempty"` // every key has it for itself
	Model   string `json:"model,omitempty"`    // "*" when empty
	Rates
}

// LimitStore keeps limits.
type LimitStore interface {
	RateLimits(ctx context.Context, tenant, key string) ([]store.RateLimit, error)
	SetRateLimit(ctx context.Context, scope store.LimitScope, c store.RatesChange) (store.RateLimit, error)
	DeleteRateLimit(ctx context.Context, id limit.ID) error
}

// rateNames are the members of [Rates], which may all be null.
var rateNames = []string{
	"requests_per_minute", "input_tokens_per_minute", "output_tokens_per_minute", "tokens_per_minute", "concurrency", "burst_seconds",
}

// positive returns nil for zero, which stands for no limit.
func positive(n int64) *int64 {
	if n == 0 {
		return nil
	}
	return &n
}

func limitOf(l store.RateLimit) Limit {
	out := Limit{
		ID: int64(l.ID), EachKey: l.Each, Model: l.Model, Requests: positive(l.Requests), Input: positive(l.Input), Output: positive(l.Output),
		Total: positive(l.Total), Concurrency: positive(l.Concurrent), BurstSeconds: limit.DefaultBurst.Seconds(), Created: l.Created,
	}
	if l.Burst != 0 {
		out.BurstSeconds = l.Burst.Seconds()
	}
	if l.Tenant != 0 {
		id, name := int64(l.Tenant), l.TenantName
		out.TenantID, out.Tenant = &id, &name
	}
	if l.Key != 0 {
		id, name := int64(l.Key), l.KeyName
		out.KeyID, out.Key = &id, &name
	}
	return out
}

// change checks the rates and turns them into what the store takes; nil if there is nothing to change. Zero is no rate: who wants to refuse everything disables the key.
func (r *Rates) change() (*store.RatesChange, error) {
	if r == nil || *r == (Rates{}) {
		return nil, nil //nolint:nilnil // nothing is to be changed
	}
	var c store.RatesChange
	for i, of := range []struct {
		n    Nullable[int64]
		to   **int64
		most int64
	}{
		{r.Requests, &c.Requests, limit.MaxRate},
		{r.Input, &c.Input, limit.MaxRate},
		{r.Output, &c.Output, limit.MaxRate},
		{r.Total, &c.Total, limit.MaxRate},
		{r.Concurrency, &c.Concurrent, limit.MaxConcurrent},
	} {
		if !of.n.Present {
			continue
		}
		n := int64(0)
		if of.n.Value != nil {
			if n = *of.n.Value; n < 1 || n > of.most {
				return nil, invalid("%q must be from 1 to %d, or null for no limit, not %d", rateNames[i], of.most, n)
			}
		}
		*of.to = &n
	}
	if r.BurstSeconds.Present {
		var d time.Duration
		if v := r.BurstSeconds.Value; v != nil {
			if !(*v >= limit.MinBurst.Seconds() && *v <= limit.MaxBurst.Seconds()) {
				return nil, invalid("%q must be from %v to %v, or null for the default", "burst_seconds", limit.MinBurst.Seconds(), limit.MaxBurst.Seconds())
			}
			d = time.Duration(*v * float64(time.Second)).Round(time.Millisecond)
		}
		c.Burst = &d
	}
	return &c, nil
}

func (a *api) listLimits(w http.ResponseWriter, r *http.Request) error {
	q := query{values: r.URL.Query()}
	tenant, key := q.text("tenant"), q.text("key")
	if err := q.done(); err != nil {
		return err
	}
	all, err := a.Store.RateLimits(r.Context(), tenant, key)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, listOf(all, limitOf))
	return nil
}

func (a *api) setLimit(w http.ResponseWriter, r *http.Request) error {
	var s SetLimit
	if err := decode(w, r, &s, rateNames...); err != nil {
		return err
	}
	c, err := s.change()
	if err != nil {
		return err
	}
	if c == nil {
		return invalid("there is nothing to set").hint("give at least one of the rates")
	}
	l, err := a.Store.SetRateLimit(r.Context(), store.LimitScope{Tenant: s.Tenant, Key: s.Key, EachKey: s.EachKey, Model: s.Model}, *c)
	if err != nil {
		return err
	}
	if l.ID == 0 {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	writeJSON(w, http.StatusOK, limitOf(l))
	return nil
}

func (a *api) deleteLimit(w http.ResponseWriter, r *http.Request) error {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return invalid("a limit is named by its id, a number")
	}
	if err := a.Store.DeleteRateLimit(r.Context(), limit.ID(id)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// Limits returns the limits: all, or those of a tenant or of a key.
func (c *Client) Limits(ctx context.Context, tenant, key string) ([]Limit, error) {
	v := make(map[string][]string)
	for name, ref := range map[string]string{"tenant": tenant, "key": key} {
		if ref != "" {
			v[name] = []string{ref}
		}
	}
	return pages[Limit](ctx, c, "/api/v1/limits", v, 0)
}

// SetLimit makes or changes a limit. One that limits nothing any more is gone, and the answer has no id.
func (c *Client) SetLimit(ctx context.Context, s SetLimit) (Limit, error) {
	return send[Limit](ctx, c, http.MethodPut, "/api/v1/limits", s)
}

// DeleteLimit deletes a limit.
func (c *Client) DeleteLimit(ctx context.Context, id int64) error {
	return c.do(ctx, http.MethodDelete, pathOf("limit", strconv.FormatInt(id, 10)), nil, nil)
}
