// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/plugins/meter"
	"github.com/weir-proxy/weir/plugins/proxywasm"
)

// Sections of a module: plugins/ABI.md, section 10.
const (
	sectionSchema = "weir.schema"
	sectionAbout  = "weir.about"
)

// Refusal says why a plugin, or the way in which it is to be attached, cannot be used.
type Refusal struct {
	Reason string
	hint   string
}

// Error implements error.
func (r *Refusal) Error() string { return r.Reason }

// Hint says what to do about it; it may be empty.
func (r *Refusal) Hint() string { return r.hint }

// InspectPlugin loads a module to see whether it works, without a configuration and with all capabilities, and returns what it says of itself: JSON, each empty if
// it says nothing. Only a [*Refusal] is about the module.
func (l *Loader) InspectPlugin(ctx context.Context, name string, wasm []byte) (about, schema string, err error) {
	m, err := read(wasm)
	if err != nil {
		return "", "", refusal(ctx, fmt.Errorf("plugin %s: %w", name, err))
	}
	if err := checkSchema(m.Custom[sectionSchema]); err != nil {
		return "", "", err
	}
	a := store.Attachment{Plugin: name}
	if proxywasm.Speaks(m) {
		err = l.tryFilter(ctx, &a, wasm)
	} else {
		for _, c := range host.Capabilities() {
			a.Grants = append(a.Grants, string(c))
		}
		err = l.tryOut(ctx, &a, wasm)
	}
	if f, failed := errors.AsType[*host.Failure](err); failed && f.Reason == host.Refused { // what wants a configuration works so far
		err = nil
	}
	if err != nil {
		return "", "", refusal(ctx, err)
	}
	return string(m.Custom[sectionAbout]), string(m.Custom[sectionSchema]), nil
}

// TryPlugin loads a module as an attachment would, to see whether it works. Only a [*Refusal] is about the plugin and the attachment.
func (l *Loader) TryPlugin(ctx context.Context, a store.Attachment, wasm []byte) error {
	for _, h := range a.Headers {
		if !slices.Contains(l.Headers, h) {
			return &Refusal{
				fmt.Sprintf("the header %q does not come to the processor, so that no plugin can be shown it", h),
				"name it in plugins.headers of weir.yaml and restart the processor, or do without",
			}
		}
	}
	m, err := read(wasm)
	if err != nil {
		return refusal(ctx, fmt.Errorf("plugin %s: %w", a.Plugin, err))
	}
	known, try := host.Capabilities(), l.tryOut
	if proxywasm.Speaks(m) {
		known, try = []host.Capability{host.Log}, l.tryFilter
	} else if len(a.Upstreams) > 0 {
		return &Refusal{
			fmt.Sprintf("the plugin %s speaks weir/1, in which a plugin calls nobody", a.Plugin), "leave out --upstream, which is for plugins that speak proxy-wasm",
		}
	}
	for _, g := range a.Grants {
		if !slices.Contains(known, host.Capability(g)) {
			return &Refusal{fmt.Sprintf("there is no capability %q to grant", g), fmt.Sprintf("there are: %s", join(known))}
		}
	}
	if err := checkConfig(m.Custom[sectionSchema], a.Config); err != nil {
		return err
	}
	err = try(ctx, &a, wasm)
	if err == nil {
		return nil
	}
	refused := refusal(ctx, err)
	if r, ok := errors.AsType[*Refusal](refused); ok && r.hint == "" {
		r.hint = hintFor(m, &a, err)
	}
	return refused
}

// hintFor is what to try with a module that cannot be attached like this; empty if nobody knows.
func hintFor(m *meter.Module, a *store.Attachment, err error) string {
	grants, missing := slices.Clone(a.Grants), false
	for _, f := range m.Imports {
		if need, ok := host.Needs(f.Module, f.Name); ok && need != "" && !slices.Contains(grants, string(need)) {
			grants, missing = append(grants, string(need)), true
		}
	}
	if missing {
		slices.Sort(grants)
		return "to grant what it needs: --grant " + strings.Join(grants, ",")
	}
	if f, ok := errors.AsType[*host.Failure](err); ok && f.Reason == host.Refused && len(m.Custom[sectionSchema]) > 0 {
		return schemaHint
	}
	return ""
}

// tryOut loads a module that speaks weir/1, and closes it.
func (l *Loader) tryOut(ctx context.Context, a *store.Attachment, wasm []byte) error {
	p, err := l.Host.Load(ctx, l.source(a, wasm))
	if err != nil {
		return err
	}
	return p.Close()
}

// tryFilter loads a module that speaks proxy-wasm, and closes it.
func (l *Loader) tryFilter(ctx context.Context, a *store.Attachment, wasm []byte) error {
	p, err := l.Filters.Load(ctx, l.filterSource(a, wasm))
	if err != nil {
		return err
	}
	return p.Close()
}

func join(all []host.Capability) string {
	names := make([]string, len(all))
	for i, c := range all {
		names[i] = string(c)
	}
	return strings.Join(names, ", ")
}

// refusal takes the hint out of an error of the host.
func refusal(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	if f, ok := errors.AsType[*host.Failure](err); ok {
		return &Refusal{fmt.Sprintf("plugin %s: %s: %s", f.Plugin, f.Call, f.Detail), f.Hint()}
	}
	return &Refusal{Reason: err.Error()}
}
