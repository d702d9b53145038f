// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/plugins/meter"
)

// Exports of a plugin: plugins/ABI.md, section 1.
const (
	exportVersion    = "weir_abi_1"
	exportAlloc      = "weir_alloc"
	exportConfigure  = "weir_configure"
	exportRequest    = "weir_request"
	exportEvent      = "weir_event"
	exportInitialize = "_initialize"

	sectionSchema = "weir.schema"
	sectionAbout  = "weir.about"
)

// Source is a plugin to load.
type Source struct {
	Name   string // in logs, errors and the names of counters
	Wasm   []byte
	Config []byte // for weir_configure
	Limits Limits
	Grants []Capability
}

// Load makes a plugin ready for calls: it puts meters in, compiles, starts, configures and keeps the image. This takes from a millisecond to seconds,
// one module at a time; with a cache of compiled code, it takes a fraction of that for a module that was seen before.
//
// # Errors
//
//   - the module cannot be metered, or is not valid WebAssembly;
//   - it does not speak weir/1: an export is missing or has another type;
//   - it imports what does not exist, or a helper whose capability was not granted;
//   - a [*Failure]: it did not start, or did not take its configuration.
func (h *Host) Load(ctx context.Context, s Source) (*Plugin, error) {
	return h.load(ctx, s, &ABI{
		Check: func(m *meter.Module) error { return errors.Join(checkExports(m), checkImports(m, s.Grants)) },
		Start: func(g *Instance) error { return (*instance)(g).configure() },
	})
}

func (h *Host) load(ctx context.Context, s Source, by *ABI) (*Plugin, error) {
	limits := s.Limits.withDefaults()
	m, err := meter.Instrument(s.Wasm, meter.Limits{Bytes: limits.ModuleBytes, MemoryPages: uint32(min(max(limits.MemoryBytes/meter.PageSize, 1), 1<<16))})
	if err != nil {
		return nil, fmt.Errorf("plugin %s: %w", s.Name, err)
	}
	if err := by.Check(m); err != nil {
		return nil, fmt.Errorf("plugin %s: %w", s.Name, err)
	}
	sum := sha256.Sum256(s.Wasm)
	p := &Plugin{host: h, source: s, abi: by, limits: limits, module: m, loaded: h.clock(), digest: hex.EncodeToString(sum[:])}
	p.source.Wasm = nil // the caller's, and large
	p.pool.init(limits.Concurrency, limits.Idle)
	p.patterns.init()
	if err := p.compile(ctx); err != nil {
		return nil, fmt.Errorf("plugin %s: %w", s.Name, err)
	}
	if err := p.takeImage(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Plugin) compile(ctx context.Context) error {
	select {
	case p.host.compiling <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-p.host.compiling }()
	c, err := p.host.runtime.CompileModule(ctx, p.module.Binary)
	if err != nil {
		return fmt.Errorf("compile: %w", err)
	}
	p.compiled = c
	p.module.Binary = nil
	return nil
}

// takeImage starts the first instance and keeps what it is like then.
func (p *Plugin) takeImage() error {
	i, err := p.instantiate(0)
	if err != nil {
		return fmt.Errorf("plugin %s: %w", p.source.Name, err)
	}
	defer i.close() // it has worked for nobody, but also for no tenant
	if err := i.start(p.limits.TimeToStart, nil); err != nil {
		return err
	}
	if p.module.Obstacle != "" {
		return nil
	}
	size := i.mod.Memory().Size()
	memory, _ := i.mod.Memory().Read(0, size)
	f, err := freeze(memory)
	if err != nil {
		return fmt.Errorf("plugin %s: %w", p.source.Name, err)
	}
	p.image = &image{memory: f, size: int(size)}
	for _, g := range i.globals {
		p.image.globals = append(p.image.globals, g.Get())
	}
	return nil
}

// Types of exports, as meter.Func has them.
const (
	typeI32 = "\x7f"
	typeI64 = "\x7e"
)

func checkExports(m *meter.Module) error {
	if _, ok := m.Export(exportVersion); !ok {
		return fmt.Errorf("it does not export %s: it is no plugin of weir/1", exportVersion)
	}
	var errs []error
	for _, e := range []struct{ name, params, results string }{
		{exportVersion, "", ""},
		{exportAlloc, typeI32, typeI32},
		{exportConfigure, typeI32 + typeI32, typeI64},
		{exportRequest, typeI32 + typeI32, typeI64},
		{exportEvent, typeI32 + typeI32, typeI64},
		{exportInitialize, "", ""},
	} {
		f, ok := m.Export(e.name)
		if ok && (string(f.Params) != e.params || string(f.Results) != e.results) {
			errs = append(errs, fmt.Errorf("its export %s should be (%s) -> (%s)", e.name, typeNames(e.params), typeNames(e.results)))
		}
	}
	if _, ok := m.Export(exportAlloc); !ok {
		errs = append(errs, fmt.Errorf("it does not export %s", exportAlloc))
	}
	_, request := m.Export(exportRequest)
	_, event := m.Export(exportEvent)
	if !request && !event {
		errs = append(errs, fmt.Errorf("it exports neither %s nor %s: there is nothing to call", exportRequest, exportEvent))
	}
	if !m.Memory {
		errs = append(errs, errors.New("it does not export its memory under the name memory"))
	}
	return errors.Join(errs...)
}

func typeNames(types string) string {
	names := map[rune]string{0x7f: "i32", 0x7e: "i64", 0x7d: "f32", 0x7c: "f64"}
	var out []string
	for _, t := range []byte(types) {
		name, ok := names[rune(t)]
		if !ok {
			name = fmt.Sprintf("%#x", t)
		}
		out = append(out, name)
	}
	return strings.Join(out, ", ")
}

func checkImports(m *meter.Module, grants []Capability) error {
	var errs []error
	for _, f := range m.Imports {
		helper, ok := helperNamed(f.Module, f.Name)
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("it imports %s.%s, which weir/1 does not have", f.Module, f.Name))
		case string(f.Params) != helper.params || string(f.Results) != helper.results:
			errs = append(errs, fmt.Errorf("it imports %s.%s with another type than (%s) -> (%s)", f.Module, f.Name, typeNames(helper.params), typeNames(helper.results)))
		case helper.needs != "" && !slices.Contains(grants, helper.needs):
			errs = append(errs, fmt.Errorf("it imports %s.%s, which needs the capability %q: grant it, or use a plugin that does without", f.Module, f.Name, helper.needs))
		}
	}
	return errors.Join(errs...)
}
