// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Kind tells the two kinds of lines in the log apart.
type Kind string

// The kinds of lines.
const (
	KindExchange Kind = "exchange" // the end of an exchange, or the news that a long one goes on
	KindAttempt  Kind = "attempt"  // an attempt at one channel that failed
)

// Line is a line of Envoy's access log. What Envoy wrote as null or "-" is empty or zero here.
type Line struct {
	Kind Kind
	Names
	Usage         string // the bytes of the last usage object that passed, from its first byte on; not checked
	Cluster       string // %UPSTREAM_CLUSTER_RAW%
	Status        int    // %RESPONSE_CODE%; 0 when no head of a response was sent
	Flags         string // %RESPONSE_FLAGS%, separated by commas
	Details       string // %RESPONSE_CODE_DETAILS%
	Attempts      int    // how many were made; in an attempt's line, which one it was
	RequestBytes  int64  // of the body
	ResponseBytes int64  // of the body
	Duration      time.Duration
	FirstByte     time.Duration // from the beginning of the request to the first byte from the channel; -1 when there was none
	LogType       string        // %ACCESS_LOG_TYPE%
	RetryAfter    string        // the header, as the channel sent it
}

// Names say which exchange a line is of, and what policies have noted of it.
type Names struct {
	Exchange string // its id, also when it was never admitted
	Ticket   string // policy.Ticket; empty when the exchange was never admitted, and in the line of an attempt
	Tags     string // policy.EncodeTags, of its response; those of its request are in the ticket
	Trace    string // see [Record]; empty where no traces are made
}

// Final reports whether the line tells of the end of an exchange. Lines of long streams that still live do not.
func (l *Line) Final() bool {
	return l.Kind == KindExchange && (l.LogType == "" || l.LogType == logTypeEnd)
}

// logTypeEnd is %ACCESS_LOG_TYPE% of the line at the end of a request:
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/data/accesslog/v3/accesslog.proto#enum-data-accesslog-v3-accesslogtype.
const logTypeEnd = "DownstreamEnd"

// ErrLine is wrapped by every error of [ParseLine].
var ErrLine = errors.New("malformed line")

// ParseLine decodes one line, with or without its newline. Keys that it does not know are passed over; keys that it knows must have a
// value of the right type, or null. The result does not refer to b.
func ParseLine(b []byte) (Line, error) {
	s := string(b)
	var l Line
	n, err := parseObject(s, &l)
	if err != nil {
		return Line{}, err
	}
	if strings.Trim(s[n:], " \t\r\n") != "" {
		return Line{}, fmt.Errorf("%w: more after the object, at byte %d", ErrLine, n)
	}
	return l, nil
}

// parseObject decodes the object at the beginning of s and returns its length. With an error, the length is that of the object if it is
// well-formed but not a line of ours, else 0.
func parseObject(s string, l *Line) (int, error) {
	p := scanner{s: s}
	l.FirstByte = -1
	p.object(func(key string) { l.member(&p, key) })
	if !p.ok() {
		return 0, fmt.Errorf("%w: %s, at byte %d", ErrLine, p.reason, p.i)
	}
	switch l.Kind {
	case KindExchange, KindAttempt:
		return p.i, nil
	case "":
		return p.i, fmt.Errorf("%w: no kind", ErrLine)
	default:
		return p.i, fmt.Errorf("%w: unknown kind", ErrLine)
	}
}

// wholeLines returns up to where s, a physical line that has no end yet, holds whole lines of ours: 0 when there is none in it. What stands
// before one of them is the piece of an Envoy that was killed, and nothing that comes can make it whole.
func wholeLines(s string) (end int) {
	splitLine(s, new(Line), func(_ *Line, at int) { end = at }, func(int, int, error) {})
	return end
}

func (l *Line) member(p *scanner, key string) {
	switch key {
	case "kind":
		l.Kind = Kind(p.text())
	case "exchange":
		l.Exchange = p.text()
	case "ticket":
		l.Ticket = p.text()
	case "tags":
		l.Tags = p.text()
	case "trace":
		l.Trace = p.text()
	case "usage":
		l.Usage = p.text()
	case "cluster":
		l.Cluster = p.text()
	case "status":
		l.Status = small(p)
	case "flags":
		l.Flags = p.text()
	case "details":
		l.Details = p.text()
	case "attempts", "attempt":
		l.Attempts = small(p)
	case "rx":
		l.RequestBytes, _ = p.count()
	case "tx":
		l.ResponseBytes, _ = p.count()
	case "duration":
		if d, known := millis(p); known {
			l.Duration = d
		}
	case "first_byte":
		if d, known := millis(p); known {
			l.FirstByte = d
		}
	case "log_type":
		l.LogType = p.text()
	case "retry_after":
		l.RetryAfter = p.plain()
	default:
		p.skip()
	}
}

// The largest numbers that are read.
const (
	maxSmall  = 1<<31 - 1
	maxMillis = (1<<63 - 1) / int64(time.Millisecond)
)

// small reads a number that fits an int everywhere, and Postgres's integer.
func small(p *scanner) int {
	v, _ := p.count()
	if v > maxSmall {
		p.fail("number out of range")
		return 0
	}
	return int(v)
}

func millis(p *scanner) (time.Duration, bool) {
	v, known := p.count()
	if v > maxMillis {
		p.fail("number out of range")
		return 0, false
	}
	return time.Duration(v) * time.Millisecond, known
}

// splitLine finds what a physical line of the log holds. Normally that is one object. When Envoy was killed while it wrote, the line is
// torn and the first line of the next Envoy is glued to it: then every piece that is a whole line of ours goes to good, and the rest, in
// runs, to bad. Both get offsets into s; good gets where the object ends, and what it says in l, which the next one overwrites.
//
// A line begins with {" and that cannot stand inside a JSON string without a backslash before the quote, so every whole line is found,
// and a torn one, lacking its closing brace, can never be taken for a whole one together with what follows.
func splitLine(s string, l *Line, good func(l *Line, end int), bad func(from, to int, err error)) {
	var torn error // why s[from:at] is no line
	from, at := 0, 0
	flush := func() {
		if torn != nil {
			bad(from, at, torn)
			torn = nil
		}
	}
	for at < len(s) {
		*l = Line{}
		n, err := parseObject(s[at:], l)
		if err == nil {
			flush()
			at += n
			at += len(s[at:]) - len(strings.TrimLeft(s[at:], " \t\r\n"))
			good(l, at)
			continue
		}
		if torn == nil {
			torn, from = err, at
		}
		if n == 0 {
			n = 1 // not even JSON
		}
		if next := strings.Index(s[at+n:], `{"`); next >= 0 {
			at += n + next
		} else {
			at = len(s)
		}
	}
	flush()
}
