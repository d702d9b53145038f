// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"fmt"
	"slices"

	"github.com/weir-proxy/weir/internal/admin"
)

// What a step does.
const (
	Create = "create"
	Change = "change"
	Delete = "delete"
)

// Step is one difference between what is declared and what there is, and what ends it.
type Step struct {
	Action  string       `json:"action"`
	Kind    string       `json:"kind"`
	Name    string       `json:"name"`
	Changes []Difference `json:"changes"` // what a step makes, or changes; none for a deletion
	// Do takes the step.
	Do func(ctx context.Context) error `json:"-"`
}

// Difference is a field before and after. A field that was not there is empty before.
type Difference struct {
	Field  string `json:"field"`
	Before string `json:"before"`
	After  string `json:"after"`
}

// Plan returns the steps from what there is to what is declared: what is made and changed, in the order of the kinds; then, with prune, what is in no file, in the
// other order. Steps are to be taken in their order. With nothing to do there are none.
func Plan(ctx context.Context, c *admin.Client, kinds []Kind, d *Declared, prune bool) ([]Step, error) {
	var steps, ends []Step
	for i := range kinds {
		k := &kinds[i]
		if !d.sections[k.Section] {
			continue
		}
		there, err := k.List(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", k.Section, err)
		}
		byIdent := make(map[string]Existing, len(there))
		for _, e := range there {
			byIdent[e.Ident] = e
		}
		for _, it := range d.items[k.Section] {
			if s, needed := k.step(c, it, byIdent); needed {
				steps = append(steps, s)
			}
			delete(byIdent, it.thing.Ident())
		}
		if !prune {
			continue
		}
		for _, e := range there {
			if _, unnamed := byIdent[e.Ident]; unnamed && !e.Keep {
				ends = append(ends, Step{Action: Delete, Kind: k.Name, Name: e.Ident, Changes: []Difference{}, Do: e.Delete})
			}
		}
	}
	slices.Reverse(ends)
	return append(steps, ends...), nil
}

// step returns what makes a thing as it is declared.
func (k *Kind) step(c *admin.Client, it item, there map[string]Existing) (Step, bool) {
	e, exists := there[it.thing.Ident()]
	s := Step{Action: Create, Kind: k.Name, Name: it.thing.Ident(), Changes: []Difference{}}
	var is *Existing
	if exists {
		s.Action, is = Change, &e
	}
	s.Do = func(ctx context.Context) error { return it.placed(it.thing.Put(ctx, c, is)) }
	for _, f := range it.thing.Fields() {
		before := ""
		if at := slices.IndexFunc(e.Fields, func(b Field) bool { return b.Name == f.Name }); at >= 0 {
			before = e.Fields[at].Value
		}
		if before != f.Value {
			s.Changes = append(s.Changes, Difference{f.Name, before, f.Value})
		}
	}
	return s, !exists || len(s.Changes) > 0
}

// placed says where the thing was declared whose step failed.
func (it item) placed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", it.place, err)
}
