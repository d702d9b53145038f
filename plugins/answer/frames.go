// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"bytes"

	"github.com/weir-proxy/weir/internal/jsonscan"
)

// frames cuts a stream of server-sent events into events, each with the blank line that ends it, by the rules of
// https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream: lines end with CR, LF or both, and one byte order mark may stand in front.
type frames struct {
	buf   []byte
	start int  // of the event under way
	line  int  // of the line under way
	at    int  // what was looked at
	begun bool // the first line is past
	lf    bool // a LF, if it is next, belongs to the CR before
	mark  int  // bytes of a byte order mark in front of the event under way
	skip  int  // the same, of the event that was returned last
	tail  bool // what was returned last is the LF of the event before
	limit int
}

var bom = []byte("\uFEFF")

// write adds what came.
func (f *frames) write(chunk []byte) {
	if f.start > 0 {
		n := copy(f.buf, f.buf[f.start:])
		f.buf = f.buf[:n]
		f.line -= f.start
		f.at -= f.start
		f.start = 0
	}
	f.buf = append(f.buf, chunk...)
}

// next returns the next event, or nil if it is not whole yet. An event that ends with CR is returned at once, since a stream may pause there; a LF
// that comes behind it is returned as an event of its own. What next returns is valid until the next write.
func (f *frames) next() ([]byte, error) {
	for f.at < len(f.buf) {
		if f.lf {
			f.lf = false
			if f.buf[f.at] == '\n' {
				between := f.at == f.start
				f.at++
				f.line = f.at
				if between {
					raw := f.take()
					f.tail = true
					return raw, nil
				}
				continue
			}
		}
		end := lineEnd(f.buf[f.at:])
		if end < 0 {
			f.at = len(f.buf)
			break
		}
		end += f.at
		if !f.begun {
			f.begun = true
			if bytes.HasPrefix(f.buf[f.start:], bom) {
				f.line += len(bom)
				f.mark = len(bom)
			}
		}
		blank := end == f.line
		f.at = end + 1
		if f.buf[end] == '\r' {
			if f.lf = f.at == len(f.buf); !f.lf && f.buf[f.at] == '\n' {
				f.at++
			}
		}
		f.line = f.at
		if blank {
			if end-f.start > f.limit {
				return nil, errEventSize
			}
			return f.take(), nil
		}
	}
	if len(f.buf)-f.start > f.limit {
		return nil, errEventSize
	}
	return nil, nil
}

// lineEnd returns where the first CR or LF is.
func lineEnd(b []byte) int {
	n := bytes.IndexByte(b, '\n')
	if n >= 0 {
		b = b[:n]
	}
	if r := bytes.IndexByte(b, '\r'); r >= 0 {
		return r
	}
	return n
}

func (f *frames) take() []byte {
	e := f.buf[f.start:f.at]
	f.start = f.at
	f.skip, f.mark, f.tail = f.mark, 0, false
	return e
}

// rest returns what no blank line has ended.
func (f *frames) rest() []byte {
	if !f.begun && bytes.HasPrefix(f.buf, bom) {
		f.mark = len(bom)
	}
	f.at = len(f.buf)
	return f.take()
}

// frame is an event, taken apart.
type frame struct {
	raw  []byte
	skip int           // bytes of a byte order mark in front
	eol  string        // of its first line
	text []byte        // the data
	data jsonscan.Span // of the first line of data in raw
	more bool          // there are others
}

// parse takes the event apart that next or rest returned last. Data of several lines is put together in join.
func (f *frames) parse(raw []byte, join *[]byte) frame {
	e := frame{raw: raw, skip: f.skip, eol: "\n"}
	i := e.skip
	lines := 0
	for i < len(raw) {
		end, next := cutLine(raw, i)
		if i == e.skip && next > end {
			e.eol = eolOf(raw[end:next])
		}
		if value, ok := dataOf(raw, i, end); ok {
			switch lines {
			case 0:
				e.data, e.text = value, value.Of(raw)
			case 1:
				*join = append((*join)[:0], e.text...)
				fallthrough
			default:
				*join = append(*join, '\n')
				*join = append(*join, value.Of(raw)...)
			}
			lines++
		}
		i = next
	}
	if lines > 1 {
		e.text, e.more = *join, true
	}
	return e
}

// cutLine returns where the line that begins at i ends, and where the next one begins.
func cutLine(raw []byte, i int) (end, next int) {
	n := lineEnd(raw[i:])
	if n < 0 {
		return len(raw), len(raw)
	}
	end = i + n
	if raw[end] == '\r' && end+1 < len(raw) && raw[end+1] == '\n' {
		return end, end + 2
	}
	return end, end + 1
}

func eolOf(b []byte) string {
	switch string(b) {
	case "\r\n":
		return "\r\n"
	case "\r":
		return "\r"
	}
	return "\n"
}

// dataOf returns the value of a field that is data.
func dataOf(raw []byte, start, end int) (jsonscan.Span, bool) {
	line := raw[start:end]
	switch {
	case !bytes.HasPrefix(line, []byte("data")):
		return jsonscan.Span{}, false
	case len(line) == 4:
		return jsonscan.Span{Start: end, End: end}, true
	case line[4] != ':':
		return jsonscan.Span{}, false
	case len(line) > 5 && line[5] == ' ':
		return jsonscan.Span{Start: start + 6, End: end}, true
	}
	return jsonscan.Span{Start: start + 5, End: end}, true
}

// render appends the event with other data. Data of several lines stays where its first line was.
func (f *frame) render(b []byte, edits jsonscan.Edits) []byte {
	text := edits.Apply(f.text)
	if !f.more {
		b = append(b, f.raw[:f.data.Start]...)
		b = append(b, text...)
		return append(b, f.raw[f.data.End:]...)
	}
	b = append(b, f.raw[:f.skip]...)
	for i := f.skip; i < len(f.raw); {
		end, next := cutLine(f.raw, i)
		switch value, ok := dataOf(f.raw, i, end); {
		case !ok:
			b = append(b, f.raw[i:next]...)
		case value == f.data:
			for line := range bytes.SplitSeq(text, []byte("\n")) {
				b = append(b, "data: "...)
				b = append(append(b, line...), f.eol...)
			}
		}
		i = next
	}
	return b
}
