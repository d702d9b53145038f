// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"github.com/google/uuid"

	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/usage/journal"
)

// How says in what way an exchange ended for the processor that admitted it.
type How int

// The ways in which an exchange ends.
const (
	// Posted: its row is in the book, made of a line that this processor read.
	Posted How = iota
	// Undelivered: Envoy never heard of its admission. It used nothing and has no row.
	Undelivered
	// Resolved: it has a row that this processor did not make of a line: another posted it before, or it is unresolved. The book knows which, and
	// what it says was there before this is told.
	Resolved
	// Lost: the journal cannot read any more what was admitted. There may be a row.
	Lost
)

// Ending is the end of an exchange.
type Ending struct {
	Exchange uuid.UUID
	How      How
	// Record is the row, if it was Posted. If it was Resolved, it is the row that was offered to the book, with estimates, which the book took if it had
	// none. Else nil. It must not be kept.
	Record *Record
}

// Listener is told of the ends of exchanges that this processor admitted, so that what was reserved for them can be given back. Calls may come from two
// goroutines at once, and must return quickly.
type Listener interface {
	// Left is told of each exchange that an earlier life of this processor has admitted and left open, before anything else is; about the newest first.
	// After an outage of the book these are many.
	Left(t *policy.Ticket)
	// Ended is told exactly once in the life of this processor for each exchange that it has admitted, or was left: unless it is still open when the
	// processor stops. Rows that are posted again, because the book was set back, are not told again.
	Ended(e Ending)
}

// Watcher is a [Listener] that is also told what lines say as soon as they are read, since it cannot wait until the book has them.
type Watcher interface {
	// Finished is told of an exchange whose end a line tells, before Ended is, if that is told at all: the processor may not have admitted it, and
	// after a restart exchanges come that are in the book. The record, which has no cost, must not be kept. Calls come from one goroutine.
	Finished(r *Record)
}

// finished tells the watchers of a line.
func (in *Intents) finished(r *Record) {
	if in == nil {
		return
	}
	for _, w := range in.watchers {
		w.Finished(r)
	}
}

// recover tells the listeners of what an earlier life has left.
func (in *Intents) recover() {
	if len(in.o.Listeners) == 0 {
		return
	}
	in.o.Journal.Each(func(one journal.Intent) {
		if t, err := policy.ParseTicket(one.Ticket); err == nil && t.Exchange == one.Exchange {
			for _, l := range in.o.Listeners {
				l.Left(t)
			}
		}
	})
	in.lost() // those that could not be read just now were never told of
}

// ended tells the listeners of an end.
func (in *Intents) ended(e Ending) {
	for _, l := range in.o.Listeners {
		l.Ended(e)
	}
}

// lost tells of exchanges whose intents cannot be read any more.
func (in *Intents) lost() {
	for _, id := range in.o.Journal.Lost() {
		in.ended(Ending{Exchange: id, How: Lost})
	}
}

// endPosted settles the exchanges of records that are in the book.
func (in *Intents) endPosted(records []Record) {
	in.ids = in.ids[:0]
	for i := range records {
		in.ids = append(in.ids, records[i].Exchange)
	}
	in.firsts = in.o.Journal.SettleFirst(in.firsts[:0], in.ids)
	next := 0
	for _, id := range in.firsts { // in the order of records
		for records[next].Exchange != id {
			next++
		}
		in.ended(Ending{Exchange: id, How: Posted, Record: &records[next]})
	}
}

// endResolved holds the exchanges of records that the book has resolved.
func (in *Intents) endResolved(records []Record, ids []uuid.UUID) {
	first := in.o.Journal.Hold(ids...)
	next := 0
	for _, id := range first { // in the order of records
		for records[next].Exchange != id {
			next++
		}
		in.ended(Ending{Exchange: id, How: Resolved, Record: &records[next]})
	}
}

// endWithout settles an exchange that makes no row.
func (in *Intents) endWithout(id uuid.UUID, how How) {
	if len(in.o.Journal.SettleFirst(nil, []uuid.UUID{id})) > 0 {
		in.ended(Ending{Exchange: id, How: how})
	}
}
