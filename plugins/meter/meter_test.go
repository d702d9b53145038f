// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	. "github.com/weir-proxy/weir/plugins/wasmtest" //nolint:revive // instructions read as such
)

func TestFuelIsTheCostOfWhatWasDone(t *testing.T) {
	t.Parallel()
	m := NewBuilder()
	i32s := Types{I32}
	m.Func("nothing", nil, nil, nil)
	m.Func("three", nil, i32s, nil, I32Const(1), I32Const(2), Add())
	// Each round: get, const, sub, tee, br_if are 5.
	m.Func("count", i32s, nil, nil, Loop(Get(0), I32Const(1), Sub(), Tee(0), BrIf(0)))
	// get and if are 2; then 3 or nothing; then 1 and 1.
	m.Func("branch", i32s, i32s, nil, Get(0), If(I32Const(1), Drop(), I32Const(1), Drop()), I32Const(7))
	leaf := m.Func("", nil, nil, nil, I32Const(1), Drop())
	m.Func("calls", nil, nil, nil, Call(leaf), Call(leaf), Return())
	g := newBench(t).metered(t, m.Bytes())
	for _, tt := range []struct {
		name string
		args []uint64
		want int64
	}{
		{"nothing", nil, 0},
		{"three", nil, 3},
		{"count", []uint64{1}, 5},
		{"count", []uint64{1000}, 5000},
		{"branch", []uint64{0}, 3},
		{"branch", []uint64{1}, 7},
		{"calls", nil, 4 + 2 + 4 + 2 + 1},
	} {
		if _, used, err := g.call(tt.name, 1<<40, 1<<20, tt.args...); err != nil || used != tt.want {
			t.Errorf("%s%v used %d, %v; want %d", tt.name, tt.args, used, err, tt.want)
		}
	}
}

func TestFuelDoesNotDependOnSlices(t *testing.T) {
	t.Parallel()
	m := NewBuilder()
	m.Memory(4, 4)
	m.Func("work", Types{I32}, nil, nil,
		Loop(Get(0), I32Const(100_000), I32Const(1), MemoryFill(), I32Const(0), I32Const(7), I32Const(150_000), MemoryFill(),
			Get(0), I32Const(1), Sub(), Tee(0), BrIf(0)))
	g := newBench(t).metered(t, m.Bytes())
	_, want, err := g.call("work", 1<<40, 1<<40, 50)
	if err != nil {
		t.Fatal(err)
	}
	for _, slice := range []int64{1, 2, 3, 100, 4096, 1 << 20} {
		_, used, err := g.call("work", 1<<40, slice, 50)
		if err != nil || used != want {
			t.Errorf("in slices of %d it used %d, %v; want %d", slice, used, err, want)
		}
		if slice == 4096 && g.asked < 50*2 {
			t.Errorf("the guest asked %d times: long fills are not cut", g.asked)
		}
	}
	if _, used, err := g.call("work", want, 1<<10, 50); err != nil || used != want {
		t.Errorf("with just enough: %d, %v", used, err)
	}
	if _, _, err := g.call("work", want/2, 1<<10, 50); !errors.Is(err, errFuel) {
		t.Errorf("with half of it: %v", err)
	}
}

