// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"fmt"
	"math"
)

// Names that the instrumented module has and the original may not.
const (
	// ImportModule is the module that [ImportRefuel] is imported from.
	ImportModule = "weir.meter"
	// ImportRefuel is the function (balance i64) -> (balance i64) that is called when the fuel is below zero, when the memory has grown, or with [StackExhausted]. In the last case
	// it must not return; if it does, the module traps.
	ImportRefuel = "refuel"
	// ExportFuel is the mutable global (i64) that holds the fuel. It is 0 in a new instance, so that whatever runs first asks for some.
	ExportFuel = "weir.fuel"
	// ExportStack is the mutable global (i64) that holds the words of stack that are left. The host sets it before each call: a trap leaves it as it was in the depth.
	ExportStack = "weir.stack"
	// ExportStart is the module's start function, () -> (). It is there only if the module has one.
	ExportStart = "weir.start"

	reserved     = "weir."  // what no name of the original module may begin with
	globalPrefix = "weir.g" // the mutable globals of the module, numbered from 0
)

// StackExhausted is the balance with which [ImportRefuel] is called when the stack is used up. No fuel ever gets there.
const StackExhausted = math.MinInt64

// PageSize is the unit of linear memory.
const PageSize = 1 << 16

// Limits bound what a module may ask for before it runs. A zero means the default that stands beside it.
type Limits struct {
	Bytes       int    // of the binary; 16 MiB
	MemoryPages uint32 // of 64 KiB, that the memory may grow to; 512 (32 MiB)
	TableSlots  uint32 // that each table may grow to; 65,536
	Locals      uint32 // of one function, with its parameters; 4,096
	Passive     int    // bytes of one passive data segment; 1 MiB
}

func (l Limits) withDefaults() Limits {
	set(&l.Bytes, 16<<20)
	set(&l.MemoryPages, 512)
	set(&l.TableSlots, 1<<16)
	set(&l.Locals, 4096)
	set(&l.Passive, 1<<20)
	return l
}

func set[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// Func is a function that a module imports or exports.
type Func struct {
	Module  string // that it is imported from; empty for an export
	Name    string
	Params  []byte // value types as they are encoded: 0x7f i32, 0x7e i64, 0x7d f32, 0x7c f64, 0x7b v128, 0x70 funcref, 0x6f externref
	Results []byte
}

// Module is an instrumented module and what a host has to know of it.
type Module struct {
	Binary   []byte
	Imports  []Func            // of the original, in order
	Exports  []Func            // the functions among the exports of the original, in order
	Memory   bool              // it exports its memory under the name "memory"
	MinPages uint32            // that its memory begins with
	MaxPages uint32            // that its memory may grow to: its own limit or that of [Limits], whichever is lower
	Start    bool              // there is an [ExportStart]
	Globals  []string          // exports by which a host gets and sets the mutable globals of the original
	Custom   map[string][]byte // the custom sections of the original; they are not in Binary, but for names of functions
	// Obstacle says why putting back memory and globals would not make an instance new; empty means that it does.
	Obstacle string
}

// Export returns the exported function of this name.
func (m *Module) Export(name string) (Func, bool) {
	for _, f := range m.Exports {
		if f.Name == name {
			return f, true
		}
	}
	return Func{}, false
}

// Instrument returns the module with meters in it. The result is a valid module if the original is one: whether it is, the engine says when it compiles
// the result.
//
// # Errors
//
//   - the bytes are not a module, or one that is cut off or larger than the limits;
//   - it uses something outside of WebAssembly 2.0 (threads, tail calls, exceptions, several memories, …);
//   - it imports a memory, table or global, or has a mutable global of type v128, which no host could put back;
//   - it has a name that begins with "weir.", which the meter itself uses.
func Instrument(wasm []byte, limits Limits) (*Module, error) {
	limits = limits.withDefaults()
	if len(wasm) > limits.Bytes {
		return nil, fmt.Errorf("the module has %d bytes, and the limit is %d", len(wasm), limits.Bytes)
	}
	if len(wasm) < 8 || string(wasm[:8]) != header {
		return nil, fmt.Errorf("the file is not a core WebAssembly module of version 1: it does not begin with %q", header)
	}
	d := decoder{limits: limits, out: &Module{Custom: map[string][]byte{}}}
	if err := d.decode(wasm); err != nil {
		return nil, err
	}
	if err := d.encode(); err != nil {
		return nil, err
	}
	return d.out, nil
}

const header = "\x00asm\x01\x00\x00\x00"
