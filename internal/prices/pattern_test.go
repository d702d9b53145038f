// SPDX-License-Identifier: Apache-2.0

package prices

import (
	"errors"
	"strings"
	"testing"
)

func TestPatternsAreForModelsWithoutAName(t *testing.T) {
	own := func(rate int64) Price { return Price{Schedule: Schedule{Rates: flatRates(rate, rate)}} }
	table, err := Embedded().With("own", map[string]Price{
		"*": own(1), "vllm/*": own(2), "vllm/*-large": own(3), "*a*b*": own(4), "named": own(5),
	})
	if err != nil {
		t.Fatal(err)
	}
	listed := table.Find("gpt-4o")
	for _, tt := range []struct {
		names string
		want  string
	}{
		{"nobody-knows", "*"},
		{"vllm/llama", "vllm/*"},
		{"vllm/", "vllm/*"},
		{"vllm/llama-large", "vllm/*-large"},
		{"vllm/-large", "vllm/*-large"},
		{"xaxbx", "*a*b*"},
		{"ba", "*"},
		{"named", "named"},
		{"gpt-4o", "gpt-4o"},             // the list goes before patterns
		{"alias,gpt-4o", "gpt-4o"},       // and so does the second name
		{"alias,vllm/llama", "*"},        // but the first name goes first among patterns
		{"gpt-4o,gpt-4o-mini", "gpt-4o"}, // and among names
		{"ft:gpt-4o-2024-08-06:firm::1", "ft:gpt-4o-2024-08-06"},
	} {
		p, err := table.Lookup(strings.Split(tt.names, ",")...)
		if err != nil || p.Model != tt.want {
			t.Errorf("%s: %+v, %v; want the price of %q", tt.names, p, err, tt.want)
		}
	}
	if listed == nil || listed.Input == 1 {
		t.Errorf("gpt-4o = %+v", listed)
	}
	if _, err := Embedded().Lookup("nobody-knows", "nor-this"); !errors.Is(err, ErrUnknownModel) || !strings.Contains(err.Error(), "nor-this") {
		t.Errorf("error = %v", err)
	}
}

func TestRowsMakeThePricesOfAVersion(t *testing.T) {
	n := func(n int64) *int64 { return &n }
	v := Version{ID: 7, List: HashList(EmbeddedList()), Own: []Row{
		{Model: "mine", MaxOutput: 100, Quote: Quote{Input: n(10), Output: n(20), CachedInput: n(0)}},
		{Model: "mine", Quote: Quote{Above: 1000, Input: n(30), Output: n(40)}},
		{Model: "mine", Quote: Quote{Service: "flex", Input: n(5), Output: n(6)}},
	}}
	table, err := v.Apply(Embedded())
	if err != nil {
		t.Fatal(err)
	}
	p := table.Find("mine")
	if p == nil || p.CachedInput != 0 || p.CacheWrite != 10 || p.MaxOutput != 100 || len(p.Tiers) != 1 || p.Tiers[0].Input != 30 || p.Tiers[0].CachedInput != 0 ||
		p.Flex == nil || p.Flex.CachedInput != 5 || p.Priority != nil {
		t.Errorf("price = %+v", p)
	}
	for name, rows := range map[string][]Row{
		"no standard price":  {{Model: "m", Quote: Quote{Service: "flex", Input: n(1), Output: n(1)}}},
		"tier without price": {{Model: "m", Quote: Quote{Above: 5, Input: n(1), Output: n(1)}}},
		"negative":           {{Model: "m", Quote: Quote{Input: n(-1), Output: n(1)}}},
		"no input":           {{Model: "m", Quote: Quote{Output: n(1)}}},
		"a negative part":    {{Model: "m", Quote: Quote{Input: n(1), Output: n(1), Reasoning: n(-1)}}},
		"too dear":           {{Model: "m", Quote: Quote{Input: n(MaxRate + 1), Output: n(1)}}},
		"unknown service":    {{Model: "m", Quote: Quote{Input: n(1), Output: n(1)}}, {Model: "m", Quote: Quote{Service: "scale", Input: n(1), Output: n(1)}}},
	} {
		if _, err := FromRows(rows); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
