// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"time"

	"github.com/google/uuid"
)

// aheadBytes is how much of a log is read ahead in one turn.
const aheadBytes = 8 << 20

// told is how far a log was told of: its failed attempts, its bad lines, and to a [Watcher] its exchanges.
type told struct {
	seen  int64       // up to here
	early *lineReader // behind that, while the book does not take what is before
}

// ahead tells what is new in a log that the book does not answer for. Nothing of it is kept: it is read again when the book is there.
func (s *Shipper) ahead(f *logFile, now time.Time) {
	if f.frozen || f.idle || f.batch.Writer == uuid.Nil || s.draining {
		return
	}
	if f.early == nil {
		f.early = &lineReader{src: f.file}
		f.early.seek(max(f.seen, f.lines.start))
	}
	f.early.limit = f.info.Size()
	s.peeking = true
	defer func() { s.peeking = false }()
	for until := f.early.start + aheadBytes; f.early.start < until; {
		l, ok, err := f.early.next()
		s.complain(f.path, err)
		if !ok {
			return
		}
		s.line(f, l, now)
		f.seen = max(f.seen, l.end)
	}
}

// room returns how many records, and bytes of lines, a log's batch may have. What the book does not take waits in memory: of all logs together
// no more than of one, but for a little, so that one that is never taken does not hold up the others.
func (s *Shipper) room(f *logFile) (rows int, bytes int64) {
	rows, bytes = s.o.BatchRows, s.o.BatchBytes
	for _, other := range s.files {
		if n := len(other.batch.Records); other != f && n > 0 {
			rows -= n
			bytes -= other.batch.To - other.batch.From
		}
	}
	const share = 64
	return max(rows, s.o.BatchRows/share, 1), max(bytes, s.o.BatchBytes/share, 1)
}

// backlogLine is how long a line is at least, more or less.
const backlogLine = 400

// lend gives a log the memory that the batch before it was in, or at once as much as the next batch takes if that is large.
func (s *Shipper) lend(f *logFile) {
	if f.batch.Records == nil {
		f.batch.Records, s.spare = s.spare, nil
	}
	want := int(min(f.lag(f.info.Size())/backlogLine, int64(s.o.BatchRows)))
	if len(f.batch.Records) == 0 && want > max(cap(f.batch.Records), keepRecords) {
		f.batch.Records = make([]Record, 0, want)
	}
}

// reclaim takes it back when the batch is posted: most logs of a directory are never written to again.
func (s *Shipper) reclaim(f *logFile) {
	if len(f.batch.Records) > 0 {
		return
	}
	if cap(f.batch.Records) > cap(s.spare) {
		s.spare = f.batch.Records
	}
	f.batch.Records = nil
}
