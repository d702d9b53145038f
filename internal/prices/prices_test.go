// SPDX-License-Identifier: Apache-2.0

package prices

import (
	"errors"
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func lookup(tb testing.TB, model string) *Price {
	tb.Helper()
	p, err := Embedded().Lookup(model)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func TestEmbeddedTableSaysWhereItIsFrom(t *testing.T) {
	t.Parallel()
	e := Embedded()
	if !strings.HasPrefix(e.Version(), "litellm-") || len(e.Date()) != len("2026-11-22") || !strings.Contains(e.Source(), "MIT") || !strings.Contains(e.Source(), "SHA-256") {
		t.Errorf("version %q, date %q, source %q", e.Version(), e.Date(), e.Source())
	}
	if n := len(e.Models()); n < 3000 {
		t.Errorf("only %d models", n)
	}
	for _, model := range e.Models() {
		p := lookup(t, model)
		if p.Model != model || p.Version != e.Version() || p.Input <= 0 || p.Output < 0 {
			t.Errorf("%+v", p)
		}
	}
}

// TestPricesAreThoseOfTheList has what OpenAI, Anthropic and Google ask for, in dollars for a million tokens times 1e9.
func TestPricesAreThoseOfTheList(t *testing.T) {
	t.Parallel()
	gpt4o := Rates{
		Input: 2_500_000_000, CachedInput: 1_250_000_000, CacheWrite: 2_500_000_000, Output: 10_000_000_000, Reasoning: 10_000_000_000,
		AudioInput: 2_500_000_000, AudioOutput: 10_000_000_000, ImageInput: 2_500_000_000, ImageOutput: 10_000_000_000,
	}
	if diff := cmp.Diff(lookup(t, "gpt-4o").Rates, gpt4o); diff != "" {
		t.Errorf("gpt-4o (-got +want)\n%s", diff)
	}
	if p := lookup(t, "gpt-4o"); p.MaxInput != 128_000 || p.MaxOutput != 16_384 {
		t.Errorf("gpt-4o takes %d and makes %d tokens", p.MaxInput, p.MaxOutput)
	}
	if p := lookup(t, "claude-sonnet-4-5"); p.CacheWrite != 3_750_000_000 || p.CachedInput != 300_000_000 {
		t.Errorf("claude-sonnet-4-5: %+v", p.Rates)
	}
	if p := lookup(t, "text-embedding-3-small"); p.Input != 20_000_000 || p.Output != 0 {
		t.Errorf("text-embedding-3-small: %+v", p.Rates)
	}
	gemini := lookup(t, "gemini-2.5-pro")
	want := []Tier{{200_000, Rates{
		Input: 2_500_000_000, CachedInput: 250_000_000, CacheWrite: 250_000_000, Output: 15_000_000_000, Reasoning: 15_000_000_000,
		AudioInput: 2_500_000_000, AudioOutput: 15_000_000_000, ImageInput: 2_500_000_000, ImageOutput: 15_000_000_000,
	}}}
	if diff := cmp.Diff(gemini.Tiers, want); diff != "" {
		t.Errorf("gemini-2.5-pro (-got +want)\n%s", diff)
	}
	if got := lookup(t, "gpt-4o").Service(Priority).Input; got != 4_250_000_000 {
		t.Errorf("gpt-4o, priority: %d", got)
	}
	if got := lookup(t, "gpt-4o").Service(Flex).Input; got != 2_500_000_000 {
		t.Errorf("gpt-4o, flex, which it does not have: %d", got)
	}
}

func TestUnknownModelsHaveNoPrice(t *testing.T) {
	t.Parallel()
	for _, model := range []string{"", "gpt-4o-nonesuch", "gpt", "GPT-4o", "ft:", "ft:nonesuch:a::b", "sample_spec"} {
		p, err := Embedded().Lookup(model)
		if !errors.Is(err, ErrUnknownModel) || p != nil {
			t.Errorf("%q: %v, %v", model, p, err)
		}
	}
	if p := lookup(t, "ft:gpt-4o-2024-08-06:weir::abc"); p.Input != 3_750_000_000 {
		t.Errorf("a fine-tuned model: %+v", p.Rates)
	}
}

func TestOwnPricesGoFirst(t *testing.T) {
	t.Parallel()
	own, err := Embedded().With("own-1", map[string]Price{
		"gpt-4o":  {Schedule: Schedule{Rates: flatRates(7, 9)}},
		"our-own": {Schedule: Schedule{Rates: flatRates(1, 2)}, Version: "contract-3"},
		"free":    {},
	})
	if err != nil {
		t.Fatal(err)
	}
	own, err = own.With("own-2", map[string]Price{"our-own": {Schedule: Schedule{Rates: flatRates(3, 4)}}})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][2]any{}
	for _, model := range []string{"gpt-4o", "our-own", "free", "gpt-4"} {
		p, err := own.Lookup(model)
		if err != nil {
			t.Fatal(err)
		}
		got[p.Model] = [2]any{p.Version, p.Input}
	}
	want := map[string][2]any{
		"gpt-4o": {"own-1", int64(7)}, "our-own": {"own-2", int64(3)}, "free": {"own-1", int64(0)}, "gpt-4": {Embedded().Version(), int64(30_000_000_000)},
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("(-got +want)\n%s", diff)
	}
	if !slices.Contains(own.Models(), "our-own") || slices.Contains(Embedded().Models(), "our-own") {
		t.Error("the tables are mixed up")
	}
	if lookup(t, "gpt-4o").Input == 7 {
		t.Error("the embedded table was changed")
	}
}

func TestBadPricesAreRefused(t *testing.T) {
	t.Parallel()
	for want, p := range map[string]Price{
		"a rate of -1":              {Schedule: Schedule{Rates: flatRates(-1, 0)}},
		"a rate of 100000000000000": {Schedule: Schedule{Rates: flatRates(1, MaxRate+1)}},
		"limits must rise":          {Schedule: Schedule{Tiers: []Tier{{Above: 5}, {Above: 5}}}},
		"above 0 tokens":            {Flex: &Schedule{Tiers: []Tier{{Above: 0}}}},
		"a rate of -2":              {Priority: &Schedule{Tiers: []Tier{{Above: 1, Rates: flatRates(0, -2)}}}},
		"a negative limit":          {MaxOutput: -1},
	} {
		if _, err := Embedded().With("v", map[string]Price{"m": p}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `"m"`) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	if _, err := Embedded().With("v", map[string]Price{"": {}}); err == nil {
		t.Error("a model without a name was taken")
	}
}

func TestDamagedTablesAreRefused(t *testing.T) {
	t.Parallel()
	head := "# version: v\n# date: d\n# source: s\n"
	for name, text := range map[string]string{
		"empty": "", "no version": "# date: d\n# source: s\n", "few columns": head + "m\t\t0\n", "no number": head + "m\t\t0\t\t\tx\t\t\t1\t\t\t\t\t\n",
		"tier first": head + "m\t\t5\t\t\t1\t\t\t1\t\t\t\t\t\n", "service": head + "m\t\t0\t\t\t1\t\t\t1\t\t\t\t\t\nm\tslow\t0\t\t\t1\t\t\t1\t\t\t\t\t\n",
		"negative": head + "m\t\t0\t\t\t-7\t\t\t1\t\t\t\t\t\n",
	} {
		if _, err := Parse(text); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestCosts(t *testing.T) {
	t.Parallel()
	plain := Price{Schedule: Schedule{Rates: Rates{
		Input: 2_500_000_000, CachedInput: 1_250_000_000, CacheWrite: 3_000_000_000, Output: 10_000_000_000, Reasoning: 20_000_000_000,
		AudioInput: 40_000_000_000, AudioOutput: 80_000_000_000, ImageInput: 5_000_000_000, ImageOutput: 30_000_000_000,
	}, Tiers: []Tier{{Above: 200_000, Rates: flatRates(5_000_000_000, 15_000_000_000)}}}, Priority: &Schedule{Rates: flatRates(4_000_000_000, 16_000_000_000)}}
	tests := map[string]struct {
		u    Usage
		s    Service
		want int64
	}{
		"nothing":       {Usage{}, Standard, 0},
		"plain":         {Usage{Input: 1000, Output: 100}, Standard, 2_500_000 + 1_000_000},
		"cached":        {Usage{Input: 1000, CachedInput: 800}, Standard, 200*2500 + 800*1250},
		"written":       {Usage{Input: 1000, CacheWrite: 800}, Standard, 200*2500 + 800*3000},
		"reasoning":     {Usage{Output: 100, Reasoning: 60}, Standard, 40*10_000 + 60*20_000},
		"audio":         {Usage{Input: 100, AudioInput: 60, Output: 10, AudioOutput: 4}, Standard, 40*2500 + 60*40_000 + 6*10_000 + 4*80_000},
		"images":        {Usage{Input: 100, ImageInput: 60, Output: 10, ImageOutput: 4}, Standard, 40*2500 + 60*5000 + 6*10_000 + 4*30_000},
		"too many":      {Usage{Input: 100, CachedInput: 1000}, Standard, 100 * 1250},
		"parts overlap": {Usage{Input: 100, AudioInput: 80, CachedInput: 80}, Standard, 80*40_000 + 20*1250},
		"at the limit":  {Usage{Input: 200_000}, Standard, 200_000 * 2500},
		"above it":      {Usage{Input: 200_001, CachedInput: 1, Output: 1}, Standard, 200_001*5000 + 15_000},
		"priority":      {Usage{Input: 1000, Output: 100}, Priority, 1000*4000 + 100*16_000},
		"without flex":  {Usage{Input: 1000, Output: 100}, Flex, 2_500_000 + 1_000_000},
		"most there is": {Usage{Input: math.MaxInt64, Output: math.MaxInt64}, Standard, math.MaxInt64},
	}
	for name, tt := range tests {
		got, err := plain.Cost(tt.u, tt.s)
		if err != nil || got != tt.want {
			t.Errorf("%s: %d, %v; want %d", name, got, err, tt.want)
		}
		if most, err := plain.Most(tt.u, tt.s); err != nil || most < got {
			t.Errorf("%s: at most %d, %v, but it costs %d", name, most, err, got)
		}
	}
	tiny := Price{Schedule: Schedule{Rates: flatRates(1, 1)}}
	if got, err := tiny.Cost(Usage{Input: 1}, Standard); got != 1 || err != nil {
		t.Errorf("a millionth of a nano-dollar is %d, %v; want it rounded up", got, err)
	}
}

func TestNegativeNumbersAreErrors(t *testing.T) {
	t.Parallel()
	p := lookup(t, "gpt-4o")
	for _, u := range []Usage{{Input: -1}, {CachedInput: -1}, {CacheWrite: -1}, {AudioInput: -1}, {ImageInput: -1}, {Output: -1}, {Reasoning: -1}, {AudioOutput: -1}, {ImageOutput: math.MinInt64}} {
		for _, f := range []func(Usage, Service) (int64, error){p.Cost, p.Most} {
			if n, err := f(u, Standard); !errors.Is(err, ErrNegative) || n != 0 {
				t.Errorf("%+v: %d, %v", u, n, err)
			}
		}
	}
	bad := Price{Schedule: Schedule{Rates: flatRates(1, -1)}}
	if _, err := bad.Cost(Usage{Input: 1}, Standard); !errors.Is(err, ErrNegative) {
		t.Errorf("a negative rate: %v", err)
	}
	if _, err := bad.Most(Usage{Input: 1}, Standard); !errors.Is(err, ErrNegative) {
		t.Errorf("a negative rate: %v", err)
	}
}

// FuzzCost compares with numbers of any size.
func FuzzCost(f *testing.F) {
	f.Add(int64(1000), int64(800), int64(0), int64(100), int64(60), int64(2_500_000_000), int64(1_250_000_000), int64(10_000_000_000))
	f.Add(int64(math.MaxInt64), int64(1), int64(1), int64(math.MaxInt64), int64(1), int64(math.MaxInt64), int64(math.MaxInt64), int64(math.MaxInt64))
	f.Add(int64(-1), int64(0), int64(0), int64(math.MinInt64), int64(0), int64(0), int64(0), int64(0))
	f.Add(int64(1), int64(0), int64(0), int64(0), int64(0), int64(-1), int64(0), int64(0))
	f.Fuzz(func(t *testing.T, input, cached, audio, output, reasoning, in, part, out int64) {
		p := Price{Schedule: Schedule{Rates: Rates{Input: in, CachedInput: part, CacheWrite: in, Output: out, Reasoning: part, AudioInput: out, AudioOutput: out, ImageInput: in, ImageOutput: out}}}
		u := Usage{Input: input, CachedInput: cached, AudioInput: audio, Output: output, Reasoning: reasoning}
		got, err := p.Cost(u, Standard)
		if min(input, cached, audio, output, reasoning, in, part, out) < 0 {
			if !errors.Is(err, ErrNegative) || got != 0 {
				t.Fatalf("%d, %v; want an error", got, err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		audio = min(audio, input)
		cached = min(cached, input-audio)
		reasoning = min(reasoning, output)
		want := new(big.Int)
		for _, x := range [][2]int64{{input - audio - cached, in}, {cached, part}, {audio, out}, {output - reasoning, out}, {reasoning, part}} {
			want.Add(want, new(big.Int).Mul(big.NewInt(x[0]), big.NewInt(x[1])))
		}
		want.Add(want, big.NewInt(perMillion-1)).Div(want, big.NewInt(perMillion))
		if !want.IsInt64() {
			want.SetInt64(math.MaxInt64)
		}
		if got != want.Int64() {
			t.Errorf("%d, want %d", got, want)
		}
		if most, err := p.Most(u, Standard); err != nil || most < got {
			t.Errorf("at most %d, %v, but it costs %d", most, err, got)
		}
	})
}

func BenchmarkCost(b *testing.B) {
	p := lookup(b, "gemini-2.5-pro")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Cost(Usage{Input: 3000, CachedInput: 2000, Output: 400}, Standard); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	for b.Loop() {
		if _, err := Parse(embedded); err != nil {
			b.Fatal(err)
		}
	}
}

// flatRates returns rates at which all input costs the same, and all output.
func flatRates(input, output int64) Rates {
	return Rates{
		Input: input, CachedInput: input, CacheWrite: input, AudioInput: input, ImageInput: input,
		Output: output, Reasoning: output, AudioOutput: output, ImageOutput: output,
	}
}
