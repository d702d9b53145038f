// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

var (
	errFuel  = errors.New("out of fuel")
	errStack = errors.New("out of stack")
)

// testStack is the words of stack of a guest, and deepStack is enough for a thousand calls of large functions.
const (
	testStack = 1 << 16
	deepStack = 1 << 24
)

// guest is an instance of a module, metered or not.
type guest struct {
	mod   api.Module
	give  int64 // slice
	left  int64 // of the budget, besides what is in the global
	asked int   // how often the guest asked for fuel
	stack uint64
}

// bench has one runtime for many guests.
type bench struct{ runtime wazero.Runtime }

func newBench(tb testing.TB) *bench {
	tb.Helper()
	b := &bench{runtime: wazero.NewRuntimeWithConfig(context.Background(), wazero.NewRuntimeConfig().WithCoreFeatures(api.CoreFeaturesV2))}
	tb.Cleanup(func() { _ = b.runtime.Close(context.Background()) })
	_, err := b.runtime.NewHostModuleBuilder(ImportModule).NewFunctionBuilder().
		WithGoFunction(api.GoFunc(refuelTest), []api.ValueType{api.ValueTypeI64}, []api.ValueType{api.ValueTypeI64}).
		Export(ImportRefuel).Instantiate(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

type guestKey struct{}

func refuelTest(ctx context.Context, stack []uint64) {
	g := ctx.Value(guestKey{}).(*guest)
	g.asked++
	balance := int64(stack[0])
	if balance == StackExhausted {
		panic(errStack)
	}
	// The balance is what was given less what was used, and may be far below zero.
	if g.left += balance; g.left < 0 {
		panic(errFuel)
	}
	n := min(g.give, g.left)
	g.left -= n
	stack[0] = uint64(n)
}

func (b *bench) start(binary []byte) (*guest, error) {
	g := &guest{give: 1 << 40, left: 1 << 50, stack: testStack}
	mod, err := b.runtime.InstantiateWithConfig(g.context(), binary, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		return nil, err
	}
	g.mod = mod
	return g, nil
}

func (g *guest) close() { _ = g.mod.Close(context.Background()) } // it only frees memory

func (g *guest) context() context.Context {
	return context.WithValue(context.Background(), guestKey{}, g)
}

// metered instruments and starts a module.
func (b *bench) metered(t *testing.T, wasm []byte) *guest {
	t.Helper()
	m, err := Instrument(wasm, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	g, err := b.start(m.Binary)
	if err != nil {
		t.Fatalf("the instrumented module is refused: %v", err)
	}
	t.Cleanup(func() { _ = g.mod.Close(context.Background()) })
	return g
}

func (g *guest) global(name string) api.MutableGlobal {
	return g.mod.ExportedGlobal(name).(api.MutableGlobal)
}

// call calls a function of a metered guest with a budget in slices and returns the fuel that it took.
func (g *guest) call(name string, budget, slice int64, args ...uint64) (results []uint64, used int64, err error) {
	g.give, g.left, g.asked = slice, budget, 0
	g.global(ExportFuel).Set(0)
	g.global(ExportStack).Set(g.stack)
	results, err = g.mod.ExportedFunction(name).Call(g.context(), args...)
	return results, budget - g.left - int64(g.global(ExportFuel).Get()), err
}

// kind is what sort of error a call had, without its trace.
func kind(err error) string {
	switch {
	case err == nil:
		return "none"
	case errors.Is(err, errFuel), errors.Is(err, errStack):
		return fmt.Sprint(errors.Unwrap(err))
	}
	first, _, _ := strings.Cut(err.Error(), "\n")
	return first
}
