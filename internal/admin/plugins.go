// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"

	"github.com/weir-proxy/weir/internal/store"
)

// moduleType is the media type of modules: https://www.iana.org/assignments/media-types/application/wasm.
const moduleType = "application/wasm"

func pluginOf(p store.Plugin) Plugin {
	out := Plugin{
		ID: int64(p.ID), Name: p.Name, Attached: p.Attached, Created: p.Created,
		Versions: listOf(p.Versions, versionOf).Items,
	}
	if p.Tenant != 0 {
		id := int64(p.Tenant)
		out.TenantID, out.Tenant = &id, &p.TenantName
	}
	return out
}

func versionOf(v store.PluginVersion) PluginVersion {
	return PluginVersion{Digest: v.Digest.String(), Size: v.Size, About: rawOrNull(v.About), Schema: rawOrNull(v.Schema), Pushed: v.Pushed}
}

func rawOrNull(s string) json.RawMessage {
	if s == "" {
		return json.RawMessage("null")
	}
	return json.RawMessage(s)
}

func (a *api) listPlugins(w http.ResponseWriter, r *http.Request) error {
	all, err := a.Store.Plugins(r.Context())
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, listOf(all, pluginOf))
	return nil
}

func (a *api) showPlugin(w http.ResponseWriter, r *http.Request) error {
	p, err := a.Store.Plugin(r.Context(), r.PathValue("ref"))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, pluginOf(p))
	return nil
}

// pushPlugin stores nothing that does not load.
func (a *api) pushPlugin(w http.ResponseWriter, r *http.Request) error {
	q := query{values: r.URL.Query()}
	tenant := q.text("tenant")
	if err := q.done(); err != nil {
		return err
	}
	wasm, err := readModule(w, r)
	if err != nil {
		return err
	}
	name := r.PathValue("ref")
	about, schema, err := a.Plugins.InspectPlugin(r.Context(), name, wasm)
	if err != nil {
		return refused(err)
	}
	p, err := a.Store.PushPlugin(r.Context(), store.PushedModule{Name: name, Tenant: tenant, Wasm: wasm, About: about, Schema: schema})
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, pluginOf(p))
	return nil
}

func readModule(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != moduleType {
		return nil, problem(http.StatusUnsupportedMediaType, "unsupported media type", "the body must be a WebAssembly module").
			hint("send the header content-type: %s", moduleType)
	}
	wasm, err := io.ReadAll(http.MaxBytesReader(w, r.Body, store.MaxModule))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return nil, problem(http.StatusRequestEntityTooLarge, "body too large", "the module is longer than 16 MiB").
			hint("build it without debug information: -ldflags='-s -w' in Go, strip = true in Rust")
	}
	if err != nil {
		return nil, invalid("the body ended early")
	}
	return wasm, nil
}

// refused makes a problem of what is wrong with a plugin; other errors stay what they are.
func refused(err error) error {
	r, ok := errors.AsType[interface {
		error
		Hint() string
	}](err)
	if !ok {
		return err
	}
	p := problem(http.StatusUnprocessableEntity, "plugin refused", r.Error())
	p.Hint = r.Hint()
	return p
}

func (a *api) deletePlugin(w http.ResponseWriter, r *http.Request) error {
	if err := a.Store.DeletePlugin(r.Context(), r.PathValue("ref")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *api) pluginMetrics(w http.ResponseWriter, r *http.Request) error {
	a.PluginMetrics.ServeHTTP(w, r)
	return nil
}
