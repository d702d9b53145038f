// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/weir-proxy/weir/plugins/meter"
)

// ABI is how modules and the host speak with each other. Meters, memory, resets, WASI and failures are the same for all; this is the rest.
type ABI struct {
	Check func(*meter.Module) error // refuses what does not speak it
	Start func(*Instance) error     // brings a new instance to the state that is kept as its image; _initialize has been called
	Owner any                       // of a guest that starts: it may call its imports from _initialize on
}

// Function is a function that modules of an ABI may import. Params and Results are value types as they are encoded, such as "\x7f" for i32. The arguments come in the
// stack, and the result goes there; the upper half of a 32-bit number may hold anything.
type Function struct {
	Params, Results string
	Do              func(g *Instance, stack []uint64)
}

// Offer makes functions importable under the name of a module. It is called once for a name, before modules are loaded that import from it.
func (h *Host) Offer(ctx context.Context, module string, functions map[string]Function) error {
	b := h.runtime.NewHostModuleBuilder(module)
	for name, f := range functions {
		b.NewFunctionBuilder().WithGoFunction(api.GoFunc(func(ctx context.Context, stack []uint64) { f.Do((*Instance)(instanceOf(ctx)), stack) }),
			[]byte(f.Params), []byte(f.Results)).Export(name)
	}
	if _, err := b.Instantiate(ctx); err != nil {
		return fmt.Errorf("offer the functions of %s: %w", module, err)
	}
	return nil
}

// CheckImports refuses a module that imports anything but these functions of a module, and WASI.
func CheckImports(m *meter.Module, module string, functions map[string]Function) error {
	var errs []error
	for _, f := range m.Imports {
		var params, results string
		known := false
		switch f.Module {
		case module:
			have, ok := functions[f.Name]
			known, params, results = ok, have.Params, have.Results
		case moduleWASI:
			have, ok := wasi[f.Name]
			known, params, results = ok, have.params, have.results
		}
		switch {
		case !known:
			errs = append(errs, fmt.Errorf("it imports %s.%s, which does not exist here", f.Module, f.Name))
		case string(f.Params) != params || string(f.Results) != results:
			errs = append(errs, fmt.Errorf("it imports %s.%s with another type than (%s) -> (%s)", f.Module, f.Name, typeNames(params), typeNames(results)))
		}
	}
	return errors.Join(errs...)
}

// Module is a module of another ABI than weir/1, ready to be instantiated by any number of goroutines.
type Module struct{ plugin *Plugin }

// LoadModule is [Host.Load] for another ABI. [Limits].Concurrency is how many guests there may be at a time.
func (h *Host) LoadModule(ctx context.Context, s Source, by *ABI) (*Module, error) {
	p, err := h.load(ctx, s, by)
	if err != nil {
		return nil, err
	}
	return &Module{p}, nil
}

// Meter returns what was found in the module.
func (m *Module) Meter() *meter.Module { return m.plugin.module }

// Digest returns the SHA-256 of the module, in hexadecimal.
func (m *Module) Digest() string { return m.plugin.digest }

// Pristine returns how many bytes of memory each guest begins with, and why each must be made anew; that is empty if none must.
func (m *Module) Pristine() (size int, obstacle string) {
	if m.plugin.image != nil {
		size = m.plugin.image.size
	}
	return size, m.plugin.module.Obstacle
}

// Close waits until every guest has been released, and frees the module.
func (m *Module) Close() error { return m.plugin.Close() }

// Now is the time by the host's clock.
func (m *Module) Now() time.Time { return m.plugin.host.clock() }

// Verbose reports whether what guests log at the level debug is kept.
func (m *Module) Verbose() bool {
	return m.plugin.host.logger.Enabled(context.Background(), slog.LevelDebug)
}

// Log logs a line in the name of the module, outside of a call: level 0 debug, 1 info, 2 warn, 3 error. A line that is longer than what a call may log is dropped,
// and said to be.
func (m *Module) Log(level int, line []byte) {
	l := &logs{limits: &m.plugin.limits}
	l.add(level, line)
	m.plugin.host.report(m.plugin.source.Name, l)
}

// Failure makes a failure of an error of [Instance.Call] or [Module.Take].
func (m *Module) Failure(call string, err error) *Failure {
	return failure(m.plugin.source.Name, call, err)
}

// Quarantined returns a failure if a tenant's calls leave the module alone for now; nil if they do not.
func (m *Module) Quarantined(tenant int64, call string) *Failure {
	why, yes := m.plugin.breaker.quarantined(tenant, m.Now())
	if !yes {
		return nil
	}
	return &Failure{Plugin: m.plugin.source.Name, Call: call, Reason: Quarantined, Detail: why}
}

// Note takes the outcome of a tenant's use, nil if it went well. Who asked [Module.Quarantined] notes one outcome.
func (m *Module) Note(tenant int64, f *Failure) {
	p := m.plugin
	if f != nil && f.Reason.ours() {
		return
	}
	if p.breaker.note(tenant, f, m.Now()) {
		p.host.logger.Error("a plugin fails often and is left alone", "plugin", p.source.Name, "digest", p.digest, "tenant", tenant, "pause", quarantine, "err", f)
	}
}

