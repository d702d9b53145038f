// SPDX-License-Identifier: Apache-2.0

package bpe

import (
	_ "embed" // classes.txt
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// class is what the patterns tell characters apart by. Its bits say which sets of theirs a character is in.
type class uint8

const (
	other   class = 0
	upper   class = 1             // [\p{Lu}\p{Lt}]; the first set of o200k_base has this bit
	lower   class = 2             // \p{Ll}; the second set of o200k_base has this bit
	letter        = upper | lower // [\p{Lm}\p{Lo}]
	mark          = letter | 4    // \p{M}: it is in both sets of o200k_base, but no letter
	number  class = 8             // \p{N}
	space   class = 16            // \s, but for
	newline       = space | 32    // [\r\n]

	beyond class = 128 // not ASCII: to be looked up
)

// isLetter reports \p{L}.
func (c class) isLetter() bool { return c&letter != 0 && c&4 == 0 }

// isOther reports [^\s\p{L}\p{N}].
func (c class) isOther() bool { return c == other || c == mark }

// classes has the class of every character, in pages of 256, most of which are alike.
type classes struct {
	first [256]class // by the first byte; beyond, unless it is all of the character
	page  [(utf8.MaxRune + 1) / 256]uint8
	pages [][256]class
}

//go:embed classes.txt
var classesText string

// loadClasses reads classes.txt, once.
var loadClasses = sync.OnceValue(func() *classes {
	all := make([]class, utf8.MaxRune+1)
	var c class
	for line := range strings.Lines(classesText) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			name, _, _ := strings.Cut(line[1:], "]")
			c = map[string]class{"upper": upper, "lower": lower, "letter": letter, "mark": mark, "number": number, "space": space}[name]
		default:
			for r := range strings.FieldsSeq(line) {
				fill(all, r, c)
			}
		}
	}
	all['\r'], all['\n'] = newline, newline
	return newClasses(all)
})

// fill sets the class of a range such as 41, 41-5A or, for every second one, +100-136.
func fill(all []class, r string, c class) {
	step := 1
	if r[0] == '+' {
		r, step = r[1:], 2
	}
	a, b, found := strings.Cut(r, "-")
	if !found {
		b = a
	}
	first, err := strconv.ParseUint(a, 16, 32)
	last, err2 := strconv.ParseUint(b, 16, 32)
	if err != nil || err2 != nil || last >= uint64(len(all)) {
		panic("bpe: the embedded table of characters is damaged")
	}
	for i := int(first); i <= int(last); i += step {
		all[i] = c
	}
}

func newClasses(all []class) *classes {
	t := new(classes)
	copy(t.first[:utf8.RuneSelf], all)
	for i := utf8.RuneSelf; i < len(t.first); i++ {
		t.first[i] = beyond
	}
	places := make(map[[256]class]uint8)
	for i := range t.page {
		p := [256]class(all[i*256:])
		at, found := places[p]
		if !found {
			at = uint8(len(t.pages)) //nolint:gosec // there are some 150 different ones
			places[p] = at
			t.pages = append(t.pages, p)
		}
		t.page[i] = at
	}
	return t
}

// at returns the class and the length in bytes of the character at i.
func (t *classes) at(text []byte, i int) (c class, n int) {
	if c = t.first[text[i]]; c != beyond {
		return c, 1
	}
	return t.wide(text, i)
}

// wide returns the class and the length of the character at i, which is not ASCII. A byte that is wrong counts as U+FFFD, which is no letter.
func (t *classes) wide(text []byte, i int) (c class, n int) {
	r, n := utf8.DecodeRune(text[i:])
	return t.pages[t.page[r>>8]][r&255], n
}
