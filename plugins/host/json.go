// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
)

var errJSON = errors.New("it is not JSON")

// findJSON finds a value by its path and returns where it is in the text, -1 if it is not there. It reads no further than it must, so what comes behind the value may be
// anything; an error means that what came before is not JSON.
func findJSON(text []byte, path string) (start, end int, err error) {
	s := jsonWalk{text: text}
	for path != "" {
		var step string
		step, path = cutStep(path)
		found, err := s.enter(step)
		if err != nil || !found {
			return -1, 0, err
		}
	}
	s.space()
	start = s.at
	if err := s.skip(0); err != nil {
		return -1, 0, err
	}
	return start, s.at, nil
}

// cutStep takes the first name off a path.
func cutStep(path string) (step, rest string) {
	if i := strings.IndexAny(path, `.\`); i < 0 {
		return path, ""
	}
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		switch path[i] {
		case '.':
			return b.String(), path[i+1:]
		case '\\':
			if i+1 < len(path) {
				i++
			}
		}
		b.WriteByte(path[i])
	}
	return b.String(), ""
}

// jsonWalk walks through a text.
type jsonWalk struct {
	text []byte
	at   int
}

func (s *jsonWalk) space() {
	for s.at < len(s.text) && (s.text[s.at] == ' ' || s.text[s.at] == '\n' || s.text[s.at] == '\r' || s.text[s.at] == '\t') {
		s.at++
	}
}

// next skips white space and returns the byte that follows, 0 at the end.
func (s *jsonWalk) next() byte {
	s.space()
	if s.at >= len(s.text) {
		return 0
	}
	return s.text[s.at]
}

// enter goes to the value of a member, or to an item of an array.
func (s *jsonWalk) enter(step string) (bool, error) {
	switch s.next() {
	case '{':
		return s.member(step)
	case '[':
		n, err := strconv.Atoi(step)
		if err != nil || n < 0 {
			return false, nil //nolint:nilerr // an array has no such item, which is no mistake of the text
		}
		return s.item(n)
	case 0:
		return false, errJSON
	}
	return false, nil
}

func (s *jsonWalk) member(name string) (bool, error) {
	s.at++
	if s.next() == '}' {
		return false, nil
	}
	for {
		key, err := s.str()
		if err != nil {
			return false, err
		}
		if s.next() != ':' {
			return false, errJSON
		}
		s.at++
		if keyIs(key, name) {
			return true, nil
		}
		if err := s.skip(0); err != nil {
			return false, err
		}
		if more, err := s.comma('}'); !more {
			return false, err
		}
	}
}

func (s *jsonWalk) item(n int) (bool, error) {
	s.at++
	if s.next() == ']' {
		return false, nil
	}
	for ; n > 0; n-- {
		if err := s.skip(0); err != nil {
			return false, err
		}
		if more, err := s.comma(']'); !more {
			return false, err
		}
	}
	return true, nil
}

// comma goes on to the next of a list, and reports whether there is one.
func (s *jsonWalk) comma(end byte) (bool, error) {
	switch s.next() {
	case ',':
		s.at++
		return true, nil
	case end:
		s.at++
		return false, nil
	}
	return false, errJSON
}

// str reads a string and returns what is between its quotes.
func (s *jsonWalk) str() ([]byte, error) {
	if s.next() != '"' {
		return nil, errJSON
	}
	s.at++
	from := s.at
	for s.at < len(s.text) {
		i := bytes.IndexAny(s.text[s.at:], `"\`)
		if i < 0 {
			break
		}
		s.at += i
		if s.text[s.at] == '"' {
			s.at++
			return s.text[from : s.at-1], nil
		}
		s.at += 2
	}
	return nil, errJSON
}

// keyIs compares a key as it stands in the text.
func keyIs(raw []byte, name string) bool {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw) == name
	}
	plain, err := strconv.Unquote(`"` + strings.ReplaceAll(string(raw), `\/`, `/`) + `"`)
	return err == nil && plain == name
}

// skip passes over a value.
func (s *jsonWalk) skip(depth int) error {
	const maxDepth = 200
	if depth > maxDepth {
		return errJSON
	}
	switch c := s.next(); {
	case c == '"':
		_, err := s.str()
		return err
	case c == '{' || c == '[':
		return s.skipList(c, depth)
	case c == '-' || c >= '0' && c <= '9' || c == 't' || c == 'f' || c == 'n':
		for s.at < len(s.text) && bytes.IndexByte([]byte("+-.0123456789abcdefghijklmnopqrstuvwxyzE"), s.text[s.at]) >= 0 {
			s.at++
		}
		return nil
	}
	return errJSON
}

func (s *jsonWalk) skipList(open byte, depth int) error {
	end := open + 2 // '{' and '}', '[' and ']'
	s.at++
	if s.next() == end {
		s.at++
		return nil
	}
	for {
		if open == '{' {
			if _, err := s.str(); err != nil {
				return err
			}
			if s.next() != ':' {
				return errJSON
			}
			s.at++
		}
		if err := s.skip(depth + 1); err != nil {
			return err
		}
		if more, err := s.comma(end); !more {
			return err
		}
	}
}
