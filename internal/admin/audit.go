// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/weir-proxy/weir/internal/store"
)

// AuditEntry is a change of the configuration.
type AuditEntry struct {
	ID       int64           `json:"id"`
	TS       time.Time       `json:"ts"`
	Actor    string          `json:"actor"`   // who it was: see actorOf
	Address  string          `json:"address"` // of the request; empty: no request
	Action   string          `json:"action"`  // create, change or delete
	Kind     string          `json:"kind"`
	ObjectID string          `json:"object_id"`
	Object   string          `json:"object"` // the name that it had
	Before   json.RawMessage `json:"before"` // an object; null: nothing was there
	After    json.RawMessage `json:"after"`
}

// AuditQuery selects entries. Zero fields do not restrict.
type AuditQuery struct {
	Kind         string
	Object       string // an id or a name
	Actor        string
	Since, Until time.Time
}

func (q AuditQuery) values() url.Values {
	v := UsageQuery{Since: q.Since, Until: q.Until}.values()
	for name, value := range map[string]string{"kind": q.Kind, "object": q.Object, "actor": q.Actor} {
		if value != "" {
			v.Set(name, value)
		}
	}
	return v
}

// actorHeader says who the holder of the token acts for.
const actorHeader = "X-Weir-Actor"

// tokenName is what the audit calls who says no more than the token.
const tokenName = "admin"

const maxActor = 64

// actorOf returns who makes a request, for the audit. The token is one for all: who a request says that it is for is written down, and not verified.
func actorOf(r *http.Request) (store.Actor, *Problem) {
	a := store.Actor{Name: tokenName}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		a.Address = host
	}
	if name := r.Header.Get(actorHeader); name != "" {
		if len(name) > maxActor || !utf8.ValidString(name) || strings.ContainsFunc(name, func(c rune) bool { return !unicode.IsPrint(c) }) {
			return a, invalid("the header %s must have at most %d bytes, all of them printable", strings.ToLower(actorHeader), maxActor)
		}
		a.Name = tokenName + "/" + name
	}
	return a, nil
}

func auditOf(e store.AuditEntry) AuditEntry {
	out := AuditEntry{
		ID: e.ID, TS: e.Time, Actor: e.Actor, Address: e.Address, Action: e.Action, Kind: e.Kind, ObjectID: e.ObjectID, Object: e.Object,
		Before: e.Before, After: e.After,
	}
	for _, v := range []*json.RawMessage{&out.Before, &out.After} {
		if *v == nil {
			*v = json.RawMessage("null")
		}
	}
	return out
}

func (a *api) listAudit(w http.ResponseWriter, r *http.Request) error {
	q := query{values: r.URL.Query()}
	f := store.AuditFilter{
		Kind: q.text("kind"), Object: q.text("object"), Actor: q.text("actor"), Since: q.time("since"), Until: q.time("until"),
		Before: q.id("cursor"), Limit: q.limit(),
	}
	if err := q.done(); err != nil {
		return err
	}
	entries, err := a.Store.Audit(r.Context(), f)
	if err != nil {
		return err
	}
	l := listOf(entries, auditOf)
	if len(entries) == f.Limit {
		l.Next = strconv.FormatInt(entries[f.Limit-1].ID, 10)
	}
	writeJSON(w, http.StatusOK, l)
	return nil
}
