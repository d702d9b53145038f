// SPDX-License-Identifier: Apache-2.0

package prices

import (
	_ "embed" // prices.tsv
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// ErrUnknownModel is wrapped by the error of [Table.Lookup] for a model without a price.
var ErrUnknownModel = errors.New("no price is known for the model")

// Table has prices by model. It is immutable and may be used by many goroutines at once.
type Table struct {
	version string
	source  string
	date    string
	listed  map[string]*Price
	own     map[string]*Price // go before those that are listed

	patterns []pattern // for models without a price by their name, in the order of preference
}

//go:embed prices.tsv
var embedded string

var loadEmbedded = sync.OnceValue(func() *Table {
	t, err := Parse(embedded)
	if err != nil {
		panic("prices: the embedded table is damaged: " + err.Error())
	}
	return t
})

// Embedded returns the table that is a part of the program. The first call reads it, which takes some milliseconds; it stays in about 2 MB of memory.
func Embedded() *Table { return loadEmbedded() }

// EmbeddedList is the text of [Embedded], as [Parse] reads it.
func EmbeddedList() string { return embedded }

// Version names the list, for prices that are not overridden.
func (t *Table) Version() string { return t.version }

// Source says where the list is from, with the SHA-256 of what was read, and under which licence.
func (t *Table) Source() string { return t.source }

// Date is when the list was taken, as in 2026-11-22.
func (t *Table) Date() string { return t.date }

// With returns a table in which the prices of own, by model, go before those of t. One whose model has a star is for all models that fit it and have no price by
// their very name. Each gets its key as Model, and version as Version unless it has one.
// It is an error if a rate is negative or above [MaxRate], if limits of tiers do not rise, or if a model has no name.
func (t *Table) With(version string, own map[string]Price) (*Table, error) {
	all := make(map[string]*Price, len(t.own)+len(own))
	maps.Copy(all, t.own)
	for model, p := range own {
		if model == "" {
			return nil, errors.New("a price for a model without a name")
		}
		if err := p.validate(); err != nil {
			return nil, fmt.Errorf("price of %q: %w", model, err)
		}
		p.Model = model
		if p.Version == "" {
			p.Version = version
		}
		all[model] = &p
	}
	n := *t
	n.own, n.patterns = all, patternsOf(all)
	return &n, nil
}

// Lookup returns the price of a model that goes by one or more names, the first of which counts most: the price of a name itself, of the first that has one; else
// that of the pattern that fits a name, of the first that any fits. Of a model that was fine-tuned (ft:gpt-4o-2024-08-06:firm:name:id) it is that of fine-tuned models
// of its base (ft:gpt-4o-2024-08-06). No other name is guessed at. The error wraps [ErrUnknownModel].
func (t *Table) Lookup(names ...string) (*Price, error) {
	if p := t.Find(names...); p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%w %q", ErrUnknownModel, names)
}

// Find is [Table.Lookup] for who need not say what is wrong: nil means that no price is known.
func (t *Table) Find(names ...string) *Price {
	for _, name := range names {
		if p := t.named(name); p != nil {
			return p
		}
	}
	for _, name := range names {
		for i := range t.patterns {
			if t.patterns[i].matches(name) {
				return t.patterns[i].price
			}
		}
	}
	return nil
}

// named returns the price of a name itself; nil if it has none.
func (t *Table) named(model string) *Price {
	if p := t.find(model); p != nil {
		return p
	}
	if tuned, ok := strings.CutPrefix(model, "ft:"); ok {
		base, _, _ := strings.Cut(tuned, ":")
		return t.find("ft:" + base)
	}
	return nil
}

// Get returns the price of a name, or of a pattern by its text; nil if that itself has none.
func (t *Table) Get(model string) *Price { return t.find(model) }

func (t *Table) find(model string) *Price {
	if p := t.own[model]; p != nil {
		return p
	}
	return t.listed[model]
}

// Models returns the names of all models with a price, sorted.
func (t *Table) Models() []string {
	names := slices.Collect(maps.Keys(t.listed))
	for model := range t.own {
		if t.listed[model] == nil {
			names = append(names, model)
		}
	}
	slices.Sort(names)
	return names
}
