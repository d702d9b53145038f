// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// response is what is looked at of a response.
type response struct {
	status int
	bytes  int64     // of the body
	events int       // server-sent events: blank lines in the body
	first  time.Time // when the first bytes came
	excuse []byte    // the beginning of the body of a response that is no 200
	ends   bool      // the connection ends with it
}

// responseReader reads the responses of one HTTP/1.1 connection, as cheaply as possible: it knows content-length, chunked
// bodies, the end of the connection and nothing else, which is what Envoy and the fake provider send.
type responseReader struct {
	from io.Reader
	buf  []byte
	r, w int // buf[r:w] is read and not looked at yet
	last byte
}

// maxHead bounds a response's head, and the line that begins a chunk.
const maxHead = 16 << 10

func newResponseReader(from io.Reader) *responseReader {
	return &responseReader{from: from, buf: make([]byte, maxHead)}
}

// fill reads more. What is in the buffer is moved to its beginning when there is no more room behind it.
func (x *responseReader) fill() error {
	if x.r == x.w {
		x.r, x.w = 0, 0
	}
	if x.w == len(x.buf) {
		if x.r == 0 {
			return fmt.Errorf("a head or line of more than %d bytes", len(x.buf))
		}
		x.w = copy(x.buf, x.buf[x.r:x.w])
		x.r = 0
	}
	n, err := x.from.Read(x.buf[x.w:])
	x.w += n
	if n > 0 {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// next reads one response to its last byte.
func (x *responseReader) next() (response, error) {
	out := response{}
	x.last = 0
	if x.r == x.w {
		if err := x.fill(); err != nil {
			return out, fmt.Errorf("read response: %w", err)
		}
	}
	out.first = time.Now()
	head, err := x.until("\r\n\r\n")
	if err != nil {
		return out, fmt.Errorf("read head: %w", err)
	}
	length, chunked, err := parseHead(head, &out)
	if err != nil {
		return out, err
	}
	if chunked {
		err = x.chunks(&out)
	} else {
		err = x.body(length, &out)
	}
	if err != nil {
		return out, fmt.Errorf("read body after %d bytes and %d events: %w", out.bytes, out.events, err)
	}
	return out, nil
}

// until returns the bytes up to an end, without it. They are valid until the next read.
func (x *responseReader) until(end string) ([]byte, error) {
	for {
		if i := bytes.Index(x.buf[x.r:x.w], []byte(end)); i >= 0 {
			b := x.buf[x.r : x.r+i]
			x.r += i + len(end)
			return b, nil
		}
		if err := x.fill(); err != nil {
			return nil, err
		}
	}
}

// parseHead reads the status and how long the body is.
func parseHead(head []byte, out *response) (length int64, chunked bool, err error) {
	line, rest, _ := bytes.Cut(head, []byte("\r\n"))
	if len(line) < len("HTTP/1.1 200") || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, false, fmt.Errorf("status line %q", line)
	}
	if out.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, false, fmt.Errorf("status line %q: %w", line, err)
	}
	length = -1
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		switch name, value, _ := bytes.Cut(line, []byte(":")); {
		case len(name) == len("content-length") && bytes.EqualFold(name, []byte("content-length")):
			if length, err = strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64); err != nil || length < 0 {
				return 0, false, fmt.Errorf("header %q", line)
			}
		case len(name) == len("transfer-encoding") && bytes.EqualFold(name, []byte("transfer-encoding")):
			chunked = bytes.EqualFold(bytes.TrimSpace(value), []byte("chunked"))
		case len(name) == len("connection") && bytes.EqualFold(name, []byte("connection")):
			out.ends = bytes.EqualFold(bytes.TrimSpace(value), []byte("close"))
		}
	}
	if length < 0 && !chunked {
		return 0, false, errors.New("a response that says neither how long it is nor that it is chunked")
	}
	return length, chunked, nil
}

// chunks reads a chunked body: https://www.rfc-editor.org/rfc/rfc9112#section-7.1.
func (x *responseReader) chunks(out *response) error {
	for {
		line, err := x.until("\r\n")
		if err != nil {
			return err
		}
		digits, _, _ := bytes.Cut(line, []byte(";"))
		size, err := strconv.ParseInt(string(bytes.TrimSpace(digits)), 16, 64)
		if err != nil || size < 0 {
			return fmt.Errorf("chunk size %q", line)
		}
		if err := x.body(size, out); err != nil {
			return err
		}
		if size > 0 {
			end, err := x.until("\r\n")
			if err == nil && len(end) > 0 {
				err = fmt.Errorf("%q behind a chunk", end)
			}
			if err != nil {
				return err
			}
			continue
		}
		for { // trailers, up to an empty line
			if line, err := x.until("\r\n"); err != nil || len(line) == 0 {
				return err
			}
		}
	}
}

// body takes n bytes of the body.
func (x *responseReader) body(n int64, out *response) error {
	for n > 0 {
		if x.r == x.w {
			if err := x.fill(); err != nil {
				return err
			}
		}
		b := x.buf[x.r:min(x.w, x.r+int(min(n, maxHead)))]
		out.events += x.blankLines(b)
		if out.status != 200 && len(out.excuse) < 512 {
			out.excuse = append(out.excuse, b...)
		}
		x.r += len(b)
		n -= int64(len(b))
		out.bytes += int64(len(b))
	}
	return nil
}

// blankLines counts the events that end in b, or whose end began in the piece before it.
func (x *responseReader) blankLines(b []byte) int {
	n := bytes.Count(b, []byte("\n\n"))
	if b[0] == '\n' && x.last == '\n' {
		n++
	}
	x.last = b[len(b)-1]
	return n
}
