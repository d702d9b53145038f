// SPDX-License-Identifier: Apache-2.0

package prices

import (
	"cmp"
	"slices"
	"strings"
)

// pattern is a price for many models. A star in its name stands for any characters, none included.
type pattern struct {
	parts []string // between the stars
	price *Price
}

// patternsOf returns the prices of patterns: those with more characters first, which say more of the models that they are for.
func patternsOf(own map[string]*Price) []pattern {
	var all []pattern
	for model, p := range own {
		if strings.Contains(model, "*") {
			all = append(all, pattern{strings.Split(model, "*"), p})
		}
	}
	slices.SortFunc(all, func(a, b pattern) int {
		return cmp.Or(cmp.Compare(b.literal(), a.literal()), strings.Compare(a.price.Model, b.price.Model))
	})
	return all
}

// literal returns how many bytes are not stars.
func (p *pattern) literal() (n int) {
	for _, part := range p.parts {
		n += len(part)
	}
	return n
}

// matches reports whether a name fits. Each part is searched for once, from the left, behind the one before.
func (p *pattern) matches(name string) bool {
	first, last := p.parts[0], p.parts[len(p.parts)-1]
	name, found := strings.CutPrefix(name, first)
	for _, part := range p.parts[1 : len(p.parts)-1] {
		if !found {
			return false
		}
		_, name, found = strings.Cut(name, part)
	}
	return found && strings.HasSuffix(name, last)
}