func TestEndlessGuestsRunOutOfFuel(t *testing.T) {
	t.Parallel()
	const fib = 4
	m := NewBuilder()
	m.Memory(1, -1)
	m.Func("loop", nil, nil, nil, Loop(Br(0)))
	m.Func("tight", nil, nil, nil, Loop(Loop(Block(Br(2)))))
	m.Func("nested", nil, nil, nil, Loop(Loop(I32Const(0), BrIf(0)), Br(0)))
	m.Func("table", nil, nil, nil, Loop(I32Const(0), Op(0x0e, 0, 0)))
	m.Func("fib", nil, nil, nil, I32Const(60), Call(fib+1))
	m.Func("", Types{I32}, nil, nil, Get(0), If(Get(0), I32Const(1), Sub(), Call(fib+1), Get(0), I32Const(1), Sub(), Call(fib+1)))
	m.Func("fill", nil, nil, nil, Loop(I32Const(0), I32Const(0), I32Const(65536), MemoryFill(), Br(0)))
	m.Func("grow", nil, nil, nil, Loop(I32Const(1), MemoryGrow(), Drop(), Br(0)))
	g := newBench(t).metered(t, m.Bytes())
	for _, name := range []string{"loop", "tight", "nested", "table", "fib", "fill", "grow"} {
		_, used, err := g.call(name, 1_000_000, 10_000)
		if !errors.Is(err, errFuel) {
			t.Errorf("%s: %v", name, err)
		}
		if used < 1_000_000 || used > 1_020_000 {
			t.Errorf("%s used %d of 1000000", name, used)
		}
		_, again, _ := g.call(name, 1_000_000, 10_000)
		if again != used {
			t.Errorf("%s used %d the second time, and %d before", name, again, used)
		}
	}
}

func TestDeepRecursionRunsOutOfStack(t *testing.T) {
	t.Parallel()
	m := NewBuilder()
	m.Func("deep", Types{I64}, Types{I64}, nil, Get(0), I64Const(1), Op(0x7c), Call(0))
	fat := make([]Code, 0, 4000)
	for range 1000 {
		fat = append(fat, Get(0), I64Const(3), Op(0x7e), Get(0), Op(0x7c))
	}
	for range 999 {
		fat = append(fat, Op(0x85))
	}
	m.Func("fat", Types{I64}, Types{I64}, nil, append(fat, Call(1))...)
	g := newBench(t).metered(t, m.Bytes())
	for _, name := range []string{"deep", "fat"} {
		if _, _, err := g.call(name, 1<<40, 1<<40, 1); !errors.Is(err, errStack) {
			t.Errorf("%s: %v", name, err)
		}
		if left := int64(g.global(ExportStack).Get()); left > 0 || left < -10_000 {
			t.Errorf("%s: %d words were left", name, left)
		}
	}
}

func TestStackIsGivenBack(t *testing.T) {
	t.Parallel()
	m := NewBuilder()
	leaf := m.Func("", nil, Types{I32, I32}, nil, I32Const(1), I32Const(2), Return())
	pair := m.Func("pair", Types{I32}, Types{I32, I32}, nil, Block(Get(0), BrIf(0), Call(leaf), Return()), Call(leaf))
	m.Func("many", nil, nil, Types{I32}, I32Const(10_000), Set(0),
		Loop(Get(0), Call(pair), Drop(), Drop(), Get(0), I32Const(1), Sub(), Tee(0), BrIf(0)))
	g := newBench(t).metered(t, m.Bytes())
	if _, _, err := g.call("many", 1<<40, 1<<40); err != nil {
		t.Fatal(err)
	}
	if left := g.global(ExportStack).Get(); left != testStack {
		t.Errorf("%d words of stack are left of %d", left, testStack)
	}
}

