// SPDX-License-Identifier: Apache-2.0

package tokens

import (
	"bytes"
	"sync"

	"github.com/weir-proxy/weir/internal/jsonscan"
)

// Tokens that are not text. The first three are the cookbook's.
const (
	perMessage = 3
	perName    = 1
	perAnswer  = 3
	perCall    = 6 // around a call of a tool in an earlier answer

	mostPerMessage = 8 // templates of open models have up to 6
	mostPerCall    = 32
	mostPerRequest = 64  // such as the date that some templates begin with
	mostForTools   = 640 // Anthropic's instructions for tools have up to 530
)

// meter adds up the tokens of one request. Its methods that take a cursor take the value that it stands before.
type meter struct {
	rules
	size      Size
	limits    [limitKinds]limit
	spelt     bool // the key that was read last stands there as the API has it, but for escapes
	counting  bool // texts are counted; else each byte is a token
	left      int  // bytes of text that may still be counted
	seenBytes int  // of the text that was counted
	seen      int  // tokens in it
	text      []byte
	line      []byte
	key       []byte
}

// meters keeps the buffers of meters.
var meters = sync.Pool{New: func() any { return new(meter) }}

// maxBuffer is the largest buffer that is kept.
const maxBuffer = 256 << 10

func (r Request) size(counting bool) Size {
	m, ok := meters.Get().(*meter)
	if !ok {
		m = new(meter)
	}
	*m = meter{
		rules: rulesOf(r.Model), counting: counting, left: CountedText, text: m.text[:0], line: m.line[:0], key: m.key[:0],
		size: Size{Output: NoLimit, Answers: 1},
	}
	if !m.known {
		m.estimate()
	}
	c := jsonscan.NewCursor(r.Body)
	m.request(&c, r.Operation)
	s := m.size
	s.Most = max(s.Most, s.Input)
	if cap(m.text) > maxBuffer {
		m.text = nil
	}
	if cap(m.line) > maxBuffer {
		m.line = nil
	}
	meters.Put(m)
	return s
}

// request reads the members of a body.
func (m *meter) request(c *jsonscan.Cursor, op Operation) {
	m.add(0, mostPerRequest)
	prompts := int64(1)
	m.members(c, func(key string) {
		if m.limit(c, key) {
			return
		}
		switch op {
		case Chat:
			m.chatMember(c, key)
		case Responses:
			m.responsesMember(c, key)
		case Completions:
			switch key {
			case "prompt":
				prompts = max(prompts, m.prompts(c))
			case "suffix":
				m.estimate()
				m.opaque(c)
			default:
				m.other(c, key)
			}
		case Embeddings:
			if key == "input" {
				m.prompts(c)
			} else {
				m.other(c, key)
			}
		}
	})
	m.bound(op)
	switch op {
	case Chat, Responses:
		m.add(perAnswer, perAnswer)
		if !m.framed {
			m.estimate()
		}
	case Completions:
		m.size.Answers = times(m.size.Answers, prompts)
	case Embeddings:
		m.size.Output, m.size.Answers = 0, 1
	}
}

// add adds tokens: how many there probably are, and at most.
func (m *meter) add(probably, most int64) {
	m.size.Input += probably
	m.size.Most += most
}

// estimate notes that Input is no longer exact.
func (m *meter) estimate() { m.size.Grade = max(m.size.Grade, Estimated) }

// open notes that there is input that is not in the body.
func (m *meter) open() {
	m.estimate()
	m.size.Open = true
}

// members calls f before each value of an object, with its key; f takes the value. Anything but an object is skipped. Keys are given as the most
// lenient parsers read them: without escapes, in lower case.
func (m *meter) members(c *jsonscan.Cursor, f func(key string)) {
	if c.Kind() != '{' {
		c.Value()
		return
	}
	for c.Enter(); ; {
		raw, ok := c.Member()
		if !ok {
			return
		}
		f(m.name(raw))
	}
}

// name returns the key that raw may be taken for; empty if it is none of names.
func (m *meter) name(raw []byte) string {
	if n, found := names[string(raw)]; found { // as most are: in plain spelling
		m.spelt = true
		return n
	}
	m.spelt = false
	if len(raw) > longestName*len(`\u0000`) {
		return ""
	}
	m.key = jsonscan.AppendUnquoted(m.key[:0], raw)
	if n, found := names[string(m.key)]; found {
		m.spelt = true
		return n
	}
	m.key = fold(m.key)
	return names[string(m.key)]
}

