// SPDX-License-Identifier: Apache-2.0

package weir

import (
	"encoding/binary"
	"unsafe"
)

// Fields is a message of the host: tags and values, read where they are.
type Fields []byte

// All calls a function for each field, until it returns false.
func (f Fields) All(each func(tag uint32, value []byte) bool) {
	for len(f) >= 8 {
		tag, n := binary.LittleEndian.Uint32(f), binary.LittleEndian.Uint32(f[4:])
		f = f[8:]
		if uint64(n) > uint64(len(f)) || !each(tag, f[:n:n]) {
			return
		}
		f = f[n:]
	}
}

// Bytes returns the first field with this tag; nil if there is none.
func (f Fields) Bytes(tag uint32) (value []byte) {
	f.All(func(t uint32, v []byte) bool {
		if t == tag {
			value = v
		}
		return t != tag
	})
	return value
}

// Text returns the first field with this tag. It is a view of the input, which nothing changes during a call.
func (f Fields) Text(tag uint32) string { return view(f.Bytes(tag)) }

// Number returns the first field with this tag, and whether there is one.
func (f Fields) Number(tag uint32) (int64, bool) {
	if v := f.Bytes(tag); len(v) == 8 {
		return int64(binary.LittleEndian.Uint64(v)), true
	}
	return 0, false
}

// List returns all fields with this tag, in order.
func (f Fields) List(tag uint32) (values [][]byte) {
	f.All(func(t uint32, v []byte) bool {
		if t == tag {
			values = append(values, v)
		}
		return true
	})
	return values
}

func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func (f Fields) number(tag uint32) int64 { n, _ := f.Number(tag); return n }

// Text is a text that can be edited, by its id.
type Text struct {
	ID   int64
	Text string
}

func textOf(b []byte) Text { return Text{Fields(b).number(1), Fields(b).Text(2)} }

// Header is a header field; its name is in lower case.
type Header struct{ Name, Value string }

// given is what requests and events have in common.
type given struct{ Fields }

// ID returns the id of the exchange.
func (g given) ID() string { return g.Text(1) }

// Tenant returns the id of the tenant.
func (g given) Tenant() int64 { return g.number(2) }

// TenantName returns the name of the tenant.
func (g given) TenantName() string { return g.Text(3) }

// Key returns the id of the key.
func (g given) Key() int64 { return g.number(4) }

// KeyName returns the name of the key.
func (g given) KeyName() string { return g.Text(5) }

// Address returns the client's IP address.
func (g given) Address() string { return g.Text(6) }

// Operation returns what is asked for: chat, embeddings and so on.
func (g given) Operation() string { return g.Text(7) }

// Model returns the model that was asked for.
func (g given) Model() string { return g.Text(8) }

// Headers returns the headers that the operator chose.
func (g given) Headers() (headers []Header) {
	for _, h := range g.List(13) {
		headers = append(headers, Header{Fields(h).Text(1), Fields(h).Text(2)})
	}
	return headers
}

// State returns what the verdict before gave as its state.
func (g given) State() []byte { return g.Bytes(18) }

// Exchange is a request.
type Exchange struct{ given }

// NewExchange reads a request as the host writes it; for tests.
func NewExchange(message []byte) *Exchange { return &Exchange{given{message}} }

// Stream reports whether the client asked for a stream.
func (x *Exchange) Stream() bool { return x.number(9) == 1 }

// MaxOutputTokens returns what the client asked for, if it did.
func (x *Exchange) MaxOutputTokens() (int64, bool) { return x.Number(11) }

// Choices returns how many answers the client makes the model write: the larger of n and best_of, and 1 if it does not say.
func (x *Exchange) Choices() int64 { return max(1, x.number(19)) }

// BudgetLeft returns the nano-dollars that are left to the key, if it has a budget.
func (x *Exchange) BudgetLeft() (int64, bool) { return x.Number(12) }

// Message is a turn of the conversation.
type Message struct{ Fields }

// Role returns system, developer, user, assistant or tool.
func (m Message) Role() string { return m.Text(1) }

// Texts returns the texts of the message.
func (m Message) Texts() (texts []Text) {
	for _, t := range m.List(3) {
		texts = append(texts, textOf(t))
	}
	return texts
}

// ToolCall is a call that the model made earlier in the conversation.
type ToolCall struct {
	ID        string
	Name      string
	Arguments Text
}

// Calls returns the tool calls of the message.
func (m Message) Calls() (calls []ToolCall) {
	for _, c := range m.List(4) {
		calls = append(calls, ToolCall{Fields(c).Text(1), Fields(c).Text(2), textOf(Fields(c).Bytes(3))})
	}
	return calls
}

// Name returns the speaker's.
func (m Message) Name() string { return m.Text(2) }

// Media returns the kind of each part that is not text: image, audio, file.
func (m Message) Media() (kinds []string) {
	for _, k := range m.List(5) {
		kinds = append(kinds, string(k))
	}
	return kinds
}

// Answers returns, in a message of the role tool, the id of the tool call that it answers.
func (m Message) Answers() string { return m.Text(6) }

// Messages returns what the model is given.
func (x *Exchange) Messages() (messages []Message) {
	for _, m := range x.List(14) {
		messages = append(messages, Message{m})
	}
	return messages
}

// Texts returns the texts of all messages.
func (x *Exchange) Texts() (texts []Text) {
	x.All(func(tag uint32, message []byte) bool {
		if tag == 14 {
			Fields(message).All(func(tag uint32, t []byte) bool {
				if tag == 3 {
					texts = append(texts, textOf(t))
				}
				return true
			})
		}
		return true
	})
	return texts
}

// Tool is a function that the model may call.
type Tool struct{ Name, Description, Parameters string }

// Tools returns the functions that the model may call.
func (x *Exchange) Tools() (tools []Tool) {
	for _, t := range x.List(15) {
		tools = append(tools, Tool{Fields(t).Text(1), Fields(t).Text(2), Fields(t).Text(3)})
	}
	return tools
}

// Channels returns the names of the channels that may serve the model, best first.
func (x *Exchange) Channels() (channels []string) {
	for _, c := range x.List(16) {
		channels = append(channels, view(c))
	}
	return channels
}

// Body returns the client's body, if the operator lets the plugin see it.
func (x *Exchange) Body() []byte { return x.Bytes(17) }
