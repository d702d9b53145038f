// SPDX-License-Identifier: Apache-2.0

// Package pii finds personal data and secrets in text: what can be told by its form alone, with check digits where there are some. It reads the
// text once, allocates nothing, and takes a few nanoseconds for each byte.
//
// It is a help for plugins, not a promise: it knows no names, no addresses of houses, and no secret without a form of its own.
package pii

import (
	"bytes"
	"iter"
	"math/bits"
)

// Kind is a sort of data; kinds can be added up.
type Kind uint32

// Kinds, as plugins/ABI.md has them.
const (
	Email  Kind = 1 << iota // of the form a@b.c
	Card                    // payment card: 13 to 19 digits, spaces and hyphens between them, a right check digit (Luhn)
	IBAN                    // with a right check sum (mod 97)
	SSN                     // of the United States: 123-45-6789
	IPv4                    // four numbers up to 255
	Phone                   // + and 8 to 15 digits, with spaces, hyphens, dots or brackets between them
	Secret                  // keys of well-known providers, JSON Web Tokens, private keys
)

// All is every kind.
const All = Email | Card | IBAN | SSN | IPv4 | Phone | Secret

// Count returns how many kinds there are in the sum.
func (k Kind) Count() int { return bits.OnesCount32(uint32(k & All)) }

// Found is a piece of a text.
type Found struct {
	Start, End int
	Kind       Kind
}

// Scan returns what there is of some kinds in a text, in order, without overlaps.
func Scan(text []byte, kinds Kind) iter.Seq[Found] {
	return func(yield func(Found) bool) {
		from := 0 // the end of what was found last
		for at := 0; at < len(text); {
			f, ok := match(text, at, from, kinds)
			if !ok {
				at++
				continue
			}
			if !yield(f) {
				return
			}
			at, from = f.End, f.End
		}
	}
}