func TestIndicesOfFunctionsMove(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx := context.Background()
	_, err := b.runtime.NewHostModuleBuilder("env").NewFunctionBuilder().WithFunc(func() uint32 { return 100 }).Export("hundred").Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	m := NewBuilder()
	i32s := Types{I32}
	hundred := m.Import("env", "hundred", nil, i32s)
	one := m.Func("one", nil, i32s, nil, I32Const(1))
	two := m.Func("two", nil, i32s, nil, Call(one), Call(one), Add())
	m.Table(FuncRef, 4, 4)
	m.Elem(0, hundred, one, two)
	m.Declare(two)
	started := m.Global(I32, true, I32Const(0))
	m.Global(FuncRef, false, U32([]byte{0xd2}, two))
	m.Start(m.Func("", nil, nil, nil, GlobalGet(started), I32Const(1), Add(), GlobalSet(started)))
	typ := m.Type(nil, i32s)
	m.Func("indirect", i32s, i32s, nil, Get(0), U32(U32([]byte{0x11}, typ), 0))
	m.Func("reference", nil, i32s, nil, I32Const(3), U32([]byte{0xd2}, two), Op(0x26, 0), I32Const(3), U32(U32([]byte{0x11}, typ), 0))
	m.Func("fails", nil, nil, nil, Unreachable())
	m.Custom("name", Seq([]byte{1}, Bytes(nil, Seq([]byte{2, 1}, Bytes(nil, []byte("eins")), []byte{6}, Bytes(nil, []byte("kaputt"))))))
	g := b.metered(t, m.Bytes())
	for _, tt := range []struct {
		name string
		args []uint64
		want uint64
	}{
		{"one", nil, 1},
		{"two", nil, 2},
		{"indirect", []uint64{0}, 100},
		{"indirect", []uint64{1}, 1},
		{"indirect", []uint64{2}, 2},
		{"reference", nil, 2},
	} {
		got, _, err := g.call(tt.name, 1<<40, 1<<40, tt.args...)
		if err != nil || len(got) != 1 || got[0] != tt.want {
			t.Errorf("%s%v = %v, %v; want %d", tt.name, tt.args, got, err, tt.want)
		}
	}
	if n := g.global(globalPrefix + "0").Get(); n != 0 {
		t.Errorf("the start function ran %d times before the host called it", n)
	}
	if _, used, err := g.call(ExportStart, 1<<40, 1<<40); err != nil || used != 4 || g.global(globalPrefix+"0").Get() != 1 {
		t.Errorf("the start function: used %d, %v", used, err)
	}
	if _, _, err := g.call("fails", 1<<40, 1<<40); err == nil || !strings.Contains(err.Error(), "kaputt") {
		t.Errorf("the names of functions are lost: %v", err)
	}
}

func TestCopiesInPiecesAreCopies(t *testing.T) {
	t.Parallel()
	m := NewBuilder()
	m.Memory(8, 8)
	m.Func("copy", Types{I32, I32, I32}, nil, nil, Get(0), Get(1), Get(2), MemoryCopy())
	m.Func("fill", Types{I32, I32, I32}, nil, nil, Get(0), Get(1), Get(2), MemoryFill())
	g := newBench(t).metered(t, m.Bytes())
	mem, _ := g.mod.Memory().Read(0, 8*PageSize)
	model := make([]byte, len(mem))
	for i := range mem {
		mem[i] = byte(i*7 + i>>8)
	}
	copy(model, mem)
	for _, tt := range [][3]uint32{
		{0, 10, 300_000},
		{10, 0, 300_000},
		{0, 200_000, 200_000},
		{200_000, 0, 200_000},
		{5, 5, 400_000},
		{0, 1, 1},
		{7, 9, 65_536},
		{9, 7, 65_537},
		{70_000, 0, 70_000},
		{0, 0, 8 * PageSize},
		{1, 0, 8*PageSize - 1},
		{0, 0, 0},
		{8 * PageSize, 0, 0},
	} {
		if _, _, err := g.call("copy", 1<<40, 1000, uint64(tt[0]), uint64(tt[1]), uint64(tt[2])); err != nil {
			t.Fatalf("copy%v: %v", tt, err)
		}
		copy(model[tt[0]:tt[0]+tt[2]], model[tt[1]:tt[1]+tt[2]])
		if !bytes.Equal(mem, model) {
			t.Fatalf("copy%v has another result than copy", tt)
		}
	}
	for _, tt := range [][3]uint32{{0, 1, 8*PageSize - 1 + 1}, {8*PageSize - 10, 0, 100_000}, {0, 8*PageSize - 10, 100_000}, {0xffffffff, 0, 100_000}, {0, 0, 0xffffffff}} {
		name := "copy"
		if _, _, err := g.call(name, 1<<40, 1000, uint64(tt[0]), uint64(tt[1]), uint64(tt[2])); err == nil || !strings.Contains(err.Error(), "out of bounds") {
			t.Errorf("copy%v: %v", tt, err)
		}
		if !bytes.Equal(mem, model) {
			t.Fatalf("copy%v trapped and wrote", tt)
		}
	}
	if _, used, err := g.call("fill", 1<<40, 1000, 3, 9, 200_000); err != nil || used != 3+1+costCall-4+costBulk+200_000>>3 {
		t.Fatalf("fill: %d, %v", used, err)
	}
	for i := range 200_000 {
		model[3+i] = 9
	}
	if !bytes.Equal(mem, model) {
		t.Fatal("fill has another result")
	}
	if _, _, err := g.call("fill", 1<<40, 1000, 8*PageSize-99_999, 1, 100_000); err == nil || !bytes.Equal(mem, model) {
		t.Errorf("fill out of bounds: %v, or it wrote", err)
	}
}

