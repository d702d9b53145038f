// SPDX-License-Identifier: Apache-2.0

// Package samples makes texts on which two ways of counting tokens would differ if they could: package bpe is compared with tiktoken on them.
package samples

import (
	_ "embed" // languages.txt
	"encoding/base64"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"unicode/utf8"
)

// languages has the first article of the Universal Declaration of Human Rights, in one language a line.
//
//go:embed languages.txt
var languages string

// Maker makes texts. What it makes depends on its seed and words alone.
type Maker struct {
	rng   *rand.Rand
	words []string // pieces to put together at random, such as the tokens of a vocabulary
	lines []string
	files []string
}

// New returns a Maker. Words may be empty; files are longer texts to cut windows from, besides the languages that it knows.
func New(seed uint64, words, files []string) *Maker {
	return &Maker{rng: rand.New(rand.NewPCG(seed, 0x5eed)), words: words, files: files, lines: strings.Split(strings.TrimSpace(languages), "\n")} //nolint:gosec // no secret
}

// Text returns a text of valid UTF-8 of at most some limit bytes; it is seldom empty.
func (m *Maker) Text(limit int) string {
	kinds := []func(int) string{m.prose, m.prose, m.soup, m.soup, m.characters, m.vocabulary, m.vocabulary, m.run, m.code, m.coded, m.mixed, m.window, m.window}
	s := kinds[m.rng.IntN(len(kinds))](1 + m.rng.IntN(limit))
	return cut(s, limit)
}

// cut shortens a text to some bytes at the border of a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

func pick[T any](m *Maker, from []T) T { return from[m.rng.IntN(len(from))] }

// prose is lines of some languages, begun anywhere.
func (m *Maker) prose(size int) string {
	var b strings.Builder
	for b.Len() < size {
		line := []rune(pick(m, m.lines))
		from := m.rng.IntN(len(line))
		b.WriteString(string(line[from:min(len(line), from+1+m.rng.IntN(120))]))
		b.WriteString(pick(m, []string{" ", "\n", "\n\n", "  ", ". ", "\r\n", "\t", ""}))
	}
	return b.String()
}

// alphabets are characters whose neighbours decide where a piece ends.
func alphabets() [][]rune {
	return [][]rune{
		[]rune(" \n\r\t"),
		[]rune("  \n\r\t\u00a0\u2003\u3000\u0085\x0b\x0ca1.'/"),
		[]rune("aAbB'sStTlLrReEvVmMdDſ ʰ\u0301'\u2019"),
		[]rune("aA1.\n/ '\u0301ǅªʰ中é"),
		[]rune("0123456789,.٣½Ⅻ ²"),
		[]rune("/\\-_=+*#<>{}[]()\"';: \n"),
		[]rune("ABCDEFGHabcdefgh"),
		[]rune("abcdefghijklmnopqrstuvwxyz"),
		[]rune("的一是不了人我在有他。，、 \n"),
		[]rune("🙂👩\u200d👧\ufe0f🇪🇺 \u0300ก็ी्"),
		[]rune("\x00\x01\x1b\x7f\u0080\ufeff\ufffd\u200b a\n"),
	}
}

