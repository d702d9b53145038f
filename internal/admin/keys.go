// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/policy"
)

func keyOf(k store.Key) Key {
	return Key{
		ID:       int64(k.ID),
		TenantID: int64(k.Tenant),
		Tenant:   k.TenantName,
		Name:     k.Name,
		Hint:     k.Hint,
		Models:   append([]string{}, k.Models...),
		Disabled: k.Disabled,
		Revoked:  k.Revoked,
		Expires:  timeOrNil(k.Expires),
		Created:  k.Created,
		KeyScope: scopeOf(k),
	}
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (a *api) listKeys(w http.ResponseWriter, r *http.Request) error {
	q := query{values: r.URL.Query()}
	limit := q.limit()
	after := q.id("cursor")
	tenant := q.text("tenant")
	if err := q.done(); err != nil {
		return err
	}
	keys, err := a.Store.Keys(r.Context(), store.KeyFilter{Tenant: tenant, AfterID: policy.KeyID(after), Limit: limit})
	if err != nil {
		return err
	}
	l := listOf(keys, keyOf)
	if len(keys) == limit {
		l.Next = strconv.FormatInt(int64(keys[limit-1].ID), 10)
	}
	writeJSON(w, http.StatusOK, l)
	return nil
}

func (a *api) createKey(w http.ResponseWriter, r *http.Request) error {
	var n NewKey
	if err := decode(w, r, &n); err != nil {
		return err
	}
	want, err := n.wanted()
	if err != nil {
		return err
	}
	k, secret, err := a.Store.CreateKey(r.Context(), want)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, CreatedKey{Key: keyOf(k), Secret: secret.Reveal()})
	return nil
}

func (a *api) showKey(w http.ResponseWriter, r *http.Request) error {
	k, err := a.Store.HeldKey(r.Context(), r.PathValue("ref"), time.Now())
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, HeldKey{Key: keyOf(k.Key), Budgets: listOf(k.Budgets, budgetOf).Items, Limits: listOf(k.Limits, limitOf).Items})
	return nil
}

func (a *api) changeKey(w http.ResponseWriter, r *http.Request) error {
	var c KeyChange
	if err := decode(w, r, &c, "expires", "budget"); err != nil {
		return err
	}
	want := store.KeyChange{
		Name: c.Name, Models: c.Models, Disabled: c.Disabled, Groups: c.Groups, Networks: c.Networks, Tags: c.Tags, Metadata: c.Metadata,
		Pinnable: c.Pinnable, Hint: c.Hint, Budget: changeOf(c.Budget),
	}
	if c.Hash != nil {
		hash, err := parseHash(*c.Hash)
		if err != nil {
			return err
		}
		want.Hash = &hash
	}
	if c.Expires.Present {
		var never time.Time
		want.Expires = &never
		if c.Expires.Value != nil {
			want.Expires = c.Expires.Value
		}
	}
	var err error
	if want.Limits, err = c.Limits.change(); err != nil {
		return err
	}
	k, err := a.Store.SetKey(r.Context(), r.PathValue("ref"), want)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, keyOf(k))
	return nil
}

func (a *api) revokeKey(w http.ResponseWriter, r *http.Request) error {
	k, err := a.Store.RevokeKey(r.Context(), r.PathValue("ref"))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, keyOf(k))
	return nil
}

// Limits of lists with pages.
const (
	defaultLimit = 100
	maxLimit     = 1000
)

// query reads the parameters of a URL as strictly as [decode] reads a body: a misspelt filter would show rows that nobody asked for.
type query struct {
	values url.Values
	err    error
}

// text takes a parameter; each is taken once.
func (q *query) text(name string) string {
	v := q.values[name]
	delete(q.values, name)
	if len(v) > 1 {
		q.fail(name, "is given twice")
	}
	if len(v) == 0 {
		return ""
	}
	return v[0]
}

func (q *query) fail(name, text string) {
	if q.err == nil {
		q.err = invalid("parameter %q %s", name, text)
	}
}

func (q *query) limit() int {
	s := q.text("limit")
	if s == "" {
		return defaultLimit
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxLimit {
		q.fail("limit", "must be from 1 to "+strconv.Itoa(maxLimit))
		return defaultLimit
	}
	return n
}

func (q *query) id(name string) int64 {
	s := q.text(name)
	if s == "" {
		return 0
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 {
		q.fail(name, "must be what an answer held as next")
		return 0
	}
	return n
}

func (q *query) time(name string) time.Time {
	s := q.text(name)
	if s == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		q.fail(name, "must be a time as in 2026-01-02T15:04:05Z")
	}
	return t
}

// done reports the first mistake, or a parameter that nothing took.
func (q *query) done() error {
	for name := range q.values {
		q.fail(name, "is unknown here")
	}
	return q.err
}