// Quarantine says until when the module is left alone by a tenant's calls, and its last failure; the zero time if it is not.
func (m *Module) Quarantine(tenant int64) (until time.Time, why string) {
	return m.plugin.Quarantine(tenant)
}

// Take returns a guest in the state of the image, for one tenant. It goes back by [Instance.Release].
func (m *Module) Take(ctx context.Context, tenant int64) (*Instance, error) {
	i, err := m.plugin.pool.take(ctx, m.plugin, tenant, m.plugin.limits.Time)
	if err != nil {
		return nil, err
	}
	return (*Instance)(i), nil
}

// Instance is an instance of a module of any ABI. One goroutine uses it at a time.
type Instance instance

// Owner is what the ABI knows of the guest.
func (g *Instance) Owner() any { return g.owner }

// SetOwner sets what Owner returns.
func (g *Instance) SetOwner(o any) { g.owner = o }

// Budget bounds a call.
type Budget struct {
	Fuel   int64
	Time   time.Duration
	Random uint64 // where the random numbers of WASI begin
}

// Begin opens a call: what is invoked until [Instance.End] shares one budget.
func (g *Instance) Begin(b Budget) {
	now := g.plugin.host.clock()
	g.logs = logs{limits: &g.plugin.limits}
	g.call = call{budget: b.Fuel, left: b.Fuel, until: now.Add(b.Time), now: now, tenant: g.tenant, random: b.Random, log: &g.logs}
}

// End closes a call, passes on what was logged in it, and returns the fuel that it used.
func (g *Instance) End() (fuel int64) {
	g.plugin.host.report(g.plugin.source.Name, g.call.log)
	return min(g.call.budget, g.call.budget-g.call.left)
}

// Invoke calls an export with arguments and returns its result, if it has one.
func (g *Instance) Invoke(name string, args ...uint64) (result uint64, err error) {
	i := (*instance)(g)
	defer func() {
		if fault := recover(); fault != nil { // wazero itself: nothing of the instance can be trusted
			g.plugin.host.logger.Error("a plugin made its runtime panic", "plugin", g.plugin.source.Name, "panic", fmt.Sprint(fault), "stack", string(debug.Stack()))
			err = &stop{HostFault, fmt.Sprint("panic: ", fault)}
		}
	}()
	defer i.leave()
	i.enter()
	return g.Nest(name, args...)
}

// Nest is Invoke for a function that the guest has called: it calls back, at the expense of the call that is under way.
func (g *Instance) Nest(name string, args ...uint64) (uint64, error) {
	f := g.hooks[name]
	if f == nil {
		if f = g.mod.ExportedFunction(name); f == nil {
			return 0, &stop{Trap, "it does not export " + name}
		}
		g.hooks[name] = f
	}
	var slots [8]uint64
	copy(slots[:], args)
	if err := f.CallWithStack(g.ctx, slots[:]); err != nil {
		return 0, err
	}
	return slots[0], nil
}

// Bytes returns a view of memory that the guest named. It ends the call if there is none.
func (g *Instance) Bytes(at, n uint64) []byte { return (*instance)(g).bytes(at, n) }

// Charge takes fuel for what a function does.
func (g *Instance) Charge(n int64) { (*instance)(g).charge(n) }

// Log adds a line to the log of the call: 0 debug, 1 info, 2 warn, 3 error.
func (g *Instance) Log(level int, message []byte) { g.call.log.add(level, message) }

// Now is the time as the guest sees it: it stands still during a call.
func (g *Instance) Now() time.Time { return g.call.now }

// Memory is how many bytes of memory the guest has.
func (g *Instance) Memory() uint32 { return g.mod.Memory().Size() }

// Abort ends the call that is under way; it does not return.
func (g *Instance) Abort(why Reason, detail string) { panic(&stop{why, detail}) }

// Rethrow ends the call that is under way for the reason why [Instance.Nest] failed; it does not return.
func (g *Instance) Rethrow(err error) {
	f := failure(g.plugin.source.Name, "", err)
	panic(&stop{f.Reason, f.Detail})
}

// Exports reports whether the guest has a function of this name for the host.
func (g *Instance) Exports(name string) bool {
	_, ok := g.plugin.module.Export(name)
	return ok
}

// Failed makes a failure of an error, for [ABI].Start.
func (g *Instance) Failed(call string, err error) error {
	return failure(g.plugin.source.Name, call, err)
}

// Release gives the guest back. If it is not sound, because a call failed in it, it is not used again.
func (g *Instance) Release(sound bool) {
	i := (*instance)(g)
	i.owner = nil
	if sound && i.reset() {
		i.plugin.pool.put(i)
		return
	}
	i.plugin.pool.drop(i)
}
