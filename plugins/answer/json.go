// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"strconv"
	"unicode/utf8"

	"github.com/weir-proxy/weir/internal/jsonscan"
)

// scan finds members of the object at a place in a text. An absent object or null has no members.
func scan(k *jsonscan.Keys, text []byte, at jsonscan.Span, o *jsonscan.Object) error {
	if !present(text, at) {
		*o = jsonscan.Object{}
		return nil
	}
	if err := k.Scan(at.Of(text), o); err != nil {
		return &UnreadableError{Reason: "a member is not an object with one reading", Err: err}
	}
	o.Close += at.Start
	for i := range o.Values {
		if v := &o.Values[i]; v.Found() {
			v.Start += at.Start
			v.End += at.Start
		}
	}
	return nil
}

// present reports whether a member is there and not null.
func present(text []byte, at jsonscan.Span) bool { return at.Found() && text[at.Start] != 'n' }

// isArray refuses what is there and no array. An absent array and null are none.
func isArray(text []byte, at jsonscan.Span) (bool, error) {
	if !present(text, at) {
		return false, nil
	}
	if text[at.Start] != '[' {
		return false, unreadable("a member is not an array")
	}
	return true, nil
}

// isObject reports whether a member is an object.
func isObject(text []byte, at jsonscan.Span) bool { return at.Found() && text[at.Start] == '{' }

// simple reports whether a member has one value, which is on one line.
func simple(text []byte, at jsonscan.Span) bool {
	return at.Found() && text[at.Start] != '{' && text[at.Start] != '['
}

// str returns a string; an absent one and null are empty.
func str(text []byte, at jsonscan.Span) (string, error) {
	if !present(text, at) {
		return "", nil
	}
	if text[at.Start] != '"' {
		return "", unreadable("a member is not a string")
	}
	return jsonscan.Unquote(at.Of(text)), nil
}

// word returns the inside of a string as it is written, for comparison with words that need no escapes; nothing of anything else.
func word(text []byte, at jsonscan.Span) []byte {
	if !at.Found() || text[at.Start] != '"' {
		return nil
	}
	return text[at.Start+1 : at.End-1]
}

// number returns a number that counts; where there is none, what it is by default.
func number(text []byte, at jsonscan.Span, byDefault int64) (int64, error) {
	if !present(text, at) {
		return byDefault, nil
	}
	n, err := strconv.ParseInt(string(at.Of(text)), 10, 64)
	if err != nil || n < 0 {
		return 0, unreadable("a member is not a whole number")
	}
	return n, nil
}

// appendQuoted appends a text as a JSON string. What is not UTF-8 in it becomes U+FFFD.
func appendQuoted(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, '\\', 'n')
		case r == '\r':
			b = append(b, '\\', 'r')
		case r == '\t':
			b = append(b, '\\', 't')
		case r < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

func quote(s string) string { return string(appendQuoted(nil, s)) }