// fold puts a key into lower case, in place: that of ASCII, and the two other letters that Unicode folds to ASCII, U+017F to s and U+212A to k.
func fold(key []byte) []byte {
	out := key[:0]
	for i := 0; i < len(key); i++ {
		switch b := key[i]; {
		case b >= 'A' && b <= 'Z':
			out = append(out, b|0x20)
		case b == 0xC5 && i+1 < len(key) && key[i+1] == 0xBF:
			out = append(out, 's')
			i++
		case b == 0xE2 && i+2 < len(key) && key[i+1] == 0x84 && key[i+2] == 0xAA:
			out = append(out, 'k')
			i += 2
		default:
			out = append(out, b)
		}
	}
	return out
}

// elements calls f before each element of an array; f takes it. Anything but an array is skipped.
func (m *meter) elements(c *jsonscan.Cursor, f func()) {
	if c.Kind() != '[' {
		c.Value()
		return
	}
	for c.Enter(); c.Element(); {
		f()
	}
}

// opaque counts the JSON of a value that is somehow a part of the input.
func (m *meter) opaque(c *jsonscan.Cursor) {
	m.estimate()
	m.plain(c.Value(), 0)
}

// other passes over a member that no rule is for. If it should be input nonetheless, it has no more tokens than bytes.
func (m *meter) other(c *jsonscan.Cursor, key string) {
	value := c.Value()
	if !isSetting(key) {
		m.add(0, int64(len(value)))
	}
}

// str counts a string; null is none, and anything else is counted as JSON.
func (m *meter) str(c *jsonscan.Cursor) {
	switch c.Kind() {
	case '"':
		m.quoted(c.Value())
	case 'n':
		c.Value()
	default:
		m.opaque(c)
	}
}

// quoted counts the text that a JSON string stands for.
func (m *meter) quoted(value []byte) {
	raw := inside(value)
	if !m.counting || bytes.IndexByte(raw, '\\') < 0 {
		m.plain(raw, 0)
		return
	}
	for len(raw) > 0 {
		part := raw[:seam(raw)]
		raw = raw[len(part):]
		m.text = jsonscan.AppendUnquoted(m.text[:0], part)
		m.plain(m.text, len(part)-len(m.text))
	}
}

// says reports whether a value is the string of a word, with whatever escapes.
func (m *meter) says(value []byte, word string) bool {
	if len(value) < 2 || value[0] != '"' {
		return false
	}
	raw := inside(value)
	if bytes.IndexByte(raw, '\\') >= 0 && len(raw) <= len(word)*len(`\u0000`) {
		m.text = jsonscan.AppendUnquoted(m.text[:0], raw)
		raw = m.text
	}
	return string(raw) == word
}

// inside returns what is between the quotes of a string.
func inside(value []byte) []byte {
	if len(value) < 2 {
		return nil
	}
	return value[1 : len(value)-1]
}

// decodedPart is how many bytes of a string with escapes are decoded at once, at least.
const decodedPart = 16 << 10

// seam returns where the inside of a JSON string can be cut, beyond decodedPart bytes, so that its parts have as many tokens as the whole: before a
// blank behind a letter or digit, where both encodings end a piece whatever is around. It must be none of an escape.
func seam(raw []byte) int {
	for i := decodedPart; i < len(raw); i++ {
		if raw[i] == ' ' && alphanumeric(raw[i-1]) && bytes.IndexByte(raw[i-len(`\u0000`):i], '\\') < 0 {
			return i
		}
	}
	return len(raw)
}

func alphanumeric(b byte) bool {
	return b|0x20 >= 'a' && b|0x20 <= 'z' || b >= '0' && b <= '9'
}

// plain counts a text. more is how many bytes more it may be said to have, for bounds: those of its escapes.
func (m *meter) plain(text []byte, more int) {
	n := len(text)
	switch {
	case !m.counting:
		m.add(int64(n), int64(n))
		return
	case n <= m.left:
		tokens := m.encoding.Count(text)
		m.left -= n
		m.seen += tokens
		m.seenBytes += n
		if m.known {
			m.add(int64(tokens), int64(tokens))
		} else {
			m.add(int64(tokens), int64(n+more))
		}
		return
	}
	m.estimate()
	if m.left > 0 && n > m.left { // a part may cut a character apart, which costs a token or two
		part := text[:m.left]
		m.seen += m.encoding.Count(part)
		m.seenBytes += len(part)
		m.left = 0
	}
	m.add(ceil(int64(n)*int64(max(m.seen, 1)), int64(max(m.seenBytes, 1))), int64(n+more))
}
