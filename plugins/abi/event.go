// SPDX-License-Identifier: Apache-2.0

package abi

// Kind is what an event tells of a response.
type Kind int64

// Kinds of events, in the order in which they may come.
const (
	KindHead     Kind = iota + 1 // status and headers
	KindText                     // new text of a choice
	KindToolCall                 // new arguments of a tool call
	KindFinish                   // a choice has ended
	KindUsage                    // tokens, as the provider counted
	KindEnd                      // the exchange is over
)

const (
	tagKind = iota + 32
	tagChoice
	tagText
	tagEventTool
	tagStatus
	tagReason
	tagUsage
	tagPart
)

// What a text of a choice is: [Part].Name.
const (
	PartContent   = "content" // the answer
	PartRefusal   = "refusal"
	PartReasoning = "reasoning"
	PartSummary   = "summary" // of reasoning
)

// Part says which text of a choice an event belongs to. A choice has one text of each name, numbered 0, but an item of a response may have more of one name.
type Part struct {
	Name   string
	Number int64
}

// Usage is what a provider counted: cached and reasoning tokens are included in input and output.
type Usage struct{ Input, Cached, Output, Reasoning int64 }

// CallPart says which tool call an event belongs to. ID and Name come with its first event.
type CallPart struct {
	Number int64 // of the call in the choice
	ID     string
	Name   string
}

// Event is a part of a response as a plugin sees it. What the kind does not have is left empty.
type Event struct {
	Exchange  string
	Caller    Caller
	Operation string
	Model     string
	Kind      Kind
	Choice    int64
	Part      Part // of the choice: with KindText and KindFinish
	Text      string
	Tool      CallPart
	Status    int
	Reason    string
	Usage     Usage
	Headers   []Header
	State     []byte // from the verdict before
}

// Append appends the event as a message, the input of weir_event.
func (e *Event) Append(b []byte) []byte {
	b = e.Caller.append(appendText(b, tagExchange, e.Exchange))
	b = appendText(appendText(b, tagOperation, e.Operation), tagModel, e.Model)
	b = appendHeaders(b, e.Headers)
	b = appendState(b, e.State)
	b = AppendNumber(b, tagKind, int64(e.Kind))
	b = appendCount(b, tagChoice, e.Choice)
	b = appendText(b, tagText, e.Text)
	if e.Kind == KindToolCall {
		b = AppendMessage(b, tagEventTool, func(b []byte) []byte {
			return appendText(appendText(AppendNumber(b, 1, e.Tool.Number), 2, e.Tool.ID), 3, e.Tool.Name)
		})
	}
	b = appendCount(b, tagStatus, int64(e.Status))
	b = appendText(b, tagReason, e.Reason)
	if e.Kind == KindUsage {
		b = AppendMessage(b, tagUsage, func(b []byte) []byte {
			b = AppendNumber(AppendNumber(b, 1, e.Usage.Input), 2, e.Usage.Cached)
			return AppendNumber(AppendNumber(b, 3, e.Usage.Output), 4, e.Usage.Reasoning)
		})
	}
	if e.Part.Name != "" {
		b = AppendMessage(b, tagPart, func(b []byte) []byte { return appendCount(appendText(b, 1, e.Part.Name), 2, e.Part.Number) })
	}
	return b
}
