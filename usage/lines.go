// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"unsafe"
)

const (
	readChunk = 256 << 10
	// maxLine is the length above which a line is given up, but for its last keepLine bytes: whatever made it, an Envoy may have gone on
	// writing good lines behind it.
	maxLine  = 1 << 20
	keepLine = 128 << 10
)

// physicalLine is what stands between two newlines of a log.
type physicalLine struct {
	text  string
	at    int64 // offset of text in the file
	start int64 // offset of the line; less than at when the line was too long
	end   int64 // offset behind the newline
}

// lineReader hands out the lines of a file that is still being written to. It reads in chunks and holds one line and one chunk at most. The
// text of a line is there until the next one is asked for: the memory is used again.
type lineReader struct {
	src     io.ReaderAt
	start   int64  // offset of the first line not handed out
	off     int64  // offset of buf[0]; greater than start in a line that is too long
	buf     []byte // read and not handed out
	room    []byte // whose end buf is, or was
	scanned int    // so many bytes of buf hold no newline
	limit   int64  // the file's size, as far as it is to be read
	ended   bool   // there was no further line up to limit
}

// next returns the next line. Without one, ok is false: the file ends here for now, or err says why it cannot be read.
func (r *lineReader) next() (l physicalLine, ok bool, err error) {
	for {
		if i := bytes.IndexByte(r.buf[r.scanned:], '\n'); i >= 0 {
			n := r.scanned + i + 1
			l = physicalLine{text: shared(r.buf[:n-1]), at: r.off, start: r.start, end: r.off + int64(n)}
			if l.end-l.start > maxLine && len(l.text) > keepLine {
				l.at += int64(len(l.text) - keepLine)
				l.text = l.text[len(l.text)-keepLine:]
			}
			r.buf, r.off, r.start, r.scanned, r.ended = r.buf[n:], l.end, l.end, 0, false
			return l, true, nil
		}
		r.scanned = len(r.buf)
		if r.scanned > maxLine {
			drop := r.scanned - keepLine
			r.buf, r.off, r.scanned = r.buf[drop:], r.off+int64(drop), keepLine
		}
		n, err := r.fill()
		if err != nil {
			return physicalLine{}, false, err
		}
		if n == 0 {
			if len(r.buf) == 0 {
				r.buf, r.room = nil, nil // most logs of a directory are never written to again
			}
			r.ended = true
			return physicalLine{}, false, nil
		}
	}
}

// unended returns the first n bytes of a line that has no end yet as if it ended there, where n comes from whole. An Envoy that was killed
// before it wrote the newline may never get a successor that writes it.
func (r *lineReader) unended(whole func(s string) int) (l physicalLine, ok bool) {
	if r.off != r.start || len(r.buf) == 0 {
		return physicalLine{}, false
	}
	n := whole(shared(r.buf))
	if n == 0 {
		return physicalLine{}, false
	}
	l = physicalLine{text: shared(r.buf[:n]), at: r.off, start: r.start, end: r.off + int64(n)}
	r.buf, r.off, r.start, r.scanned, r.ended = r.buf[n:], l.end, l.end, 0, false
	return l, true
}

// fill reads a chunk behind what buf holds.
func (r *lineReader) fill() (int, error) {
	want := int(min(r.limit-r.read(), readChunk))
	if want <= 0 {
		return 0, nil
	}
	if cap(r.buf)-len(r.buf) < want {
		if len(r.room) < len(r.buf)+want {
			r.room = make([]byte, len(r.buf)+want)
		}
		r.buf = r.room[:copy(r.room, r.buf)]
	}
	n, err := r.src.ReadAt(r.buf[len(r.buf):len(r.buf)+want], r.read())
	r.buf = r.buf[:len(r.buf)+n]
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err != nil {
		return n, fmt.Errorf("read log: %w", err)
	}
	return n, nil
}

// shared returns b as a string without copying it.
func shared(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// read returns the offset up to which the file has been read.
func (r *lineReader) read() int64 { return r.off + int64(len(r.buf)) }

// seek goes to the beginning of another line.
func (r *lineReader) seek(offset int64) {
	r.start, r.off, r.buf, r.scanned, r.ended = offset, offset, r.room[:0], 0, false
}