func TestSegmentsSideBySideAreJoined(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		data func(m *Builder)
		want int
	}{
		"in order": {func(m *Builder) {
			m.Data(8, []byte("ab"))
			m.Data(10, []byte("cd"))
			m.Data(100, []byte("e"))
			m.Data(9000, []byte("f"))
		}, 2},
		"overlap":   {func(m *Builder) { m.Data(8, []byte("abcd")); m.Data(10, []byte("xy")); m.Data(10, []byte("z")) }, 3},
		"backwards": {func(m *Builder) { m.Data(100, []byte("abcd")); m.Data(8, []byte("xy")) }, 2},
		"passive":   {func(m *Builder) { m.Data(8, []byte("a")); m.Data(9, []byte("b")); m.Passive([]byte("c")) }, 3},
	} {
		m := NewBuilder()
		m.Memory(1, 1)
		tt.data(m)
		b := newBench(t)
		plain, err := b.start(m.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		want, _ := plain.mod.Memory().Read(0, PageSize)
		got, _ := b.metered(t, m.Bytes()).mod.Memory().Read(0, PageSize)
		if !bytes.Equal(got, want) {
			t.Errorf("%s: the memory differs", name)
		}
		d := decoder{limits: Limits{}.withDefaults(), out: &Module{Custom: map[string][]byte{}}}
		if err := d.decode(m.Bytes()); err != nil || len(d.joined()) != tt.want {
			t.Errorf("%s: %d segments, %v; want %d", name, len(d.joined()), err, tt.want)
		}
	}
}