// soup is characters of one alphabet, some of them repeated.
func (m *Maker) soup(size int) string {
	alphabet := pick(m, alphabets())
	var b strings.Builder
	for b.Len() < size {
		r, n := pick(m, alphabet), 1
		if m.rng.IntN(8) == 0 {
			n += m.rng.IntN(12)
		}
		for range n {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// characters is random characters, of a neighbourhood or of all Unicode.
func (m *Maker) characters(size int) string {
	var b strings.Builder
	start, width := rune(m.rng.IntN(0x32000)), rune(64<<m.rng.IntN(8))
	if m.rng.IntN(3) == 0 {
		start, width = 0, utf8.MaxRune
	}
	for b.Len() < size {
		if r := start + m.rng.Int32N(width); utf8.ValidRune(r) {
			b.WriteRune(r)
		}
		if m.rng.IntN(6) == 0 {
			b.WriteByte(' ')
		}
	}
	return b.String()
}

// vocabulary is words, with or without something in between.
func (m *Maker) vocabulary(size int) string {
	if len(m.words) == 0 {
		return m.soup(size)
	}
	var b strings.Builder
	between := pick(m, []string{"", "", "", " ", "\n", "'"})
	for b.Len() < size {
		b.WriteString(pick(m, m.words))
		b.WriteString(between)
	}
	return strings.ToValidUTF8(b.String(), "")
}

// run is one character many times, with others at its ends.
func (m *Maker) run(size int) string {
	r := pick(m, []string{"a", " ", "\n", "\t", "=", "-", "A", "é", "中", "🙂", "0", "ab", " \n", "\r\n", "\u0301", "xX"})
	return pick(m, []string{"", "a", " ", "\n", "b"}) + strings.Repeat(r, 1+size/len(r)) + pick(m, []string{"", "x", " x", "\n", "'s"})
}

// code is what looks like a program or a document for one.
func (m *Maker) code(size int) string {
	parts := []string{
		"func ", "return ", "if err != nil {\n", "}\n", "\t", "\t\t", "    ", "camelCaseName", "snake_case_name", "HTTPServer2", "x", "i++", "(", ")", ": ", ", ",
		`"key": "value"`, `{"a":[1,2.5e-3,null,true]}`, "// comment isn't code\n", "/* */", "<div class=\"x\">", "&amp;", "\n\n", " \n", "\r\n", "#!/bin/sh\n", "0xFF", "12345",
		"https://example.org/path?q=1&r=a%20b", "SELECT * FROM t WHERE a='b';", "λ -> ", "::", "->", "=>", "===", "...", "\\n", "\\u00e9", "@param", "$HOME", "I'LL", "we've",
	}
	var b strings.Builder
	for b.Len() < size {
		b.WriteString(pick(m, parts))
	}
	return b.String()
}

// coded is bytes in hexadecimal or base64.
func (m *Maker) coded(size int) string {
	raw := make([]byte, size/2+1)
	for i := range raw {
		raw[i] = byte(m.rng.Uint32())
	}
	if m.rng.IntN(2) == 0 {
		return hex.EncodeToString(raw)
	}
	return base64.StdEncoding.EncodeToString(raw)
}

// mixed is a few short texts of other kinds.
func (m *Maker) mixed(size int) string {
	var b strings.Builder
	for b.Len() < size {
		kind := pick(m, []func(int) string{m.prose, m.soup, m.characters, m.vocabulary, m.run, m.code, m.coded})
		b.WriteString(cut(kind(1+m.rng.IntN(40)), 60))
	}
	return b.String()
}

// window is a part of a file.
func (m *Maker) window(size int) string {
	if len(m.files) == 0 {
		return m.prose(size)
	}
	file := pick(m, m.files)
	from := m.rng.IntN(len(file))
	return strings.ToValidUTF8(file[from:min(len(file), from+size)], "")
}

// Characters are assigned below firstGap and in a few blocks from lastBlocks on.
const (
	firstGap   = 0x34000 / 256
	lastBlocks = 0xE0000 / 256
)

// Blocks is how many texts there are for [Block].
const Blocks = firstGap + 3

// Block returns the nth text in which each of 256 characters stands in 6 places where its class decides what becomes of its neighbours. All
// blocks together have every character that is assigned, but for those of private use in the last two planes.
func Block(n int) string {
	if n >= firstGap {
		n += lastBlocks - firstGap
	}
	var b strings.Builder
	for r := rune(n) * 256; r < rune(n+1)*256; r++ {
		if utf8.ValidRune(r) {
			c := string(r)
			b.WriteString("a" + c + "b " + c + "A" + c + "1" + c + c + " \n" + c + "'s x'" + c + ". ")
		}
	}
	return b.String()
}
