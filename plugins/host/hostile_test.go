// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/plugins/abi"
	"github.com/weir-proxy/weir/plugins/meter"
	. "github.com/weir-proxy/weir/plugins/wasmtest" //nolint:revive // instructions read as such
)

// attack is what a hostile plugin does, and what becomes of it.
type attack struct {
	code Code // ends with what the hook returns on the stack, or does not end
	want Reason
	text string // of the failure's detail
}

// attacks are made in each hook. Function 1 is log, local 2 and 3 are i32 of the hook's own.
func attacks() map[string]attack {
	// A call of itself, by the table.
	deep := Seq(Get(0), Get(1), I32Const(0), Op(0x11, 0, 0))
	forever := func(c ...Code) Code { return Seq(Loop(Seq(c...), Br(0)), goOn()) }
	return map[string]attack{
		"infinite loop":   {forever(), OutOfFuel, "fuel of"},
		"empty loops":     {Seq(Loop(Loop(Block(Br(2)))), goOn()), OutOfFuel, "fuel of"},
		"deep recursion":  {deep, OutOfStack, "deeper than its stack"},
		"trap":            {Unreachable(), Trap, "unreachable"},
		"division":        {Seq(I32Const(1), I32Const(0), Op(0x6d), Drop(), goOn()), Trap, "divide by zero"},
		"wrong load":      {Seq(I32Const(-1), I32Load(), Drop(), goOn()), Trap, "out of bounds"},
		"bulk-memory":     {forever(I32Const(0), I32Const(7), I32Const(2<<16), MemoryFill()), OutOfFuel, "fuel of"},
		"bulk outside":    {Seq(I32Const(0), I32Const(7), I32Const(-1), MemoryFill(), goOn()), OutOfFuel, "fuel of"},
		"allocation bomb": {forever(I32Const(1), MemoryGrow(), Drop()), OutOfFuel, "fuel of"},
		"touch all": {
			Seq(I32Const(510), MemoryGrow(), Drop(), forever(Get(2), I32Const(1), I32Store(), Get(2), I32Const(4096), Add(), Set(2))), Trap, "out of bounds",
		},
		"answer outside": {I64Const(0x7fffffff<<32 | 16), BadPointer, "not in its memory"},
		"answer of -1":   {I64Const(-1), BadAnswer, "4294967295 bytes"},
		"huge answer":    {Seq(I32Const(100), MemoryGrow(), Drop(), I64Const(2<<20)), BadAnswer, "2097152 bytes"},
		"garbage answer": {Seq(I32Const(answerAt), I32Const(-1), I32Store(), answering(4)), BadAnswer, "ends inside a field"},
		"log flood":      {forever(I32Const(1), I32Const(0), I32Const(4096), Call(0)), OutOfFuel, "fuel of"},
		"log outside":    {Seq(I32Const(1), I32Const(-10), I32Const(100), Call(0), goOn()), BadPointer, "100 bytes at address 4294967286"},
		"find outside": {
			Seq(I32Const(0), I32Const(1), I32Const(0), I32Const(1), I32Const(0), I32Const(-1), Call(1), Drop(), goOn()), BadPointer, "not in its memory",
		},
		"scan outside":   {Seq(I32Const(1), I32Const(0), I32Const(10), I32Const(0), I32Const(-1), Call(2), Drop(), goOn()), BadPointer, "not in its memory"},
		"count for ever": {forever(I32Const(0), I32Const(1), I64Const(1), I64Const(0), Call(3), Drop()), OutOfFuel, "fuel of"},
		"exit":           {Seq(I32Const(3), Call(4), goOn()), Exited, "code 3"},
	}
}

func hostileImports(m *Builder) {
	m.Type(Types{I32, I32}, Types{I64}) // type 0: that of a hook
	m.Import(moduleHelpers, "log", Types{I32, I32, I32}, nil)
	m.Import(moduleHelpers, "find", Types{I32, I32, I32, I32, I32, I32}, Types{I32})
	m.Import(moduleHelpers, "scan", Types{I32, I32, I32, I32, I32}, Types{I32})
	m.Import(moduleHelpers, "count", Types{I32, I32, I64, I64}, Types{I64})
	m.Import(moduleWASI, "proc_exit", Types{I32}, nil)
}

