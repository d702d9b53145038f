// SPDX-License-Identifier: Apache-2.0

package weir

// Kind is what an event tells. Go on with one that is not known here.
type Kind int64

// Kinds of events.
const (
	Head Kind = iota + 1
	NewText
	NewArguments
	Finish
	Usage
	End
)

// Event is a part of a response.
type Event struct{ given }

// NewEvent reads an event as the host writes it; for tests.
func NewEvent(message []byte) *Event { return &Event{given{message}} }

// Kind returns what the event tells.
func (e *Event) Kind() Kind { return Kind(e.number(32)) }

// Choice returns which of the choices it belongs to.
func (e *Event) Choice() int64 { return e.number(33) }

// Part returns which text of the choice it belongs to, with [NewText] and [Finish]: content, refusal, reasoning or summary, and its number among those of
// that name. A host that does not say leaves it empty.
func (e *Event) Part() (name string, number int64) {
	f := Fields(e.Bytes(39))
	return f.Text(1), f.number(2)
}

// New returns what is new: text, or arguments of a tool call. It is text 0 in edits.
func (e *Event) New() string { return e.Text(34) }

// Tool returns the number of the tool call, and its id and name with the first of its events.
func (e *Event) Tool() (number int64, id, name string) {
	f := Fields(e.Bytes(35))
	return f.number(1), f.Text(2), f.Text(3)
}

// Status returns the HTTP status, with [Head].
func (e *Event) Status() int64 { return e.number(36) }

// Reason returns why a choice, or the exchange, ended.
func (e *Event) Reason() string { return e.Text(37) }

// Tokens are what the provider counted; cached and reasoning tokens are included in input and output.
type Tokens struct{ Input, Cached, Output, Reasoning int64 }

// Tokens returns what the provider counted, with [Usage].
func (e *Event) Tokens() Tokens {
	f := Fields(e.Bytes(38))
	return Tokens{f.number(1), f.number(2), f.number(3), f.number(4)}
}
