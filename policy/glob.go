// SPDX-License-Identifier: Apache-2.0

package policy

import "strings"

// glob is a pattern split at its stars: "gpt-*-mini*" is {"gpt-", "-mini", ""}. A star stands for any characters, none included.
type glob []string

func newGlob(pattern string) glob { return strings.Split(pattern, "*") }

// match reports whether s is what the pattern describes. Each part is searched for once, from the left, behind the one before:
// with stars as the only wildcard the first place that fits is as good as any, so no pattern makes it go back.
func (g glob) match(s string) bool {
	first, last := g[0], g[len(g)-1]
	if len(g) == 1 {
		return s == first
	}
	if !strings.HasPrefix(s, first) {
		return false
	}
	s = s[len(first):]
	for _, part := range g[1 : len(g)-1] {
		_, after, found := strings.Cut(s, part)
		if !found {
			return false
		}
		s = after
	}
	return strings.HasSuffix(s, last)
}

// allowList is what a key may ask for; the zero value allows everything.
type allowList struct {
	names map[string]struct{}
	globs []glob
}

func newAllowList(patterns []string) allowList {
	var a allowList
	for _, p := range patterns {
		if strings.Contains(p, "*") {
			a.globs = append(a.globs, newGlob(p))
			continue
		}
		if a.names == nil {
			a.names = make(map[string]struct{})
		}
		a.names[p] = struct{}{}
	}
	return a
}

func (a *allowList) allows(model string) bool {
	if a.names == nil && a.globs == nil {
		return true
	}
	if _, ok := a.names[model]; ok {
		return true
	}
	for _, g := range a.globs {
		if g.match(model) {
			return true
		}
	}
	return false
}