// hostile is a plugin that does harm in a hook if its input has the byte 'X' first, and goes on otherwise.
func hostile(name string, a attack) []byte {
	m := builder(hostileImports)
	m.Table(FuncRef, 1, 1)
	harm := hook(m, "harm", Types{I32, I32}, a.code)
	m.Elem(0, harm)
	for _, h := range []string{exportConfigure, exportRequest, exportEvent} {
		if h == name {
			hook(m, h, nil, Get(0), Get(1), Call(harm))
		} else {
			hook(m, h, nil, goOn())
		}
	}
	return m.Bytes()
}

func TestHostilePluginsCostOneCall(t *testing.T) {
	t.Parallel()
	h := newHost(t, Options{})
	for name, a := range attacks() {
		for _, in := range []string{exportRequest, exportEvent} {
			t.Run(name+" in "+in, func(t *testing.T) {
				p := load(t, h, hostile(in, a), func(s *Source) { s.Grants = Capabilities(); s.Limits.Fuel = 3_000_000 })
				call := func() Result {
					if in == exportRequest {
						return p.Request(t.Context(), request(), Closed)
					}
					return p.Event(t.Context(), event(), Closed)
				}
				r := call()
				if r.Failure == nil || r.Failure.Reason != a.want || !strings.Contains(r.Failure.Detail, a.text) || r.Failure.Call != in {
					t.Fatalf("%+v; want %s, %q", r.Failure, a.want, a.text)
				}
				if r.Verdict.Action != abi.Deny || r.Verdict.Denial.Status != 503 || strings.Contains(r.Verdict.Denial.Message, a.text) {
					t.Errorf("the verdict is %+v", r.Verdict)
				}
				if used := r.Fuel; used > 3_000_000+500*200+20_000 {
					t.Errorf("it used %d fuel", used)
				}
				if again := call(); again.Fuel != r.Fuel || again.Failure == nil || again.Failure.Detail != r.Failure.Detail {
					t.Errorf("the second time: %d fuel and %v; at first %d and %v", again.Fuel, again.Failure, r.Fuel, r.Failure)
				}
				if len(r.Logs) > 64 {
					t.Errorf("%d lines were logged", len(r.Logs))
				}
				// The other hook works, in what is left of the instances.
				if in == exportRequest {
					if r := p.Event(t.Context(), event(), Closed); r.Failure != nil {
						t.Errorf("an event after it: %v", r.Failure)
					}
				}
			})
		}
	}
}

func TestHostilePluginsAreNotLoaded(t *testing.T) {
	t.Parallel()
	h := newHost(t, Options{})
	for name, a := range attacks() {
		t.Run(name, func(t *testing.T) {
			_, err := h.Load(t.Context(), Source{Name: "test", Wasm: hostile(exportConfigure, a), Config: []byte("{}"), Grants: Capabilities(), Limits: Limits{FuelToStart: 3_000_000}})
			f, ok := errors.AsType[*Failure](err)
			if !ok || f.Call != exportConfigure {
				t.Fatalf("error %v", err)
			}
			if f.Reason != a.want && f.Reason != Refused {
				t.Errorf("reason %s: %s", f.Reason, f.Detail)
			}
		})
	}
}

