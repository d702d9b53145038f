// SPDX-License-Identifier: Apache-2.0

package bpe

// The patterns are those of tiktoken_ext/openai_public.py in tiktoken 0.14. A function here takes the offset at which a piece begins and
// returns the one at which it ends. It reads a text at most three times over, whatever is in it: what it reads beyond the end of a piece it does not
// read beyond the end of the next one but one.

// nextCl100k cuts as this pattern does:
//
//	'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s
func nextCl100k(t *classes, text []byte, i int) int {
	if k := contraction(text, i); k > i {
		return k
	}
	c, n := t.at(text, i)
	j := i + n
	switch {
	case c.isLetter():
		return t.letters(text, j)
	case c == number:
		return t.numbers(text, j)
	case c != newline && j < len(text):
		d, m := t.at(text, j)
		if d.isLetter() {
			return t.letters(text, j+m)
		}
		if text[i] == ' ' && d.isOther() {
			return newlines(text, t.others(text, j+m))
		}
	}
	if c.isOther() {
		return newlines(text, t.others(text, j))
	}
	run := t.spaces(text, i)
	if run.end == len(text) {
		return run.end
	}
	return run.piece(i, len(text))
}

// nextO200k cuts as this pattern does, whose alternatives stand in lines of their own here:
//
//	[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?
//	[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?
//	\p{N}{1,3}
//	 ?[^\s\p{L}\p{N}]+[\r\n/]*
//	\s*[\r\n]+
//	\s+(?!\S)
//	\s+
func nextO200k(t *classes, text []byte, i int) int {
	c, n := t.at(text, i)
	j := i + n
	switch {
	case c == number:
		return t.numbers(text, j)
	case c.isLetter():
		return t.word(text, i)
	case c != newline:
		if k := t.prefixed(text, i, j, c); k > 0 {
			return k
		}
	}
	if text[i] == ' ' && j < len(text) {
		if d, m := t.at(text, j); d.isOther() {
			return slashes(text, t.others(text, j+m))
		}
	}
	if c.isOther() {
		return slashes(text, t.others(text, j))
	}
	return t.spaces(text, i).piece(i, len(text))
}

// prefixed matches the first two alternatives of o200k_base where the character from i up to j may come before a word: it is no letter, number
// or newline. A mark may also begin the word itself. It returns 0 if neither matches.
func (t *classes) prefixed(text []byte, i, j int, c class) int {
	if j < len(text) {
		if d, _ := t.at(text, j); d&letter != 0 {
			if k := t.lowerWord(text, j); k > 0 {
				return k
			}
			if c == mark {
				return t.lowerWord(text, i)
			}
			return t.upperWord(text, j)
		}
	}
	if c == mark {
		return t.word(text, i)
	}
	return 0
}

// word matches the first two alternatives of o200k_base without their prefix, where there is a letter or a mark.
func (t *classes) word(text []byte, i int) int {
	if k := t.lowerWord(text, i); k > 0 {
		return k
	}
	return t.upperWord(text, i)
}

// lowerWord matches the first alternative without its prefix; 0 if it does not match. The set of its star and that of its plus have
// characters in common. So when nothing of the second set follows what the star took, the star gives back as much as
// up to the last character of both sets.
func (t *classes) lowerWord(text []byte, i int) int {
	both := 0 // the end of the last character of both sets
	for i < len(text) {
		c, n := t.first[text[i]], 1
		if c&(upper|beyond) == 0 {
			break
		}
		if c == beyond {
			if c, n = t.wide(text, i); c&upper == 0 {
				break
			}
		}
		i += n
		if c&lower != 0 {
			both = i
		}
	}
	if end := t.run(text, i, lower); end > i {
		return contraction(text, end)
	}
	if both > 0 {
		return contraction(text, both)
	}
	return 0
}

// upperWord matches the second alternative without its prefix, where the first does not match and there is a letter.
func (t *classes) upperWord(text []byte, i int) int {
	return contraction(text, t.run(text, i, upper))
}

// run skips the characters of a set.
func (t *classes) run(text []byte, i int, set class) int {
	for i < len(text) {
		c, n := t.first[text[i]], 1
		if c&(set|beyond) == 0 {
			break
		}
		if c == beyond {
			if c, n = t.wide(text, i); c&set == 0 {
				break
			}
		}
		i += n
	}
	return i
}

// letters skips \p{L}*.
func (t *classes) letters(text []byte, i int) int {
	for i < len(text) {
		c, n := t.first[text[i]], 1
		if c&(letter|beyond) == 0 {
			break
		}
		if c == beyond {
			if c, n = t.wide(text, i); !c.isLetter() {
				break
			}
		}
		i += n
	}
	return i
}

// numbers skips \p{N}{0,2}.
func (t *classes) numbers(text []byte, i int) int {
	for range 2 {
		if i == len(text) {
			break
		}
		c, n := t.at(text, i)
		if c != number {
			break
		}
		i += n
	}
	return i
}

// others skips [^\s\p{L}\p{N}]*.
func (t *classes) others(text []byte, i int) int {
	for i < len(text) {
		c, n := t.at(text, i)
		if !c.isOther() {
			break
		}
		i += n
	}
	return i
}

// newlines skips [\r\n]*.
func newlines(text []byte, i int) int {
	for i < len(text) && (text[i] == '\n' || text[i] == '\r') {
		i++
	}
	return i
}

// slashes skips [\r\n/]*.
func slashes(text []byte, i int) int {
	for i < len(text) && (text[i] == '\n' || text[i] == '\r' || text[i] == '/') {
		i++
	}
	return i
}

// whites is a run of white space.
type whites struct {
	last    int // where its last character begins
	end     int
	newline int // the end of the last newline in it; 0 if there is none
}

// spaces reads \s+ at i.
func (t *classes) spaces(text []byte, i int) whites {
	w := whites{end: i}
	for w.end < len(text) {
		c, n := t.at(text, w.end)
		if c&space == 0 {
			break
		}
		w.last = w.end
		w.end += n
		if c == newline {
			w.newline = w.end
		}
	}
	return w
}

// piece returns the end of the piece that a run from i begins with: up to its last newline, else without its last character, which goes with
// the word behind it, unless it is the only one or nothing is behind it.
func (w whites) piece(i, length int) int {
	switch {
	case w.newline > 0:
		return w.newline
	case w.end == length, w.last == i:
		return w.end
	}
	return w.last
}

// contraction skips (?i:'s|'t|'re|'ve|'m|'ll|'d)? at i. In Unicode, U+017F is an s of another case.
func contraction(text []byte, i int) int {
	if i+1 >= len(text) || text[i] != '\'' {
		return i
	}
	var two byte
	if i+2 < len(text) {
		two = text[i+2]
	}
	switch text[i+1] {
	case 's', 't', 'm', 'd', 'S', 'T', 'M', 'D':
		return i + 2
	case 'r', 'v', 'R', 'V':
		if two == 'e' || two == 'E' {
			return i + 3
		}
	case 'l', 'L':
		if two == 'l' || two == 'L' {
			return i + 3
		}
	case 0xC5: // U+017F
		if two == 0xBF {
			return i + 3
		}
	}
	return i
}
