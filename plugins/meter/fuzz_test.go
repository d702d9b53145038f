// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

// compare runs a module as it is and metered, and returns what differs.
func (b *bench) compare(wasm []byte) error {
	plain, err := b.start(wasm)
	if err != nil {
		return fmt.Errorf("the module that was made up is wrong: %w", err)
	}
	defer plain.close()
	m, err := Instrument(wasm, Limits{})
	if err != nil {
		return fmt.Errorf("instrument: %w", err)
	}
	var first []int64
	for _, slice := range []int64{1 << 40, 777} {
		metered, err := b.start(m.Binary)
		if err != nil {
			return fmt.Errorf("the metered module is wrong: %w", err)
		}
		metered.stack = deepStack
		used, err := b.compareCalls(plain, metered, m, slice)
		metered.close()
		if err != nil {
			return fmt.Errorf("in slices of %d: %w", slice, err)
		}
		if first == nil {
			first = used
		} else if fmt.Sprint(first) != fmt.Sprint(used) {
			return fmt.Errorf("fuel %v, and in slices of %d %v", first, slice, used)
		}
		plain, err = b.start(wasm)
		if err != nil {
			return err
		}
		defer plain.close()
	}
	return nil
}

func (b *bench) compareCalls(plain, metered *guest, m *Module, slice int64) ([]int64, error) {
	var all []int64
	if m.Start { // the engine has called that of the plain one
		if _, _, err := metered.call(ExportStart, 1<<50, slice); err != nil {
			return nil, fmt.Errorf("the start function: %w", err)
		}
	}
	for _, f := range m.Exports {
		args := make([]uint64, len(f.Params))
		for i := range args {
			args[i] = uint64(i*1_000_003 + 5)
			if f.Params[i] == i32 {
				args[i] &= 0xffff
			}
		}
		want, wantErr := plain.mod.ExportedFunction(f.Name).Call(plain.context(), args...)
		got, used, gotErr := metered.call(f.Name, 1<<50, slice, args...)
		all = append(all, used)
		if errors.Is(gotErr, errStack) {
			return nil, fmt.Errorf("%s: out of stack after some %d calls", f.Name, 1000)
		}
		if kind(wantErr) != kind(gotErr) {
			return nil, fmt.Errorf("%s: error %q, metered %q", f.Name, kind(wantErr), kind(gotErr))
		}
		for i := range want {
			if f.Results[i] == i32 {
				want[i], got[i] = uint64(uint32(want[i])), uint64(uint32(got[i]))
			}
		}
		if fmt.Sprint(want) != fmt.Sprint(got) {
			return nil, fmt.Errorf("%s: result %v, metered %v", f.Name, want, got)
		}
		if wantErr == nil && int64(metered.global(ExportStack).Get()) != deepStack {
			return nil, fmt.Errorf("%s: the stack was not given back", f.Name)
		}
		if used < 0 {
			return nil, fmt.Errorf("%s: it gained %d fuel", f.Name, -used)
		}
	}
	return all, compareState(plain, metered, m)
}

func compareState(plain, metered *guest, m *Module) error {
	for _, e := range m.Globals {
		n := "g" + e[len(globalPrefix):]
		if want, got := plain.mod.ExportedGlobal(n).Get(), metered.global(e).Get(); want != got {
			return fmt.Errorf("global %s is %#x, metered %#x", n, want, got)
		}
	}
	size := plain.mod.Memory().Size()
	if metered.mod.Memory().Size() != size {
		return fmt.Errorf("memory of %d, metered %d", size, metered.mod.Memory().Size())
	}
	want, _ := plain.mod.Memory().Read(0, size)
	got, _ := metered.mod.Memory().Read(0, size)
	if !bytes.Equal(want, got) {
		return errors.New("the memories differ")
	}
	return nil
}

func TestMeteredModulesDoTheSame(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for i := range uint64(100) {
		if err := b.compare(program(rand.New(rand.NewPCG(i, 1)))); err != nil {
			t.Fatalf("program %d: %v", i, err)
		}
	}
}

// FuzzMeteredModulesDoTheSame makes up a program from a seed and runs it with and without meters.
func FuzzMeteredModulesDoTheSame(f *testing.F) {
	b := newBench(f)
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, s1, s2 uint64) {
		if err := b.compare(program(rand.New(rand.NewPCG(s1, s2)))); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzInstrument looks for bytes that make the meter panic, or that it turns from a valid module into an invalid one or the reverse.
func FuzzInstrument(f *testing.F) {
	b := newBench(f)
	for i := range uint64(20) {
		f.Add(program(rand.New(rand.NewPCG(i, 2))))
	}
	f.Fuzz(func(t *testing.T, wasm []byte) {
		if len(wasm) > 1<<16 {
			return
		}
		m, err := Instrument(wasm, Limits{Locals: 500})
		if err != nil {
			return
		}
		theirs, err1 := b.runtime.CompileModule(context.Background(), wasm)
		ours, err2 := b.runtime.CompileModule(context.Background(), m.Binary)
		if (err1 == nil) != (err2 == nil) {
			t.Fatalf("wazero says %v of the module, and %v of the metered one", err1, err2)
		}
		if err1 == nil {
			_ = theirs.Close(context.Background())
			_ = ours.Close(context.Background())
		}
	})
}