func TestStartFunctionsThatDoNotReturnAreEnded(t *testing.T) {
	t.Parallel()
	h := newHost(t, Options{})
	for _, name := range []string{meter.ExportStart, exportInitialize} {
		m := builder(nil)
		hook(m, exportRequest, nil, goOn())
		if name == exportInitialize {
			m.Func(name, nil, nil, nil, Loop(Br(0)))
		} else {
			m.Start(m.Func("", nil, nil, nil, Loop(Br(0))))
		}
		_, err := h.Load(t.Context(), Source{Name: "test", Wasm: m.Bytes(), Limits: Limits{FuelToStart: 5_000_000}})
		f, ok := errors.AsType[*Failure](err)
		if !ok || f.Reason != OutOfFuel || f.Call != name {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWrongBuffersAreFailures(t *testing.T) {
	t.Parallel()
	h := newHost(t, Options{})
	for name, alloc := range map[string]Code{"far": I32Const(-16), "null": I32Const(0), "trap": Seq(Unreachable(), I32Const(0)), "loop": Seq(Loop(Br(0)), I32Const(0))} {
		m := NewBuilder()
		m.Memory(1, 1)
		m.Func(exportVersion, nil, nil, nil)
		m.Func(exportAlloc, Types{I32}, Types{I32}, nil, alloc)
		hook(m, exportRequest, nil, goOn())
		r := load(t, h, m.Bytes()).Request(t.Context(), request(), Closed)
		want := map[string]Reason{"far": BadPointer, "trap": Trap, "loop": OutOfFuel}[name]
		if want == "" {
			if r.Failure != nil {
				t.Errorf("%s: %v", name, r.Failure) // its own memory: its own loss
			}
			continue
		}
		if r.Failure == nil || r.Failure.Reason != want {
			t.Errorf("%s: %v; want %s", name, r.Failure, want)
		}
	}
}

func TestMemoryDoesNotGrowOverMillionsOfCalls(t *testing.T) {
	t.Parallel()
	calls := 1_000_000
	if testing.Short() {
		calls = 10_000
	}
	// Each call writes to the next page that no call before it has written to, if it can find it: it counts in memory and in a global.
	m := builder(nil)
	g := m.Global(I32, true, I32Const(0))
	hook(m, exportRequest, Types{I32},
		I32Const(0), I32Load(), GlobalGet(g), Add(), Tee(2),
		If(Unreachable()), // what was written is there
		I32Const(0), I32Const(1), I32Store(), I32Const(1), GlobalSet(g), goOn())
	h := newHost(t, Options{})
	p := load(t, h, m.Bytes())
	x := request()
	var first Result
	for n := range calls {
		r := p.Request(t.Context(), x, Closed)
		if n == 0 {
			first = r
		}
		if r.Failure != nil || r.Memory != first.Memory || r.Fuel != first.Fuel {
			t.Fatalf("call %d: %+v, at first %+v", n, r, first)
		}
	}
}

func TestGrowingPluginsBeginSmallEachTime(t *testing.T) {
	t.Parallel()
	m := builder(nil)
	hook(m, exportRequest, nil, I32Const(20), MemoryGrow(), Drop(), Op(0x3f, 0), I32Const(22), Op(0x47), If(Unreachable()), goOn())
	p := load(t, newHost(t, Options{}), m.Bytes())
	for n := range 2000 {
		if r := p.Request(t.Context(), request(), Closed); r.Failure != nil || r.Memory != 22<<16 {
			t.Fatalf("call %d: %+v", n, r)
		}
	}
	if len(p.pool.idle) != 0 {
		t.Errorf("%d instances that grew are kept", len(p.pool.idle))
	}
}

func TestCallsOfManyTenantsDoNotMeet(t *testing.T) {
	t.Parallel()
	m := builder(nil)
	hook(m, exportRequest, nil, goOn())
	p := load(t, newHost(t, Options{}), m.Bytes(), func(s *Source) { s.Limits.Idle = 4 })
	seen := map[*instance]int64{}
	for n := range 300 {
		x := request()
		x.Caller.Tenant = int64(n % 7)
		if r := p.Request(t.Context(), x, Closed); r.Failure != nil {
			t.Fatal(r.Failure)
		}
		for _, i := range p.pool.idle {
			if before, ok := seen[i]; ok && before != i.tenant {
				t.Fatalf("an instance went from tenant %d to %d", before, i.tenant)
			}
			seen[i] = i.tenant
		}
		if len(p.pool.idle) > p.pool.limit {
			t.Fatalf("%d instances are idle", len(p.pool.idle))
		}
	}
}

func ExampleFailure() {
	fmt.Println(&Failure{Plugin: "guard", Call: "weir_request", Reason: OutOfFuel, Detail: "it used up its fuel of 20000000"})
	// Output: plugin guard: weir_request: it used up its fuel of 20000000; look for a loop that does not end, or raise its limit of fuel
}
