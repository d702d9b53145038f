// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/plugins/abi"
	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/plugins/proxywasm"
	"github.com/weir-proxy/weir/policy"
)

// identity is what makes two attachments use one plugin.
type identity struct {
	plugin string // counters and logs go by its name
	digest store.Digest
	config string
	grants string
	limits host.Limits

	// Of plugins that speak proxy-wasm, which are loaded with them.
	upstreams   string
	requestOnly bool
}

func (l *Loader) identify(a *store.Attachment) identity {
	return identity{
		plugin: a.Plugin, digest: a.Digest, config: a.Config, grants: strings.Join(a.Grants, ","), limits: l.limits(a.Limits),
		upstreams: fmt.Sprint(a.Upstreams), requestOnly: a.RequestOnly,
	}
}

// limits are those of an attachment, the others being the defaults of the loader.
func (l *Loader) limits(own store.PluginLimits) host.Limits {
	all := l.Limits
	all.Fuel = cmp.Or(own.Fuel, all.Fuel)
	all.MemoryBytes = cmp.Or(own.MemoryBytes, all.MemoryBytes)
	all.Time = cmp.Or(own.Time, all.Time)
	return all
}

// handle is a loaded plugin as tables, and so exchanges, refer to it. All use goes through it: when it is garbage, the plugin is closed.
type handle struct {
	loader *Loader
	plugin *host.Plugin      // speaks weir/1; or
	filter *proxywasm.Plugin // speaks proxy-wasm
	told   atomic.Bool       // a notice of its quarantine is on its way
}

// loaded is what both kinds of plugins have.
type loaded interface {
	About() host.About
	Quarantine(tenant int64) (until time.Time, why string)
	Close() error
}

func (h *handle) loaded() loaded {
	if h.filter != nil {
		return h.filter
	}
	return h.plugin
}

// notice says that a plugin is left alone by the calls of a tenant.
type notice struct {
	handle *handle
	tenant int64
	why    string
}

// load reads and loads what an attachment needs.
func (l *Loader) load(ctx context.Context, a *store.Attachment) (*handle, error) {
	wasm, err := l.Modules.Wasm(ctx, a.Digest)
	if err != nil {
		return nil, &unread{err}
	}
	h := &handle{loader: l}
	if filters(wasm) {
		h.filter, err = l.Filters.Load(ctx, l.filterSource(a, wasm))
	} else {
		h.plugin, err = l.Host.Load(ctx, l.source(a, wasm))
	}
	l.metrics.load(err)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.open++
	l.mu.Unlock()
	runtime.AddCleanup(h, l.retire, h.loaded())
	return h, nil
}

// source is what the host needs to load an attachment.
func (l *Loader) source(a *store.Attachment, wasm []byte) host.Source {
	s := host.Source{Name: a.Plugin, Wasm: wasm, Config: []byte(a.Config), Limits: l.limits(a.Limits)}
	for _, g := range a.Grants {
		s.Grants = append(s.Grants, host.Capability(g))
	}
	return s
}

// retire closes a plugin that nothing refers to any more.
func (l *Loader) retire(p loaded) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.closed {
		return // with its host
	}
	if err := p.Close(); err != nil {
		l.Logger.Error("a plugin was not closed", "plugin", p.About().Name, "err", err)
	}
}

// Request implements [chain.Plugin].
func (h *handle) Request(ctx context.Context, x *abi.Exchange, m host.Mode) host.Result {
	r := h.plugin.Request(ctx, x, m)
	if r.Failure != nil {
		h.failed(x.Caller.Tenant)
	}
	runtime.KeepAlive(h)
	return r
}

// Event implements [chain.Plugin].
func (h *handle) Event(ctx context.Context, e *abi.Event, m host.Mode) host.Result {
	r := h.plugin.Event(ctx, e, m)
	if r.Failure != nil {
		h.failed(e.Caller.Tenant)
	}
	runtime.KeepAlive(h)
	return r
}

// About implements [chain.Plugin].
func (h *handle) About() host.About { return h.loaded().About() }

// failed tells of a quarantine, and never waits: whoever calls is a request.
func (h *handle) failed(tenant int64) {
	until, why := h.loaded().Quarantine(tenant)
	if until.IsZero() || !h.told.CompareAndSwap(false, true) {
		return
	}
	select {
	case h.loader.quarantined <- notice{h, tenant, why}:
	default:
		h.told.Store(false)
	}
}

// broken stands for a plugin that cannot be loaded and must not fail.
type broken struct{ name, why string }

// notLoaded is the reason of its failures.
const notLoaded host.Reason = "load"

// Request implements [chain.Plugin].
func (b broken) Request(context.Context, *abi.Exchange, host.Mode) host.Result {
	return host.Result{
		Verdict: &abi.Verdict{Action: abi.Deny, Denial: abi.Denial{
			Status: 503, Code: "plugin_failed", Message: "A policy of this gateway could not be evaluated. Try again later.",
		}},
		Failure: &host.Failure{Plugin: b.name, Call: "load", Reason: notLoaded, Detail: b.why},
	}
}

// Event implements [chain.Plugin].
func (broken) Event(context.Context, *abi.Event, host.Mode) host.Result {
	return host.Result{Verdict: &abi.Verdict{}}
}

// About implements [chain.Plugin].
func (b broken) About() host.About { return host.About{Name: b.name, Request: true} }

// loading refuses the exchanges of an attachment that is about to be in force.
func loading() *policy.Denial {
	d := policy.Denied(503, "plugin_loading", "A policy of this gateway is being loaded. Try again in a moment.")
	d.RetryAfter = 2 * time.Second
	return d
}

// unread is the error of a module that could not be read: it says nothing of the plugin.
type unread struct{ err error }

func (e *unread) Error() string { return fmt.Sprint("read the module: ", e.err) }
func (e *unread) Unwrap() error { return e.err }

// problem is why an attachment is not in force.
type problem struct {
	of     identity
	err    error
	unread bool // what was in force before stays so
	Problem
}

// Problem is an attachment that is not in force as it should be.
type Problem struct {
	Attachment store.AttachmentID
	Plugin     string
	Denies     bool // its exchanges are denied
	Stale      bool // an earlier version or configuration is still in force
	Err        error
}

func problemOf(a *store.Attachment, id identity, err error) problem {
	_, cannotRead := errors.AsType[*unread](err)
	return problem{
		of: id, err: err, unread: cannotRead,
		Problem: Problem{Attachment: a.ID, Plugin: a.Plugin, Denies: a.Mode == store.PluginClosed, Err: err},
	}
}
