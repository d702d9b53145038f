// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/weir-proxy/weir/plugins/meter"
	"github.com/weir-proxy/weir/plugins/pii"
)

// Modules that a plugin may import from.
const (
	moduleHelpers = "weir"
	moduleWASI    = "wasi_snapshot_preview1"
)

// helper is a function that plugins may import. The numbers of its parameters come in the stack, and its result goes there; the upper half of a 32-bit number
// may hold anything.
type helper struct {
	params, results string
	needs           Capability // none if empty
	do              func(i *instance, stack []uint64)
}

const (
	i1 = typeI32
	i2 = i1 + i1
	i4 = i2 + i2
)

// What helpers cost, besides what lengths do: plugins/ABI.md, section 7.
const (
	costLog   = 1000
	costCount = 1000

	costTokens, costTokensByte = 1000, 32 // of the input of the hook
)

// helperNamed finds a helper.
func helperNamed(module, name string) (helper, bool) {
	switch module {
	case moduleHelpers:
		h, ok := helpers[name]
		return h, ok
	case moduleWASI:
		h, ok := wasi[name]
		return h, ok
	}
	return helper{}, false
}

// Needs returns the capability that a function which plugins may import needs, empty if none. It is false for a function that weir/1 does not have.
func Needs(module, name string) (Capability, bool) {
	h, ok := helperNamed(module, name)
	return h.needs, ok
}

var helpers = map[string]helper{
	"log":   {i1 + i2, "", Log, helpLog},
	"now":   {"", typeI64, Clock, func(i *instance, s []uint64) { s[0] = uint64(i.call.now.UnixNano()) }},
	"find":  {i4 + i2, i1, Regexp, helpFind},
	"scan":  {i1 + i4, i1, PII, helpScan},
	"json":  {i4, typeI64, JSON, helpJSON},
	"count": {i2 + typeI64 + typeI64, typeI64, Counting, helpCount},

	"tokens": {"", typeI64, Tokens, helpTokens},
}

// offer makes the helpers importable.
func (h *Host) offer(ctx context.Context) error {
	for module, functions := range map[string]map[string]helper{moduleHelpers: helpers, moduleWASI: wasi} {
		b := h.runtime.NewHostModuleBuilder(module)
		for name, f := range functions {
			b.NewFunctionBuilder().WithGoFunction(api.GoFunc(func(ctx context.Context, stack []uint64) { f.do(instanceOf(ctx), stack) }),
				[]byte(f.params), []byte(f.results)).Export(name)
		}
		if _, err := b.Instantiate(ctx); err != nil {
			return fmt.Errorf("offer the helpers of %s: %w", module, err)
		}
	}
	_, err := h.runtime.NewHostModuleBuilder(meter.ImportModule).NewFunctionBuilder().
		WithGoFunction(api.GoFunc(func(ctx context.Context, stack []uint64) {
			stack[0] = uint64(instanceOf(ctx).refuel(int64(stack[0])))
		}), []byte(typeI64), []byte(typeI64)).Export(meter.ImportRefuel).Instantiate(ctx)
	if err != nil {
		return fmt.Errorf("offer fuel: %w", err)
	}
	return nil
}

// helpLog is log(level, address, length).
func helpLog(i *instance, s []uint64) {
	b := i.bytes(s[1], s[2])
	i.charge(costLog + int64(len(b)))
	i.call.log.add(int(int32(uint32(s[0]))), b)
}

// helpFind is find(pattern, its length, text, its length, out, max).
func helpFind(i *instance, s []uint64) {
	pattern, text := i.bytes(s[0], s[1]), i.bytes(s[2], s[3])
	most := uint64(uint32(s[5]))
	out := i.bytes(s[4], clamp(most*8))
	re := i.plugin.patterns.compile(string(pattern))
	// As if it were compiled in each call: whether it was before must not show in the fuel.
	i.charge(100*int64(len(pattern)) + 20*int64(re.size))
	if re.regexp == nil {
		s[0] = uint64(math.MaxUint32) // -1
		return
	}
	i.charge(int64(len(text)) * int64(32+2*re.size))
	found := re.regexp.FindAllIndex(text, int(min(most, math.MaxInt32)))
	for n, m := range found {
		binary.LittleEndian.PutUint32(out[n*8:], uint32(m[0]))
		binary.LittleEndian.PutUint32(out[n*8+4:], uint32(m[1]))
	}
	s[0] = uint64(len(found))
}

// clamp makes a length that is too large one that no memory has.
func clamp(n uint64) uint64 { return min(n, math.MaxUint32) }

// helpScan is scan(kinds, text, its length, out, max).
func helpScan(i *instance, s []uint64) {
	kinds, text := pii.Kind(uint32(s[0])), i.bytes(s[1], s[2])
	most := uint64(uint32(s[4]))
	out := i.bytes(s[3], clamp(most*12))
	i.charge(int64(len(text)) * min(32, 8*int64(kinds.Count())))
	n := 0
	for f := range pii.Scan(text, kinds) {
		if uint64(n) == most {
			break
		}
		binary.LittleEndian.PutUint32(out[n*12:], uint32(f.Start))
		binary.LittleEndian.PutUint32(out[n*12+4:], uint32(f.End))
		binary.LittleEndian.PutUint32(out[n*12+8:], uint32(f.Kind))
		n++
	}
	s[0] = uint64(n)
}

// helpJSON is json(text, its length, path, its length).
func helpJSON(i *instance, s []uint64) {
	text, path := i.bytes(s[0], s[1]), i.bytes(s[2], s[3])
	i.charge(2 * int64(len(text)+len(path)))
	start, end, err := findJSON(text, string(path))
	switch {
	case err != nil:
		s[0] = math.MaxUint64 - 1 // -2
	case start < 0:
		s[0] = math.MaxUint64 // -1
	default:
		s[0] = uint64(start)<<32 | uint64(end-start)
	}
}

// helpCount is count(name, its length, delta, window).
func helpCount(i *instance, s []uint64) {
	const maxCounterName = 128
	name := i.bytes(s[0], s[1])
	i.charge(costCount)
	window := int64(s[3])
	if len(name) > maxCounterName || window < 0 || window > math.MaxInt64/int64(time.Millisecond) {
		s[0] = 1 << 63
		return
	}
	key := Counter{Tenant: i.call.tenant, Plugin: i.plugin.source.Name, Name: string(name)}
	v, ok := i.plugin.host.counters.Add(key, int64(s[2]), time.Duration(window)*time.Millisecond, i.call.now)
	if !ok {
		v = math.MinInt64
	}
	s[0] = uint64(v)
}

// helpTokens is tokens(). The number is counted only here, since that takes longer than most plugins do.
func helpTokens(i *instance, s []uint64) {
	i.charge(costTokens + costTokensByte*int64(i.call.input))
	s[0] = 0
	if i.call.tokens != nil {
		s[0] = uint64(i.call.tokens())
	}
}
