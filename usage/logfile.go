// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/google/uuid"
)

// headBytes is how much of a log's beginning is kept to notice that another was written in its place.
const headBytes = 1 << 10

// keepRecords is how many records' room is kept from one batch to the next, unless the next ones are as large.
const keepRecords = 4096

// logFile is a log that is being followed. It stays open, so that it can be read to its end after it was deleted.
//
//	0        batch.From          lines.start       lines.read()    size
//	|--------|===================|.................|---------------|
//	 in the   in batch, waiting   of a line without  not read yet
//	 book     to be posted        an end
type logFile struct {
	path  string
	file  *os.File
	info  os.FileInfo // as of the last look
	head  []byte      // the first bytes, as they were read first
	lines lineReader

	placed bool      // the book's position is known, and is batch.From
	batch  Batch     // its Writer is the log's identity, nil while the first line has no end
	since  time.Time // when the oldest bytes of batch were read
	retry  backoff

	told
	target int64 // when draining: how far to go
	missed int   // looks since it was last seen in the directory
	frozen bool  // overwritten: what is in the file now is another log, and this one ends with the batch
	idle   bool  // nothing to ship: there is no whole line, or it is a copy of another log here
	audit  audit
}

// openLog opens the log at path.
func openLog(path string) (*logFile, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open log: %w", err), file.Close())
	}
	return &logFile{path: path, file: file, info: info, lines: lineReader{src: file}}, nil
}

// identify finds the log's identity once its first line has an end: a version 8 UUID (RFC 9562) of the line's SHA-256. A log keeps it
// through every rename; two logs never share it, since the exchange in the line has an id of its own; a copy of a log shares it, and the
// book lets only one of the two move the position.
func (f *logFile) identify() (bool, error) {
	f.idle = false
	if f.batch.Writer != uuid.Nil {
		return true, nil
	}
	buf := make([]byte, min(f.info.Size(), maxLine))
	n, err := f.file.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read log: %w", err)
	}
	buf = buf[:n]
	first := bytes.IndexByte(buf, '\n')
	if first < 0 {
		if n < maxLine {
			f.idle = true
			return false, nil
		}
		first = n
	}
	f.batch.Writer = WriterOf(buf[:first])
	f.head = bytes.Clone(buf[:min(n, headBytes)])
	return true, nil
}

// WriterOf returns the identity of a log whose first line is this one, without its newline.
func WriterOf(firstLine []byte) uuid.UUID {
	sum := sha256.Sum256(firstLine)
	id := uuid.UUID(sum[:16])
	id[6] = id[6]&0x0f | 0x80 // version 8
	id[8] = id[8]&0x3f | 0x80 // variant of RFC 9562
	return id
}

// overwritten reports whether the file no longer begins as it did, or is shorter than what was read of it. Call it before reading on.
func (f *logFile) overwritten() (bool, error) {
	if f.info.Size() < f.lines.read() {
		return true, nil
	}
	if f.info.Size() == f.lines.read() || len(f.head) == 0 {
		return false, nil
	}
	var buf [headBytes]byte
	n, err := f.file.ReadAt(buf[:len(f.head)], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read log: %w", err)
	}
	return !bytes.Equal(buf[:n], f.head), nil
}

// errPosition says that the book's position does not fit the log. Nothing is skipped: somebody must look.
var errPosition = errors.New("position does not fit the log")

// place goes on from the book's position. What has been read and not posted is kept if it begins there.
func (f *logFile) place(pos int64) error {
	b := &f.batch
	switch {
	case pos == b.From:
	case pos == b.To: // posted, though the answer was lost
		f.posted()
	case f.frozen:
		return fmt.Errorf("%w: it is at %d, and the log was overwritten", errPosition, pos)
	default:
		if err := f.boundary(pos); err != nil {
			return err
		}
		clear(b.Records)
		b.From, b.To, b.Records = pos, pos, b.Records[:0]
		f.audit.whole = time.Time{}
		f.lines.seek(pos)
	}
	f.placed = true
	return nil
}

// boundary checks that a line of the file begins at pos.
func (f *logFile) boundary(pos int64) error {
	if pos == 0 {
		return nil
	}
	var before [1]byte
	if pos < 0 || pos > f.info.Size() {
		return fmt.Errorf("%w: it is at %d of %d bytes", errPosition, pos, f.info.Size())
	}
	if _, err := f.file.ReadAt(before[:], pos-1); err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	if before[0] != '\n' && before[0] != '}' { // the newline may have come later
		return fmt.Errorf("%w: no line begins at %d", errPosition, pos)
	}
	return nil
}

// posted notes that the batch is in the book.
func (f *logFile) posted() {
	f.batch.From = f.batch.To
	clear(f.batch.Records) // which hold on to what was read
	if n := cap(f.batch.Records); n > keepRecords && len(f.batch.Records) < n/2 {
		f.batch.Records = nil // the backlog is over: megabytes that may never be needed again
	}
	f.batch.Records = f.batch.Records[:0]
	f.audit.whole = time.Time{} // until the book says so itself
}

// pending reports whether anything was read that is not in the book.
func (f *logFile) pending() bool { return f.batch.To > f.batch.From }

// lag returns how many bytes up to size are not in the book, without a line that has no end.
func (f *logFile) lag(size int64) int64 {
	switch {
	case f.idle:
		return 0
	case f.frozen:
		return f.batch.To - f.batch.From
	case f.lines.ended && f.lines.read() >= size:
		return max(min(size, f.lines.start)-f.batch.From, 0)
	}
	return max(size-f.batch.From, 0)
}

// gone reports whether the log is no longer in the directory.
func (f *logFile) gone() bool { return f.frozen || f.missed > 0 }
