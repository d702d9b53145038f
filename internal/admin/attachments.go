// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"cmp"
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/weir-proxy/weir/internal/store"
)

func attachmentOf(a store.Attachment) Attachment {
	out := Attachment{
		ID: int64(a.ID), PluginID: int64(a.PluginID), Plugin: a.Plugin, Digest: a.Digest.String(),
		Place: a.Place, Mode: string(a.Mode), Config: PluginConfig(a.Config),
		PluginRights: PluginRights{
			Grants: a.Grants, Headers: a.Headers, Body: a.Body, Upstreams: upstreamsTo(a.Upstreams), RequestOnly: a.RequestOnly,
		},
		Limits:   PluginLimits{Fuel: a.Limits.Fuel, MemoryBytes: a.Limits.MemoryBytes, TimeMS: a.Limits.Time.Milliseconds()},
		Disabled: a.Disabled, AttachmentHistory: AttachmentHistory{Created: a.Created, Swapped: a.Swapped},
	}
	if a.Tenant != 0 {
		id := int64(a.Tenant)
		out.TenantID, out.Tenant = &id, &a.TenantName
	}
	if a.Key != 0 {
		id := int64(a.Key)
		out.KeyID, out.Key = &id, &a.KeyName
	}
	if previous := a.Previous.String(); previous != "" {
		out.Previous = &previous
	}
	if !a.RolledBack.IsZero() {
		out.RolledBack = &RolledBack{At: a.RolledBack, From: a.RolledBackOf.String(), Why: a.RolledBackWhy}
	}
	return out
}

func upstreamsTo(list []store.PluginUpstream) []PluginUpstream {
	out := make([]PluginUpstream, 0, len(list))
	for _, u := range list {
		out = append(out, PluginUpstream(u))
	}
	return out
}

func upstreamsOf(list []PluginUpstream) []store.PluginUpstream {
	out := make([]store.PluginUpstream, 0, len(list))
	for _, u := range list {
		out = append(out, store.PluginUpstream(u))
	}
	return out
}

func limitsOf(l PluginLimits) store.PluginLimits {
	return store.PluginLimits{Fuel: l.Fuel, MemoryBytes: l.MemoryBytes, Time: time.Duration(min(l.TimeMS, 1<<40)) * time.Millisecond}
}

// listAttachments returns those of one plugin if that is asked for.
func (a *api) listAttachments(w http.ResponseWriter, r *http.Request) error {
	q := query{values: r.URL.Query()}
	ref := q.text("plugin")
	if err := q.done(); err != nil {
		return err
	}
	var only store.PluginID
	if ref != "" {
		p, err := a.Store.Plugin(r.Context(), ref)
		if err != nil {
			return err
		}
		only = p.ID
	}
	all, err := a.Store.Attachments(r.Context())
	if err != nil {
		return err
	}
	out := List[Attachment]{Items: []Attachment{}}
	for _, at := range all {
		if only == 0 || at.PluginID == only {
			out.Items = append(out.Items, attachmentOf(at))
		}
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}

// createAttachment stores nothing that does not load.
func (a *api) createAttachment(w http.ResponseWriter, r *http.Request) error {
	var n NewAttachment
	if err := decode(w, r, &n); err != nil {
		return err
	}
	settings := store.PluginSettings{
		Place: n.Place, Mode: store.PluginMode(cmp.Or(n.Mode, string(store.PluginClosed))), Config: string(n.Config),
		Grants: n.Grants, Headers: n.Headers, Body: n.Body, Limits: limitsOf(n.Limits), Disabled: n.Disabled,
		Upstreams: upstreamsOf(n.Upstreams), RequestOnly: n.RequestOnly,
	}
	version, err := a.try(r.Context(), trial{plugin: n.Plugin, version: n.Version, settings: settings})
	if err != nil {
		return err
	}
	at, err := a.Store.Attach(r.Context(), store.NewAttachment{
		Plugin: n.Plugin, Version: version, Tenant: n.Tenant, Key: n.Key, PluginSettings: settings,
	})
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, attachmentOf(at))
	return nil
}

// trial is a way to attach a version of a plugin.
type trial struct {
	plugin, version string // refs
	settings        store.PluginSettings
}