func TestStateThatCannotBePutBackIsNamed(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]Code{
		"table.set":  Seq(I32Const(0), Op(0xd0, FuncRef), Op(0x26, 0)),
		"table.grow": Seq(Op(0xd0, FuncRef), I32Const(1), Op(0xfc, 15, 0), Drop()),
		"table.fill": Seq(I32Const(0), Op(0xd0, FuncRef), I32Const(1), Op(0xfc, 17, 0)),
		"table.copy": Seq(I32Const(0), I32Const(0), I32Const(1), Op(0xfc, 14, 0, 0)),
		"table.init": Seq(I32Const(0), I32Const(0), I32Const(1), Op(0xfc, 12, 0, 0)),
		"elem.drop":  Op(0xfc, 13, 0),
		"data.drop":  Op(0xfc, 9, 0),
		"":           Seq(I32Const(0), I32Const(0), I32Const(1), Op(0xfc, 8, 0, 0), Op(0xfc, 16, 0), Drop(), I32Const(0), Op(0x25, 0), Drop()),
	} {
		m := NewBuilder()
		m.Memory(1, 1)
		m.Table(FuncRef, 1, 10)
		m.Passive([]byte("data"))
		f := m.Func("f", nil, nil, nil, code)
		m.Declare(f)
		out, err := Instrument(m.Bytes(), Limits{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := strings.Contains(out.Obstacle, name) && (out.Obstacle == "") == (name == ""); !got {
			t.Errorf("%s: the obstacle is %q", name, out.Obstacle)
		}
		g := newBench(t).metered(t, m.Bytes())
		if _, _, err := g.call("f", 1<<40, 1<<40); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLimitsAreWrittenIntoTheModule(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ low, high, limit, want int }{{1, -1, 10, 10}, {1, 5, 10, 5}, {1, 50, 10, 10}, {10, -1, 10, 10}} {
		m := NewBuilder()
		m.Memory(tt.low, tt.high)
		m.Func("grow", Types{I32}, Types{I32}, nil, Get(0), MemoryGrow())
		out, err := Instrument(m.Bytes(), Limits{MemoryPages: uint32(tt.limit)})
		if err != nil {
			t.Fatal(err)
		}
		if int(out.MaxPages) != tt.want || int(out.MinPages) != tt.low {
			t.Errorf("%+v: from %d to %d", tt, out.MinPages, out.MaxPages)
		}
		g, err := newBench(t).start(out.Binary)
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			if _, _, err := g.call("grow", 1<<40, 1<<40, 1); err != nil {
				t.Fatal(err)
			}
		}
		if got := g.mod.Memory().Size() / PageSize; int(got) != tt.want {
			t.Errorf("%+v: it grew to %d pages", tt, got)
		}
	}
}

func TestModulesThatCannotBeMeteredAreRefused(t *testing.T) {
	t.Parallel()
	with := func(f func(m *Builder)) []byte {
		m := NewBuilder()
		f(m)
		return m.Bytes()
	}
	for name, tt := range map[string]struct {
		wasm []byte
		want string
	}{
		"empty":         {nil, "does not begin"},
		"component":     {[]byte("\x00asm\x0d\x00\x01\x00"), "core WebAssembly module of version 1"},
		"cut":           {with(func(m *Builder) { m.Func("f", nil, nil, nil) })[:20], "ends too early"},
		"large":         {append(with(func(*Builder) {}), make([]byte, 1<<20)...), "the limit is"},
		"memory":        {with(func(m *Builder) { m.Memory(1000, -1) }), "memory begins with 64000 KiB"},
		"table":         {with(func(m *Builder) { m.Table(FuncRef, 1<<20, -1) }), "1048576 slots"},
		"v128":          {with(func(m *Builder) { m.Global(V128, true, append(Code{0xfd, 12}, make([]byte, 16)...)) }), "v128"},
		"locals":        {with(func(m *Builder) { m.Func("f", nil, nil, make([]byte, 0)) })[:0], "does not begin"},
		"reserved":      {with(func(m *Builder) { m.Func("weir.fuel", nil, nil, nil) }), "the meter's own"},
		"reserved from": {with(func(m *Builder) { m.Import(ImportModule, "x", nil, nil) }), "the meter's own"},
		"atomics":       {with(func(m *Builder) { m.Func("f", nil, nil, nil, Op(0xfe, 0x03, 0)) }), "opcode 0xfe"},
		"tail call":     {with(func(m *Builder) { m.Func("f", nil, nil, nil, Op(0x12, 0)) }), "opcode 0x12"},
		"try":           {with(func(m *Builder) { m.Func("f", nil, nil, nil, Op(0x1f, 0x40, 0, 0x0b)) }), "opcode 0x1f"},
		"relaxed":       {with(func(m *Builder) { m.Func("f", nil, nil, nil, Op(0xfd, 0x80, 0x02)) }), "0xfd 0x100"},
		"behind":        {with(func(m *Builder) { m.Func("f", nil, nil, nil, Op(0x0b)) }), "behind its end"},
		"parameters":    {with(func(m *Builder) { m.Type(make(Types, 0), bytes.Repeat(Types{I32}, 17)) }), "17 results"},
		"globals": {with(func(m *Builder) {
			for range 1025 {
				m.Global(I32, true, I32Const(0))
			}
		}), "1025 mutable globals"},
		"start":   {with(func(m *Builder) { m.Start(m.Func("f", Types{I32}, nil, nil)) }), "start function"},
		"passive": {with(func(m *Builder) { m.Memory(1, 1); m.Passive(make([]byte, 600_000)) }), "the limit is"},
	} {
		if name == "locals" {
			tt.wasm = slices.Concat([]byte(header), []byte{1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0, 10, 10, 1, 8, 1, 0xff, 0xff, 0xff, 0xff, 0x0f, I32, 0x0b})
			tt.want = "locals"
		}
		_, err := Instrument(tt.wasm, Limits{Bytes: 1 << 20, Passive: 500_000})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want something of %q", name, err, tt.want)
		}
	}
}

