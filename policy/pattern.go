// SPDX-License-Identifier: Apache-2.0

package policy

// Pattern is a pattern of names in which a star stands for any characters, none included. The zero value matches nothing.
type Pattern struct{ parts glob }

// NewPattern returns the pattern that s describes; any string does.
func NewPattern(s string) Pattern { return Pattern{newGlob(s)} }

// Match reports whether the pattern describes name. It takes time that grows with the length of the name, not with what the pattern is made of.
func (p Pattern) Match(name string) bool { return p.parts != nil && p.parts.match(name) }
