// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"

	weir "github.com/weir-proxy/weir/plugins/sdk/go"
)

const (
	// room is how many bytes may be held back of all texts together; a state has 4,096.
	room = 3000
	// least is what each text may hold. If so many do that the state gets too large, the call fails: that is better than to let something through.
	least = 600
	// reach is how far back a number that is written with spaces may begin.
	reach = 128
	// banner is how long the first line of a private key may get.
	banner = 72
)

// mode is what is done with what comes next.
type mode byte

const (
	plain mode = iota
	token      // it goes on with a secret that was too long to be held, and is left out
	block      // the same of a private key, to its last line
)

// lane is one text of a response, or the arguments of one call.
type lane struct {
	key    string
	mode   mode
	before string // the character before held, which has gone out: whether a word begins behind it depends on it
	held   string

	arguments bool
	found     bool
}

type lanes []*lane

// readLanes reads a state: of each lane its key, mode, character before and what is held.
func readLanes(state []byte) (l lanes) {
	if len(state) == 0 {
		return nil
	}
	next := func() string {
		n := int(binary.LittleEndian.Uint16(state))
		s := string(state[2 : 2+n])
		state = state[2+n:]
		return s
	}
	for state = state[1:]; len(state) > 0; {
		one := &lane{key: next(), mode: mode(state[0])}
		state = state[1:]
		one.before, one.held = next(), next()
		l = append(l, one)
	}
	return l
}

// bytes writes a state. It is never empty, which would leave the one before in force.
func (l lanes) bytes() []byte {
	b := []byte{1}
	put := func(s string) { b = append(binary.LittleEndian.AppendUint16(b, uint16(len(s))), s...) }
	for _, one := range l {
		put(one.key)
		b = append(b, byte(one.mode))
		put(one.before)
		put(one.held)
	}
	return b
}

func (l *lanes) lane(key string) *lane {
	for _, one := range *l {
		if one.key == key {
			return one
		}
	}
	one := &lane{key: key}
	*l = append(*l, one)
	return one
}

// roomBeside returns how much one may hold, given what the others do.
func (l lanes) roomBeside(one *lane) int {
	n := room
	for _, other := range l {
		if other != one {
			n -= len(other.held)
		}
	}
	return n
}

func (l *lanes) remove(key string) {
	for i, one := range *l {
		if one.key == key {
			*l = append((*l)[:i], (*l)[i+1:]...)
			return
		}
	}
}

// take takes what is new and returns what may go out. Final says that the text ends here; room is how much may be held.
func (l *lane) take(text string, final bool, room int) string {
	text = l.held + text
	l.held = ""
	switch l.mode {
	case token:
		if text = strings.TrimLeftFunc(text, isToken); text == "" {
			return ""
		}
		l.mode = plain
	case block:
		_, rest, ok := strings.Cut(text, "-----END ")
		if !ok {
			l.held = lastBytes(text, banner)
			return ""
		}
		_, behind, ok := strings.Cut(rest, "PRIVATE KEY-----")
		if !ok {
			l.held = "-----END " + lastBytes(rest, banner)
			return ""
		}
		text, l.mode = behind, plain
	case plain:
	}
	return l.plain(text, final, room)
}

func (l *lane) plain(text string, final bool, room int) string {
	whole, from := l.before+text, len(l.before)
	found := scan(whole)
	cut := len(whole)
	if !final {
		cut = max(from, clear(found, settled(whole), len(whole)))
	}
	out := l.redact(whole, found, from, cut)
	for len(whole)-cut > room { // too much to hold
		if n := len(found); n > 0 && int(found[n-1].End) == len(whole) && found[n-1].Kind == kindSecret {
			f := found[n-1] // a secret that goes on
			out += l.redact(whole, found[:n-1], cut, int(f.Start)) + mask(whole, f, l.arguments)
			l.mode, l.before, l.found = token, "", true
			if strings.HasPrefix(whole[f.Start:], "-----") {
				l.mode, l.held = block, lastBytes(whole, banner)
			}
			return out
		}
		next := clear(found, boundary(whole, len(whole)-room/2), len(whole))
		if next <= cut {
			break
		}
		out += l.redact(whole, found, cut, next)
		cut = next
	}
	l.before, l.held = "", whole[cut:]
	if r, n := utf8.DecodeLastRuneInString(whole[:cut]); r >= utf8.RuneSelf || isToken(r) {
		l.before = whole[cut-n : cut]
	}
	return out
}

// clear moves a cut before what it would cut in two. What reaches as far as goesOn may be longer than it looks: a private key has lines.
func clear(found []weir.Found, cut, goesOn int) int {
	for _, f := range found {
		if int(f.Start) < cut && (cut < int(f.End) || int(f.End) == goesOn) {
			return int(f.Start)
		}
	}
	return cut
}

// redact returns a part of a text with what was found in it masked.
func (l *lane) redact(text string, found []weir.Found, from, to int) string {
	var b strings.Builder
	for _, f := range found {
		if int(f.Start) < from || int(f.End) > to {
			continue
		}
		b.WriteString(text[from:f.Start])
		b.WriteString(mask(text, f, l.arguments))
		from, l.found = int(f.End), true
	}
	b.WriteString(text[from:to])
	return b.String()
}

// settled returns up to where nothing that follows can make data of the text.
func settled(text string) int {
	cut := 0
	if i := strings.LastIndexFunc(text, isStop); i >= 0 {
		_, n := utf8.DecodeRuneInString(text[i:])
		cut = i + n
	}
	// Behind it are words and spaces. The last word may go on; numbers may be written in several.
	at := strings.LastIndexByte(text[cut:], ' ') + 1 + cut
	for at > cut && len(text)-at < reach {
		before := strings.LastIndexByte(text[cut:at-1], ' ') + 1 + cut
		if !isNumber(text[before : at-1]) {
			break
		}
		at = before
	}
	if i := strings.LastIndex(text, "-----BEGIN "); i >= 0 && len(text)-i < banner {
		at = min(at, i)
	}
	return at
}

// isStop reports whether a character is in no data, private keys aside.
func isStop(r rune) bool {
	return r >= utf8.RuneSelf || !isToken(r) && !strings.ContainsRune(".+%@() ", r)
}

func isToken(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_' || r == '-'
}

// isNumber reports whether a word may be a group of a number: it has a digit, or no letter, or is one of the groups of an IBAN.
func isNumber(word string) bool {
	letters := false
	for _, r := range word {
		if r >= '0' && r <= '9' {
			return true
		}
		letters = letters || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
	}
	return !letters || len(word) <= 4 && word == strings.ToUpper(word)
}

// boundary returns the beginning of the character at a place.
func boundary(text string, at int) int {
	for at > 0 && !utf8.RuneStart(text[at]) {
		at--
	}
	return at
}

func lastBytes(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return text[boundary(text, len(text)-n):]
}