// match looks for something at a place; what it finds may begin before it, but not before from.
func match(t []byte, at, from int, kinds Kind) (Found, bool) {
	c := t[at]
	if c == '@' && kinds&Email != 0 {
		return email(t, at, from)
	}
	if at > from && isWord(t[at-1]) {
		return Found{}, false // all others begin where a word does
	}
	switch {
	case c >= '0' && c <= '9':
		return digits(t, at, kinds)
	case c == '+' && kinds&Phone != 0:
		return phone(t, at)
	case c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c == '-':
		if kinds&Secret != 0 {
			if end := secret(t, at); end > 0 {
				return Found{at, end, Secret}, true
			}
		}
		if kinds&IBAN != 0 && c >= 'A' && c <= 'Z' {
			if end := iban(t, at); end > 0 {
				return Found{at, end, IBAN}, true
			}
		}
	}
	return Found{}, false
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// isWord reports whether a byte is of a word; bytes of characters outside of ASCII are.
func isWord(c byte) bool { return isDigit(c) || isLetter(c) || c == '_' || c >= 0x80 }

func ends(t []byte, at int) bool { return at >= len(t) || !isWord(t[at]) }

// email is given the place of an @.
func email(t []byte, at, from int) (Found, bool) {
	start := at
	for start > from && at-start < 64 && (isWord(t[start-1]) && t[start-1] < 0x80 || t[start-1] == '.' || t[start-1] == '+' || t[start-1] == '-' || t[start-1] == '%') {
		start--
	}
	for start < at && t[start] == '.' {
		start++
	}
	end, dot := at+1, 0
	for end < len(t) && end-at < 255 && (isLetter(t[end]) || isDigit(t[end]) || t[end] == '-' || t[end] == '.') {
		if t[end] == '.' {
			if t[end-1] == '.' || end == at+1 {
				break
			}
			dot = end
		}
		end++
	}
	if end > at && t[end-1] == '.' { // of the sentence
		end--
		dot = bytes.LastIndexByte(t[:end], '.')
	}
	if start == at || dot <= at || end-dot < 3 || !isLetter(t[end-1]) {
		return Found{}, false
	}
	return Found{start, end, Email}, true
}

// digits looks for what begins with a digit.
func digits(t []byte, at int, kinds Kind) (Found, bool) {
	if kinds&SSN != 0 {
		if end := ssn(t, at); end > 0 {
			return Found{at, end, SSN}, true
		}
	}
	if kinds&Card != 0 {
		if end := card(t, at); end > 0 {
			return Found{at, end, Card}, true
		}
	}
	if kinds&IPv4 != 0 {
		if end := ipv4(t, at); end > 0 {
			return Found{at, end, IPv4}, true
		}
	}
	return Found{}, false
}

func ssn(t []byte, at int) int {
	const form = "ddd-dd-dddd"
	if len(t)-at < len(form) || !ends(t, at+len(form)) {
		return 0
	}
	for i := range form {
		if c := t[at+i]; form[i] == 'd' && !isDigit(c) || form[i] == '-' && c != '-' {
			return 0
		}
	}
	area := string(t[at : at+3])
	if area == "000" || area == "666" || area[0] == '9' || string(t[at+4:at+6]) == "00" || string(t[at+7:at+11]) == "0000" {
		return 0 // never given out
	}
	return at + len(form)
}

// card looks for 13 to 19 digits whose sum by Luhn is a multiple of ten.
func card(t []byte, at int) int {
	var number [19]byte
	n, end, i := 0, 0, at
	for ; i < len(t); i++ {
		if isDigit(t[i]) {
			if n == len(number) {
				return 0
			}
			number[n] = t[i] - '0'
			n++
			end = i + 1
			continue
		}
		if t[i] != ' ' && t[i] != '-' || i+1 >= len(t) || !isDigit(t[i+1]) {
			break
		}
	}
	if n < 13 || !ends(t, end) {
		return 0
	}
	sum, zeros := 0, true
	for k := range n {
		d := int(number[n-1-k])
		zeros = zeros && d == 0
		if k%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	if sum%10 != 0 || zeros {
		return 0
	}
	return end
}

func ipv4(t []byte, at int) int {
	if at > 0 && t[at-1] == '.' {
		return 0
	}
	i := at
	for part := range 4 {
		n, from := 0, i
		for i < len(t) && isDigit(t[i]) && i-from < 3 {
			n = n*10 + int(t[i]-'0')
			i++
		}
		if i == from || n > 255 || i-from > 1 && t[from] == '0' {
			return 0
		}
		if part < 3 {
			if i >= len(t) || t[i] != '.' {
				return 0
			}
			i++
		}
	}
	if !ends(t, i) || i+1 < len(t) && t[i] == '.' && isDigit(t[i+1]) {
		return 0
	}
	return i
}

func phone(t []byte, at int) (Found, bool) {
	n, end := 0, 0
	for i := at + 1; i < len(t); i++ {
		switch c := t[i]; {
		case isDigit(c):
			n++
			end = i + 1
			continue
		case (c == ' ' || c == '-' || c == '.' || c == '(' || c == ')') && i-end < 2:
			continue
		}
		break
	}
	if n < 8 || n > 15 || !ends(t, end) {
		return Found{}, false
	}
	return Found{at, end, Phone}, true
}

// iban looks for two letters, two digits and up to 30 letters and digits, in groups or not, whose number is 1 modulo 97.
func iban(t []byte, at int) int {
	var number [34]byte
	n, end := 0, 0
	for i := at; i < len(t) && n < len(number); i++ {
		c := t[i]
		if c == ' ' && n > 0 && n%4 == 0 && i+1 < len(t) && (isDigit(t[i+1]) || t[i+1] >= 'A' && t[i+1] <= 'Z') {
			continue
		}
		if !isDigit(c) && (c < 'A' || c > 'Z') {
			break
		}
		if n < 2 && isDigit(c) || n >= 2 && n < 4 && !isDigit(c) {
			return 0
		}
		number[n] = c
		n++
		end = i + 1
		if n >= 15 && ends(t, end) && mod97(number[:n]) {
			return end
		}
	}
	return 0
}

func mod97(number []byte) bool {
	r := 0
	for i := range number {
		c := number[(i+4)%len(number)]
		if isDigit(c) {
			r = (r*10 + int(c-'0')) % 97
		} else {
			r = (r*100 + int(c-'A') + 10) % 97
		}
	}
	return r == 1
}
