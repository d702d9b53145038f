// SPDX-License-Identifier: Apache-2.0

package usage

import "time"

// quickLine reads a line as Envoy nearly always writes it: one object without white space, whose values are texts, whole numbers and null, in
// which nothing is escaped but the quotes and the white space of the usage. It takes a fifth of the time that [splitLine] and [ParseCounts] take, and what it reads is
// what they would, but that the tokens of the usage are read where they stand, and Usage stays empty. Every other line it leaves to them by
// returning false: whether a line is good or bad is never decided here.
func quickLine(s string, l *Line, c *counted) bool {
	*l, *c = Line{FirstByte: -1}, counted{}
	if len(s) < 2 || s[0] != '{' || s[len(s)-1] != '}' { // so that there is a byte behind everything but the end
		return false
	}
	for i := 1; ; i++ {
		key, at := quickKey(s, i)
		if at == 0 {
			return false
		}
		var v quickValue
		if i, v = quickRead(s, at); key == "usage" {
			if *c = (counted{}); v.kind == quickUsage {
				i, v.kind = c.read(s, i), quickText
			}
		}
		if i == 0 || i >= len(s) || !l.quickMember(key, &v) {
			return false
		}
		if s[i] != ',' {
			return s[i] == '}' && i == len(s)-1 && (l.Kind == KindExchange || l.Kind == KindAttempt)
		}
	}
}

// counted is what the usage of a line says, by [ParseCounts].
type counted struct {
	tokens Tokens
	ok     bool
}

// quickValue is a value of a line.
type quickValue struct {
	kind   byte
	text   string
	number int64
}

// The kinds of values. Zero is none of them.
const (
	quickNull   = 'n'
	quickText   = 't'
	quickNumber = '1'
	quickUsage  = '{' // an object in quotes, which is not read yet
)

// quickKey reads the key at i and the colon behind it, and returns the offset behind that; 0 if there is no key of small letters, digits and underscores.
func quickKey(s string, i int) (key string, end int) {
	if s[i] != '"' {
		return "", 0
	}
	i++
	begin := i
	for isKey(s[i]) {
		i++
	}
	if len(s)-i < 3 || s[i] != '"' || s[i+1] != ':' {
		return "", 0
	}
	return s[begin:i], i + 2
}

func isKey(c byte) bool { return c-'a' < 26 || c == '_' || c-'0' < 10 }

// quickRead reads the value at i and returns the offset behind it, that of its brace if it is an object in quotes, and 0 for one that is not read here.
func quickRead(s string, i int) (end int, v quickValue) {
	switch c := s[i]; {
	case c == '"':
		i++
		end = i + plain(s[i:])
		switch {
		case end >= len(s):
		case s[end] == '"':
			if v.kind = quickText; s[i:end] != "-" {
				v.text = s[i:end]
			}
			return end + 1, v
		case s[i] == '{':
			v.kind = quickUsage
			return i, v
		}
	case c-'0' < 10:
		v.kind = quickNumber
		v.number, end = quickDigits(s, i)
		return end, v
	case c == 'n' && len(s)-i > 4 && s[i:i+4] == "null":
		v.kind = quickNull
		return i + 4, v
	}
	return 0, v
}

// quickDigits reads the digits at i, of which there is one at least, and returns the offset behind them; 0 for so many that it takes care to read them.
func quickDigits(s string, i int) (n int64, end int) {
	const most = 15 // up to here a double holds every number
	begin := i
	for ; s[i]-'0' < 10; i++ {
		n = n*10 + int64(s[i]-'0')
	}
	if i-begin > most || i-begin > 1 && s[begin] == '0' {
		return 0, 0
	}
	return n, i
}

// quickMember does with a value what [Line.member] does. It reports false for one that does not belong there.
func (l *Line) quickMember(key string, v *quickValue) bool {
	var text *string
	switch key {
	case "attempts", "attempt":
		l.Attempts = int(v.number)
		return v.kind != quickText && v.number <= maxSmall
	case "cluster":
		text = &l.Cluster
	case "details":
		text = &l.Details
	case "duration":
		return v.quickMillis(&l.Duration)
	case "exchange":
		text = &l.Exchange
	case "first_byte":
		return v.quickMillis(&l.FirstByte)
	case "flags":
		text = &l.Flags
	case "kind":
		text = (*string)(&l.Kind)
	case "log_type":
		text = &l.LogType
	case "retry_after":
		text = &l.RetryAfter
	case "rx":
		l.RequestBytes = v.number
		return v.kind != quickText
	case "status":
		l.Status = int(v.number)
		return v.kind != quickText && v.number <= maxSmall
	case "tags":
		text = &l.Tags
	case "ticket":
		text = &l.Ticket
	case "trace":
		text = &l.Trace
	case "tx":
		l.ResponseBytes = v.number
		return v.kind != quickText
	case "usage":
		return v.kind != quickNumber && v.text == "" // with text in it, it was no object
	default:
		return v.kind != quickUsage
	}
	*text = v.text
	return v.kind == quickText || v.kind == quickNull
}

