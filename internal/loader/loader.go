// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/plugins/chain"
	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/plugins/proxywasm"
	"github.com/weir-proxy/weir/policy"
)

// Modules has the modules of plugins, and takes back versions that fail. *store.Store is one.
type Modules interface {
	Wasm(ctx context.Context, d store.Digest) ([]byte, error)
	RollBack(ctx context.Context, r store.RollBack) (a store.Attachment, done bool, err error)
}

// Options are what [New] needs.
type Options struct {
	Host       *host.Host
	Filters    *proxywasm.Host // on the same host, for plugins that speak proxy-wasm
	Modules    Modules
	Limits     host.Limits   // of attachments that have none of their own
	Headers    []string      // that plugins may be shown, since Envoy brings them here
	Chain      chain.Options // of each table
	Logger     *slog.Logger  // nil: nothing is logged
	Registerer prometheus.Registerer
}

// Loader keeps plugins loaded. Its methods may be called by many goroutines.
type Loader struct {
	Options
	table       atomic.Pointer[chain.Table]
	metrics     *metrics
	wake        chan struct{} // holds one: there is something to load
	quarantined chan notice

	// mu guards what follows. It is not held while something is loaded.
	mu       sync.Mutex
	closed   bool
	open     int // plugins that are not closed
	revision int64
	wanted   []store.Attachment
	loaded   map[identity]*handle           // of what is wanted, or in force until that is loaded
	inForce  map[store.AttachmentID]placed  // what an attachment is in the table, if it is not broken
	problems map[store.AttachmentID]problem // that have to do with what is wanted
	overdue  map[store.AttachmentID]bool    // of what is wanted and was not loaded when [Loader.Insist] was called
	settled  chan struct{}                  // closed when there is nothing left to load
}

// placed is an attachment as it is in a table.
type placed struct {
	store.Attachment
	handle *handle
}

// New returns a loader without plugins. Nothing is loaded until [Loader.Run] runs.
func New(o Options) *Loader {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Loader{
		Options: o, wake: make(chan struct{}, 1), quarantined: make(chan notice, 64), loaded: map[identity]*handle{},
		inForce: map[store.AttachmentID]placed{}, problems: map[store.AttachmentID]problem{}, overdue: map[store.AttachmentID]bool{}, settled: make(chan struct{}),
	}
	l.metrics = newMetrics(o.Registerer, l)
	l.table.Store(chain.NewTable(nil, o.Chain))
	close(l.settled)
	return l
}

// Judge returns who judges an exchange of a key by its plugins; nil if it has none. It is what [policy.Options].Judge asks for.
func (l *Loader) Judge(t *policy.Tenant, k *policy.Key) policy.Judge {
	return l.table.Load().Judge(t, k)
}

// Want says what is attached from now on. What is loaded already is in force when it returns; what was taken away is not. The rest follows as Run
// loads it, all at once.
func (l *Loader) Want(revision int64, attachments []store.Attachment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.revision = revision
	l.wanted = slices.DeleteFunc(slices.Clone(attachments), func(a store.Attachment) bool { return a.Disabled })
	for id, p := range l.problems {
		if !slices.ContainsFunc(l.wanted, func(a store.Attachment) bool { return a.ID == id && l.identify(&a) == p.of }) {
			delete(l.problems, id)
		}
	}
	for id := range l.overdue {
		if !slices.ContainsFunc(l.wanted, func(a store.Attachment) bool { return a.ID == id }) {
			delete(l.overdue, id)
		}
	}
	l.enforceLocked()
	if len(l.pendingLocked()) > 0 {
		select {
		case <-l.settled:
			l.settled = make(chan struct{})
		default:
		}
		select {
		case l.wake <- struct{}{}:
		default:
		}
		return
	}
	l.settleLocked()
}

func (l *Loader) settleLocked() {
	select {
	case <-l.settled:
	default:
		close(l.settled)
	}
	l.metrics.revision.Set(float64(l.revision))
}

