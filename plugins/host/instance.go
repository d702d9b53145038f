// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/weir-proxy/weir/plugins/meter"
)

// instance is a memory, globals and the functions that work on them. One goroutine uses it at a time.
type instance struct {
	plugin *Plugin
	tenant int64 // the only one that it ever works for
	ctx    context.Context
	mod    api.Module
	memory *linear

	fuel, stack api.MutableGlobal
	globals     []api.MutableGlobal
	alloc       api.Function
	hooks       map[string]api.Function
	slots       [4]uint64 // arguments and results

	call  call // the one that is under way
	logs  logs // of it
	owner any  // of a [Instance]
}

type instanceKey struct{}

// instanceOf returns the instance that calls a helper.
func instanceOf(ctx context.Context) *instance { return ctx.Value(instanceKey{}).(*instance) }

// instantiate makes an instance that has run nothing yet.
func (p *Plugin) instantiate(tenant int64) (*instance, error) {
	i := &instance{plugin: p, tenant: tenant, hooks: map[string]api.Function{}}
	i.ctx = context.WithValue(context.Background(), instanceKey{}, i)
	var failed error
	allocate := experimental.MemoryAllocatorFunc(func(_, most uint64) experimental.LinearMemory {
		i.memory, failed = newLinear(max(most, meter.PageSize))
		if failed != nil {
			return outOfMemory{}
		}
		return i.memory
	})
	mod, err := p.host.runtime.InstantiateModule(experimental.WithMemoryAllocator(i.ctx, allocate), p.compiled,
		wazero.NewModuleConfig().WithName("").WithStartFunctions().WithRandSource(nothing{}))
	if err = errors.Join(failed, err); err != nil {
		return nil, fmt.Errorf("instantiate: %w", err)
	}
	i.mod = mod
	i.fuel = mod.ExportedGlobal(meter.ExportFuel).(api.MutableGlobal)
	i.stack = mod.ExportedGlobal(meter.ExportStack).(api.MutableGlobal)
	for _, g := range p.module.Globals {
		i.globals = append(i.globals, mod.ExportedGlobal(g).(api.MutableGlobal))
	}
	i.alloc = mod.ExportedFunction(exportAlloc)
	for _, h := range []string{exportConfigure, exportRequest, exportEvent} {
		if f := mod.ExportedFunction(h); f != nil {
			i.hooks[h] = f
		}
	}
	return i, nil
}

// nothing stands in for the random numbers that an instance would be seeded with: our own WASI gives others, and seeding takes longer than the rest.
type nothing struct{}

func (nothing) Read(b []byte) (int, error) { return len(b), nil }

// outOfMemory fails for want of address space; wazero has no other way to be told.
type outOfMemory struct{}

func (outOfMemory) Reallocate(uint64) []byte { return nil }
func (outOfMemory) Free()                    {}

// prepare brings a new instance to the pristine state, within the time of a call.
func (i *instance) prepare(done <-chan struct{}) error {
	if i.plugin.image == nil {
		return i.start(i.plugin.limits.Time, done)
	}
	m := i.plugin.image
	if have := i.mod.Memory().Size() >> 16; have < m.pages() {
		if _, ok := i.mod.Memory().Grow(m.pages() - have); !ok {
			return errors.New("grow the memory to the size of the image")
		}
	}
	if err := i.memory.attach(&m.memory, m.size); err != nil {
		return err
	}
	i.restoreGlobals()
	return nil
}

// start runs everything that comes before the first hook.
func (i *instance) start(limit time.Duration, done <-chan struct{}) error {
	p := i.plugin
	i.call = call{left: p.limits.FuelToStart, budget: p.limits.FuelToStart, now: p.loaded, done: done, log: &i.logs}
	i.logs = logs{limits: &p.limits}
	i.call.until = p.host.clock().Add(limit)
	i.owner = p.abi.Owner
	defer func() { p.host.report(p.source.Name, i.call.log) }()
	for _, name := range []string{meter.ExportStart, exportInitialize} {
		if f := i.mod.ExportedFunction(name); f != nil {
			i.enter()
			if err := f.CallWithStack(i.ctx, i.slots[:]); err != nil {
				return failure(p.source.Name, name, err)
			}
			i.leave()
		}
	}
	return p.abi.Start((*Instance)(i))
}

// configure gives the plugin its configuration.
func (i *instance) configure() error {
	p := i.plugin
	if _, ok := i.hooks[exportConfigure]; !ok {
		return nil
	}
	answer, err := i.invoke(exportConfigure, p.source.Config)
	if err != nil {
		return failure(p.source.Name, exportConfigure, err)
	}
	if answer != nil {
		return &Failure{
			Plugin: p.source.Name, Call: exportConfigure, Reason: Refused,
			Detail: fmt.Sprintf("it does not take its configuration: %.500s", answer),
		}
	}
	return nil
}

// enter readies the meters for a call.
func (i *instance) enter() {
	i.fuel.Set(0)
	i.stack.Set(uint64(i.plugin.limits.StackWords))
}

// leave takes back what a call did not use.
func (i *instance) leave() {
	i.call.left += int64(i.fuel.Get())
	i.fuel.Set(0)
}

// invoke hands bytes to a hook and returns its answer, which is a view of the memory; nil if it gave none.
func (i *instance) invoke(hook string, input []byte) ([]byte, error) {
	defer i.leave()
	i.enter()
	memory := i.mod.Memory()
	i.slots[0], i.slots[1] = 0, 0
	if len(input) > 0 {
		i.slots[0] = uint64(len(input))
		if err := i.alloc.CallWithStack(i.ctx, i.slots[:]); err != nil {
			return nil, err
		}
		at := uint32(i.slots[0])
		if !memory.Write(at, input) {
			return nil, &stop{BadPointer, fmt.Sprintf("%s gave address %d for %d bytes, which is not in its memory of %d", exportAlloc, at, len(input), memory.Size())}
		}
		i.slots[0], i.slots[1] = uint64(at), uint64(len(input))
	}
	if err := i.hooks[hook].CallWithStack(i.ctx, i.slots[:]); err != nil {
		return nil, err
	}
	answer := i.slots[0]
	if answer == 0 {
		return nil, nil
	}
	at, n := uint32(answer>>32), uint32(answer)
	if n > i.plugin.limits.AnswerBytes {
		return nil, &stop{BadAnswer, fmt.Sprintf("it answers with %d bytes, and the limit is %d", n, i.plugin.limits.AnswerBytes)}
	}
	b, ok := memory.Read(at, n)
	if !ok {
		return nil, &stop{BadPointer, fmt.Sprintf("it answers with %d bytes at address %d, which are not in its memory of %d", n, at, memory.Size())}
	}
	return b, nil
}

// reset puts the instance back into the pristine state, and reports whether that was possible.
func (i *instance) reset() bool {
	m := i.plugin.image
	if m == nil || int(i.mod.Memory().Size()) != m.size {
		return false // a memory that grew does not shrink
	}
	i.memory.learn(&m.hot)
	if i.memory.reset(&m.hot) != nil {
		return false
	}
	i.restoreGlobals()
	i.call, i.logs = call{}, logs{}
	return true
}

func (i *instance) restoreGlobals() {
	for n, g := range i.globals {
		g.Set(i.plugin.image.globals[n])
	}
}

func (i *instance) close() { _ = i.mod.Close(context.Background()) } // frees memory; there is nothing else in it that could fail