// quickMillis reads milliseconds. A null leaves them as they are.
func (v *quickValue) quickMillis(d *time.Duration) bool {
	if v.kind == quickNumber {
		*d = time.Duration(v.number) * time.Millisecond
	}
	return v.kind != quickText && v.number <= maxMillis
}

// read reads the usage object at i, whose quotes have a backslash before them, and the quote behind it. It returns the offset behind that; 0 for
// one that is not read here.
func (c *counted) read(s string, i int) int {
	n := counts{input: -1, output: -1, total: -1}
	r := quickCounts{s: s, counts: &n}
	if i = r.object(i+1, nil, 0); i == 0 || i == len(s) || s[i] != '"' {
		return 0
	}
	c.tokens, c.ok = n.tokens()
	return i + 1
}

// quickCounts reads a usage object within a line.
type quickCounts struct {
	s string // ends in a brace: there is a byte behind everything that is not the end
	*counts
}

// object reads the members of an object from i on, which is behind its brace, and returns the offset behind it; 0 if one is not as it should be. The
// object is one of details if of is not nil, and none that counts if its depth is more than that.
func (r *quickCounts) object(i int, of *parts, depth int) int {
	s := r.s
	if i = quickSpace(s, i); s[i] == '}' {
		return i + 1
	}
	for {
		key, at := r.key(i)
		if at == 0 {
			return 0
		}
		var to *int64
		switch {
		case depth == 0:
			to = r.at(key)
		case of != nil:
			to = of.at(key)
		}
		switch c := s[at]; {
		case c-'0' < 10 && to != nil:
			var n int64
			if n, i = quickDigits(s, at); i == 0 || n > maxCount {
				return 0
			}
			*to = n
		case c == '{' && to == nil && depth < maxDepth-1:
			var inner *parts
			if depth == 0 {
				inner = r.partsAt(key)
			}
			i = r.object(at+1, inner, depth+1)
		default:
			i = r.other(at, to != nil || depth == 0 && r.partsAt(key) != nil)
		}
		if depth == 0 {
			r.noted(key)
		}
		if i == 0 || i == len(s) {
			return 0
		}
		switch i = quickSpace(s, i); s[i] {
		case ',':
			i = quickSpace(s, i+1)
		case '}':
			return i + 1
		default:
			return 0
		}
	}
}

// key reads the key at i, the colon and the white space behind it.
func (r *quickCounts) key(i int) (key string, end int) {
	s := r.s
	if len(s)-i < 2 || s[i] != '\\' || s[i+1] != '"' {
		return "", 0
	}
	i += 2
	begin := i
	for isKey(s[i]) {
		i++
	}
	key = s[begin:i]
	if len(s)-i < 3 || s[i] != '\\' || s[i+1] != '"' {
		return "", 0
	}
	if i = quickSpace(s, i+2); s[i] != ':' {
		return "", 0
	}
	return key, quickSpace(s, i+1)
}

// other reads a value that is no count: where a count should be, it may only be null.
func (r *quickCounts) other(i int, count bool) int {
	s := r.s
	for _, word := range [...]string{"null", "false", "true"} {
		if s[i] == word[0] && len(s)-i > len(word) && s[i:i+len(word)] == word && (!count || word == "null") {
			return i + len(word)
		}
	}
	switch c := s[i]; {
	case count:
	case c == '\\' && s[i+1] == '"':
		if i += 2; i >= len(s) {
			return 0
		}
		if i += plain(s[i:]); len(s)-i > 2 && s[i] == '\\' && s[i+1] == '"' {
			return i + 2
		}
	case c-'0' < 10:
		if _, i = quickDigits(s, i); i > 0 && s[i] == '.' && s[i+1]-'0' < 10 {
			for i++; s[i]-'0' < 10; i++ {
			}
		}
		return i
	}
	return 0
}

// quickSpace steps over white space, as it stands in a text within JSON.
func quickSpace(s string, i int) int {
	for {
		switch {
		case s[i] == ' ':
			i++
		case s[i] == '\\' && (s[i+1] == 'n' || s[i+1] == 'r' || s[i+1] == 't'):
			i += 2
		default:
			return i
		}
	}
}