// Settled waits until all that is wanted is in force, or is a problem. It returns the error of ctx if that takes too long.
func (l *Loader) Settled(ctx context.Context) error {
	l.mu.Lock()
	settled := l.settled
	l.mu.Unlock()
	select {
	case <-settled:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Insist says that what is not loaded yet is not waited for any longer: an attachment of the mode closed that has never been in force denies its exchanges from now on,
// until it is loaded. Those of the other modes are left out, as before.
func (l *Loader) Insist() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.pendingLocked() {
		if _, placed := l.inForce[a.ID]; placed || l.overdue[a.ID] || a.Mode != store.PluginClosed {
			continue
		}
		l.overdue[a.ID] = true
		l.Logger.Warn("a plugin is still being loaded, and its exchanges are refused until it is", "plugin", a.Plugin, "attachment", int64(a.ID), "digest", a.Digest.String())
	}
	l.enforceLocked()
}

// pendingLocked returns what is neither loaded nor known not to load.
func (l *Loader) pendingLocked() []store.Attachment {
	var out []store.Attachment
	for _, a := range l.wanted {
		_, failed := l.problems[a.ID]
		if l.loaded[l.identify(&a)] == nil && !failed {
			out = append(out, a)
		}
	}
	return out
}

// enforceLocked puts in force what can be of what is wanted, as one table, and forgets what is not needed for it.
func (l *Loader) enforceLocked() {
	now := map[store.AttachmentID]placed{}
	var links []chain.Link
	for _, a := range l.wanted {
		p, failed := l.problems[a.ID]
		before, had := l.inForce[a.ID]
		h := l.loaded[l.identify(&a)]
		switch {
		case h != nil:
			now[a.ID] = placed{a, h}
		case had && (!failed || p.unread):
			now[a.ID] = before
		case failed && a.Mode == store.PluginClosed:
			links = append(links, link(&a, broken{name: a.Plugin, why: p.err.Error()}))
			continue
		case l.overdue[a.ID] && !failed && a.Mode == store.PluginClosed:
			in := link(&a, nil)
			in.Denial = loading()
			links = append(links, in)
			continue
		default:
			continue
		}
		in := now[a.ID]
		links = append(links, in.link())
	}
	l.inForce = now
	keep := map[*handle]bool{}
	for _, p := range now {
		keep[p.handle] = true
	}
	for _, a := range l.wanted {
		keep[l.loaded[l.identify(&a)]] = true
	}
	for id, h := range l.loaded {
		if !keep[h] {
			delete(l.loaded, id)
		}
	}
	l.table.Store(chain.NewTable(links, l.Chain))
	l.metrics.count(l)
}

// link makes an attachment a part of a table.
func link(a *store.Attachment, p chain.Plugin) chain.Link {
	return chain.Link{
		ID: int64(a.ID), Name: a.Plugin, Plugin: p, Mode: modeOf(a.Mode), Tenant: a.Tenant, Key: a.Key, Place: a.Place, Headers: a.Headers, Body: a.Body,
		RequestOnly: a.RequestOnly,
	}
}

func (p *placed) link() chain.Link {
	if p.handle.filter == nil {
		return link(&p.Attachment, p.handle)
	}
	l := link(&p.Attachment, nil)
	l.Filter = filter{p.handle}
	return l
}

func modeOf(m store.PluginMode) host.Mode {
	switch m {
	case store.PluginOpen:
		return host.Open
	case store.PluginShadow:
		return host.Shadow
	}
	return host.Closed
}

// Run loads what is wanted, and rolls back versions that fail, until ctx ends.
func (l *Loader) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.follow(ctx) })
	g.Go(func() error { return l.rollBack(ctx) })
	return g.Wait()
}

// Pauses before another attempt at what could not be loaded.
const (
	firstPause = time.Second
	maxPause   = 30 * time.Second
)

// follow loads what is wanted whenever that changes, and tries again what failed.
func (l *Loader) follow(ctx context.Context) error {
	pause := firstPause
	retry := time.NewTimer(0)
	retry.Stop()
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.wake:
			pause = firstPause
		case <-retry.C:
			pause = min(2*pause, maxPause)
		}
		if l.loadAll(ctx) {
			retry.Stop()
		} else {
			retry.Reset(pause)
		}
	}
}

// loadAll loads what is pending and what failed before, and puts it in force. It reports whether nothing has failed.
func (l *Loader) loadAll(ctx context.Context) bool {
	l.mu.Lock()
	revision := l.revision
	todo := slices.Clone(l.wanted)
	l.mu.Unlock()
	for _, a := range todo {
		l.mu.Lock()
		have, superseded := l.loaded[l.identify(&a)] != nil, l.revision != revision
		l.mu.Unlock()
		switch {
		case superseded:
			return false // Want has woken us again, unless only what failed is left
		case have:
			continue
		}
		h, err := l.load(ctx, &a)
		if ctx.Err() != nil {
			return true
		}
		l.loadedOne(&a, h, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.revision != revision {
		return false
	}
	l.enforceLocked()
	l.settleLocked()
	return len(l.problems) == 0
}

// loadedOne notes what came of loading an attachment, if it is still wanted as it was.
func (l *Loader) loadedOne(a *store.Attachment, h *handle, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := l.identify(a)
	if !slices.ContainsFunc(l.wanted, func(w store.Attachment) bool { return w.ID == a.ID && l.identify(&w) == id }) {
		return
	}
	if err == nil {
		l.loaded[id] = h
		delete(l.overdue, a.ID)
		if _, failed := l.problems[a.ID]; failed {
			l.Logger.Info("a plugin can be loaded after all", "plugin", a.Plugin, "attachment", int64(a.ID), "digest", a.Digest.String())
			delete(l.problems, a.ID)
		}
		return
	}
	p := problemOf(a, id, err)
	if old, known := l.problems[a.ID]; !known || old.err.Error() != err.Error() {
		l.Logger.Error("a plugin cannot be loaded", "plugin", a.Plugin, "attachment", int64(a.ID), "digest", a.Digest.String(), "mode", string(a.Mode), "err", err)
	}
	l.problems[a.ID] = p
}

// Close frees all plugins and the host. No exchange may be under way, and Run must have ended.
func (l *Loader) Close(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	return l.Host.Close(ctx)
}
