// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/plugins/meter"
	"github.com/weir-proxy/weir/plugins/proxywasm"
)

// Report is what a module is, and whether a gateway would take it.
type Report struct {
	Digest   string          `json:"digest"` // SHA-256 in hexadecimal
	Bytes    int             `json:"bytes"`
	ABI      string          `json:"abi"` // weir/1, proxy-wasm, or empty
	Hooks    []string        `json:"hooks"`
	Imports  []Import        `json:"imports"`
	Grants   []string        `json:"grants"` // that its imports need
	About    json.RawMessage `json:"about,omitempty"`
	Schema   json.RawMessage `json:"schema,omitempty"`
	Memory   Memory          `json:"memory"`
	Obstacle string          `json:"obstacle,omitempty"` // why each call needs a new instance
	Refused  []string        `json:"refused"`            // why it would be refused; empty: it would not
	Remarks  []string        `json:"remarks"`
}

// Import is a function that a module wants of its host.
type Import struct {
	Name  string `json:"name"`
	Grant string `json:"grant,omitempty"`
}

// Memory of a module, in bytes.
type Memory struct {
	Min      int64 `json:"min"`      // that it begins with
	Max      int64 `json:"max"`      // that it may grow to, within the host's limit
	Pristine int   `json:"pristine"` // that each call begins with, after it was configured
}

// Hooks of weir/1, and the prefix of the export by which a proxy-wasm module is known.
const (
	abiWeir        = "weir/1"
	exportABI      = "weir_abi_1"
	abiProxyWasm   = "proxy-wasm"
	proxyWasmABI   = "proxy_abi_version_"
	proxyWasmHook  = "proxy_on_"
	sectionAbout   = "weir.about"
	sectionSchema  = "weir.schema"
	exportPrefix   = "weir_"
	hookOfRequests = "weir_request"
	hookOfEvents   = "weir_event"
	hookConfigure  = "weir_configure"
)

// Inspect reads a module and starts it once with a configuration, with every capability granted. It changes nothing.
func Inspect(ctx context.Context, wasm, config []byte, limits host.Limits) (*Report, error) {
	sum := sha256.Sum256(wasm)
	r := &Report{
		Digest: hex.EncodeToString(sum[:]), Bytes: len(wasm), Hooks: []string{}, Imports: []Import{}, Grants: []string{}, Refused: []string{}, Remarks: []string{},
	}
	m, err := meter.Instrument(wasm, meterLimits(limits))
	if err != nil {
		r.Refused = append(r.Refused, err.Error())
		return r, nil
	}
	r.look(m)
	h, err := host.New(ctx, host.Options{})
	if err != nil {
		return nil, err
	}
	p, err := start(ctx, h, m, host.Source{Name: "inspected", Wasm: wasm, Config: config, Limits: limits, Grants: host.Capabilities()})
	if err != nil {
		r.refuse(err)
		return r, h.Close(ctx)
	}
	r.Memory.Pristine = p.About().Pristine
	return r, errors.Join(p.Close(), h.Close(ctx))
}

// started is a plugin of either ABI.
type started interface {
	About() host.About
	Close() error
}

// start loads a module by the ABI that it speaks.
func start(ctx context.Context, h *host.Host, m *meter.Module, s host.Source) (started, error) {
	if !proxywasm.Speaks(m) {
		return h.Load(ctx, s)
	}
	filters, err := proxywasm.New(ctx, h)
	if err != nil {
		return nil, err
	}
	p, err := filters.Load(ctx, proxywasm.Source{Name: s.Name, Wasm: s.Wasm, Config: s.Config, Limits: proxywasm.Limits{Limits: s.Limits}})
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (r *Report) refuse(err error) {
	if f, ok := errors.AsType[*host.Failure](err); ok && f.Reason == host.Refused {
		r.Remarks = append(r.Remarks, f.Detail)
		return
	}
	for line := range strings.Lines(err.Error()) {
		r.Refused = append(r.Refused, strings.TrimPrefix(strings.TrimSuffix(line, "\n"), "plugin inspected: "))
	}
}

// look notes what the module says without being run.
func (r *Report) look(m *meter.Module) {
	r.Memory = Memory{Min: int64(m.MinPages) * meter.PageSize, Max: int64(m.MaxPages) * meter.PageSize}
	r.Obstacle = m.Obstacle
	for _, f := range m.Exports {
		switch {
		case f.Name == exportABI:
			r.ABI = abiWeir
		case strings.HasPrefix(f.Name, proxyWasmABI) && r.ABI == "":
			r.ABI = abiProxyWasm + " " + strings.ReplaceAll(strings.TrimPrefix(f.Name, proxyWasmABI), "_", ".")
		case f.Name == hookOfRequests, f.Name == hookOfEvents, f.Name == hookConfigure, strings.HasPrefix(f.Name, proxyWasmHook):
			r.Hooks = append(r.Hooks, f.Name)
		}
	}
	for _, f := range m.Imports {
		i := Import{Name: f.Module + "." + f.Name}
		if need, ok := host.Needs(f.Module, f.Name); ok && need != "" {
			i.Grant = string(need)
			if !slices.Contains(r.Grants, i.Grant) {
				r.Grants = append(r.Grants, i.Grant)
			}
		}
		r.Imports = append(r.Imports, i)
	}
	if proxywasm.Speaks(m) {
		r.Remarks = append(r.Remarks, "what it logs is dropped, unless log is granted; what it calls by proxy_http_call needs an --upstream of that name")
	}
	slices.Sort(r.Grants)
	slices.Sort(r.Hooks)
	slices.SortFunc(r.Imports, func(a, b Import) int { return strings.Compare(a.Name, b.Name) })
	for name, to := range map[string]*json.RawMessage{sectionAbout: &r.About, sectionSchema: &r.Schema} {
		b, ok := m.Custom[name]
		switch {
		case ok && json.Valid(b):
			*to = b
		case ok:
			r.Remarks = append(r.Remarks, "its custom section "+name+" is not JSON")
		}
	}
	slices.Sort(r.Remarks)
}

// Needs returns the capabilities that a module must be granted, sorted, so that it can be attached; none if it cannot be read.
func Needs(wasm []byte) []host.Capability {
	return slices.Sorted(slices.Values(needs(wasm, host.Limits{})))
}

// needs returns the capabilities that the imports of a module need; none if it cannot be read.
func needs(wasm []byte, limits host.Limits) []host.Capability {
	out := []host.Capability{}
	m, err := meter.Instrument(wasm, meterLimits(limits))
	if err != nil {
		return out // loading it says why
	}
	for _, f := range m.Imports {
		if need, ok := host.Needs(f.Module, f.Name); ok && need != "" && !slices.Contains(out, need) {
			out = append(out, need)
		}
	}
	return out
}

func meterLimits(l host.Limits) meter.Limits {
	return meter.Limits{Bytes: l.ModuleBytes, MemoryPages: uint32(min(max(l.MemoryBytes/meter.PageSize, 0), 1<<16))}
}