func TestGuestsDoNotReachTheMeters(t *testing.T) {
	t.Parallel()
	// Indices behind the module's own are those of the meters: fuel, stack, the scratch local, the functions that were added.
	for name, change := range map[string]func(m *Builder){
		"read the fuel":      func(m *Builder) { m.Func("f", nil, Types{I64}, nil, GlobalGet(1)) },
		"write the fuel":     func(m *Builder) { m.Func("f", nil, nil, nil, I64Const(1<<40), GlobalSet(1)) },
		"write the stack":    func(m *Builder) { m.Func("f", nil, nil, nil, I64Const(1<<40), GlobalSet(2)) },
		"export the fuel":    func(m *Builder) { m.Export("fuel", 3, 1) },
		"begin with it":      func(m *Builder) { m.Global(I64, false, GlobalGet(2)) },
		"use the scratch":    func(m *Builder) { m.Func("f", Types{I32}, Types{I64}, Types{I32}, Get(2)) },
		"ask for fuel":       func(m *Builder) { m.Func("f", nil, nil, nil, Call(1)) },
		"export what asks":   func(m *Builder) { m.Func("f", nil, nil, nil); m.Export("g", 0, 1) },
		"put it in a table":  func(m *Builder) { m.Table(FuncRef, 1, 1); m.Elem(0, 0) },
		"make it the start":  func(m *Builder) { m.Start(0) },
		"use a type of them": func(m *Builder) { m.Func("f", nil, nil, nil, Op(0x02, 0x05), Op(0x0b)) },
	} {
		m := NewBuilder()
		m.Global(I32, true, I32Const(0))
		change(m)
		if _, err := Instrument(m.Bytes(), Limits{}); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
}

func TestWhatWazeroTakesIsKnown(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	module := func(code Code) []byte {
		m := NewBuilder()
		m.Memory(1, 1)
		m.Table(FuncRef, 1, 1)
		m.Passive([]byte("x"))
		m.Global(I32, true, I32Const(0))
		f := m.Func("f", nil, nil, Types{I32}, Unreachable(), code, Unreachable())
		m.Declare(f)
		return m.Bytes()
	}
	compiles := func(wasm []byte) bool {
		c, err := b.runtime.CompileModule(context.Background(), wasm)
		if err != nil {
			return false
		}
		_ = c.Close(context.Background())
		return true
	}
	// Every opcode with every number of zero bytes behind it: one of them is right if the opcode exists.
	known := 0
	try := func(opcode ...byte) {
		for zeros := range 18 {
			wasm := module(append(slices.Clone(Code(opcode)), make([]byte, zeros)...))
			theirs := compiles(wasm)
			out, err := Instrument(wasm, Limits{})
			if theirs && err != nil {
				t.Errorf("opcode %#x with %d zeros: wazero takes it, and the meter says %v", opcode, zeros, err)
			}
			if err == nil && compiles(out.Binary) != theirs {
				t.Errorf("opcode %#x with %d zeros: wazero says %t, and of the metered module %t", opcode, zeros, theirs, !theirs)
			}
			if theirs {
				known++
				return
			}
		}
	}
	for i := range 256 {
		if i == opMisc || i == opVector {
			for j := range 256 {
				try(append([]byte{byte(i)}, U32(nil, j)...)...)
			}
			continue
		}
		// What opens a block takes its type; the end follows by itself.
		try(byte(i), empty, opEnd)
		try(byte(i), 0x70)
		try(byte(i), 1, I32)
		try(byte(i))
	}
	if known < 400 {
		t.Errorf("wazero takes only %d of these: the test does not see them", known)
	}
}