// try loads a version as it would be attached, and returns its digest. Settings that the store will refuse are left for it to refuse.
func (a *api) try(ctx context.Context, t trial) (digest string, err error) {
	p, err := a.Store.Plugin(ctx, t.plugin)
	if err != nil {
		return "", err
	}
	v, err := p.Version(t.version)
	if err != nil {
		return "", err
	}
	if err := t.settings.Check(); err != nil {
		return "", err
	}
	wasm, err := a.Store.Wasm(ctx, v.Digest)
	if err != nil {
		return "", err
	}
	err = a.Plugins.TryPlugin(ctx, store.Attachment{PluginID: p.ID, Plugin: p.Name, Digest: v.Digest, PluginSettings: t.settings}, wasm)
	return v.Digest.String(), refused(err)
}

// attachmentID reads the id in the path.
func attachmentID(r *http.Request) (store.AttachmentID, error) {
	ref := r.PathValue("id")
	id, err := strconv.ParseInt(ref, 10, 64)
	if err != nil || id <= 0 {
		return 0, problem(http.StatusNotFound, "not found", "an attachment is named by its id, a number, and not by "+strconv.Quote(ref)).
			hint("weir plugin show NAME (GET /api/v1/attachments?plugin=NAME) shows the ids")
	}
	return store.AttachmentID(id), nil
}

func (a *api) showAttachment(w http.ResponseWriter, r *http.Request) error {
	id, err := attachmentID(r)
	if err != nil {
		return err
	}
	at, err := a.Store.Attachment(r.Context(), id)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, attachmentOf(at))
	return nil
}

// changeAttachment tries what it changes, if that is more than where and whether the plugin judges.
func (a *api) changeAttachment(w http.ResponseWriter, r *http.Request) error {
	id, err := attachmentID(r)
	if err != nil {
		return err
	}
	var c AttachmentChange
	if err := decode(w, r, &c); err != nil {
		return err
	}
	want := store.AttachmentChange{
		Version: c.Version, Place: c.Place, Mode: (*store.PluginMode)(c.Mode), Config: (*string)(c.Config),
		Grants: c.Grants, Headers: c.Headers, Body: c.Body, Disabled: c.Disabled, RequestOnly: c.RequestOnly,
	}
	if c.Upstreams != nil {
		list := upstreamsOf(*c.Upstreams)
		want.Upstreams = &list
	}
	if c.Limits != nil {
		l := limitsOf(*c.Limits)
		want.Limits = &l
	}
	if c.loads() {
		at, err := a.Store.Attachment(r.Context(), id)
		if err != nil {
			return err
		}
		t := trial{plugin: strconv.FormatInt(int64(at.PluginID), 10), version: at.Digest.String(), settings: at.PluginSettings}
		if c.Version != nil {
			t.version = *c.Version
		}
		want.Apply(&t.settings)
		digest, err := a.try(r.Context(), t)
		if err != nil {
			return err
		}
		if c.Version != nil {
			want.Version = &digest // another may be pushed in between, which was not tried
		}
	}
	at, err := a.Store.SetAttachment(r.Context(), id, want)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, attachmentOf(at))
	return nil
}

// loads reports whether the plugin has to be loaded anew for the change.
func (c *AttachmentChange) loads() bool {
	return c.Version != nil || c.Config != nil || c.Grants != nil || c.Headers != nil || c.Limits != nil || c.Upstreams != nil || c.RequestOnly != nil
}

func (a *api) deleteAttachment(w http.ResponseWriter, r *http.Request) error {
	id, err := attachmentID(r)
	if err != nil {
		return err
	}
	if err := a.Store.Detach(r.Context(), id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// rollBackAttachment does not try the version before: it has worked.
func (a *api) rollBackAttachment(w http.ResponseWriter, r *http.Request) error {
	id, err := attachmentID(r)
	if err != nil {
		return err
	}
	var n NewRollBack
	if err := decode(w, r, &n); err != nil {
		return err
	}
	at, _, err := a.Store.RollBack(r.Context(), store.RollBack{Attachment: id, Why: n.Why})
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, attachmentOf(at))
	return nil
}
