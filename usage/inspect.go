// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/weir-proxy/weir/policy"
)

// Piece is a part of a log as a [Shipper] sees it: a line, or what stands where one should.
type Piece struct {
	From, To int64          // offsets in the file
	Line     *Line          // nil when it is none
	Ticket   *policy.Ticket // nil when the line has none that can be read
	Record   *Record        // what is posted for the end of an exchange; estimates are those of a shipper that has learned nothing
	Err      error          // why it is no line, or has no ticket although there should be one
}

// InspectLog hands each piece of a log to a function, in order, until that returns an error. The log may be one that is being written to: then
// it ends as of now.
func InspectLog(path string, each func(Piece) error) (err error) {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	r := lineReader{src: file, limit: info.Size()}
	guess := NewEstimator()
	for {
		l, ok, err := r.next()
		if err != nil {
			return err
		}
		if !ok {
			if l, ok = r.unended(wholeLines); !ok {
				break
			}
		}
		if err := inspectLine(l, guess, each); err != nil {
			return err
		}
	}
	if rest := r.read() - r.start; rest > 0 {
		return each(Piece{From: r.start, To: r.read(), Err: fmt.Errorf("%w: it has no end yet", ErrLine)})
	}
	return nil
}

// inspectLine takes a physical line apart.
func inspectLine(l physicalLine, guess *Estimator, each func(Piece) error) (err error) {
	emit := func(p Piece) {
		if err == nil {
			err = each(p)
		}
	}
	if l.at > l.start {
		emit(Piece{From: l.start, To: l.at, Err: fmt.Errorf("%w: longer than %d bytes", ErrLine, maxLine)})
	}
	at := l.at
	splitLine(strings.Clone(l.text), new(Line), // what is handed out may be kept
		func(found *Line, end int) {
			line := new(*found)
			p := Piece{From: at, To: l.at + int64(end), Line: line}
			at = p.To
			if line.Ticket != "" {
				p.Ticket, p.Err = policy.ParseTicket(line.Ticket)
			}
			if p.Ticket != nil && line.Final() {
				r := NewRecord(line, p.Ticket, guess)
				r.Seq = p.To
				p.Record = &r
			}
			emit(p)
		},
		func(from, to int, bad error) {
			at = l.at + int64(to)
			emit(Piece{From: l.at + int64(from), To: at, Err: bad})
		})
	return err
}
