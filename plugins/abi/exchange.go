// SPDX-License-Identifier: Apache-2.0

package abi

// Tags of what a plugin is given: plugins/ABI.md, sections 4 and 5.
const (
	tagExchange = iota + 1
	tagTenant
	tagTenantName
	tagKey
	tagKeyName
	tagAddress
	tagOperation
	tagModel
	tagStream
	_ // was the estimate of the input, which the helper tokens gives now
	tagMaxOutput
	tagBudget
	tagHeader
	tagMessage
	tagTool
	tagChannel
	tagBody
	tagState
	tagChoices
)

// Caller is who sent a request.
type Caller struct {
	Tenant     int64
	TenantName string
	Key        int64
	KeyName    string
	Address    string // IP address of the client
}

// Header is a header field; the name is in lower case.
type Header struct{ Name, Value string }

// Text is a part of a request that a plugin may edit. Its id names it in the verdict.
type Text struct {
	ID   int64
	Text string
}

// ToolCall is a call that the model made earlier in the conversation.
type ToolCall struct {
	ID        string
	Name      string
	Arguments Text
}

// Message is a turn of the conversation.
type Message struct {
	Role    string
	Name    string
	Texts   []Text
	Calls   []ToolCall
	Media   []string // the kind of each part that is not text
	Answers string   // the id of the tool call that it answers
}

// Tool is a function that the model may call.
type Tool struct{ Name, Description, Parameters string }

// Asked is what a request asks for.
type Asked struct {
	Operation string
	Model     string
	Stream    bool
	MaxOutput int64 // 0 if the client did not say
	Choices   int64 // answers that the client makes the model write; 0 if it did not say
}

// Exchange is a request as a plugin sees it. The caller of the host fills in what it has: what is empty is left out.
type Exchange struct {
	ID       string
	Caller   Caller
	Asked    Asked
	Budget   *int64 // nano-dollars that are left to the key; nil without a budget
	Headers  []Header
	Messages []Message
	Tools    []Tool
	Channels []string
	Body     []byte
	State    []byte // from the verdict before

	// Tokens estimates the input. It is no part of the message: a plugin that wants to know calls the helper tokens. Nil: nothing is known.
	Tokens func() int64
}

// Append appends the exchange as a message, the input of weir_request.
func (x *Exchange) Append(b []byte) []byte {
	b = x.Caller.append(appendText(b, tagExchange, x.ID))
	b = appendText(b, tagOperation, x.Asked.Operation)
	b = appendText(b, tagModel, x.Asked.Model)
	if x.Asked.Stream {
		b = AppendNumber(b, tagStream, 1)
	}
	b = appendCount(b, tagMaxOutput, x.Asked.MaxOutput)
	b = appendCount(b, tagChoices, x.Asked.Choices)
	if x.Budget != nil {
		b = AppendNumber(b, tagBudget, *x.Budget)
	}
	b = appendHeaders(b, x.Headers)
	for i := range x.Messages {
		b = AppendMessage(b, tagMessage, x.Messages[i].append)
	}
	for _, t := range x.Tools {
		b = AppendMessage(b, tagTool, func(b []byte) []byte {
			return appendText(appendText(appendText(b, 1, t.Name), 2, t.Description), 3, t.Parameters)
		})
	}
	for _, c := range x.Channels {
		b = AppendBytes(b, tagChannel, c)
	}
	if len(x.Body) > 0 {
		b = AppendBytes(b, tagBody, x.Body)
	}
	return appendState(b, x.State)
}

func (c *Caller) append(b []byte) []byte {
	b = appendCount(b, tagTenant, c.Tenant)
	b = appendText(b, tagTenantName, c.TenantName)
	b = appendCount(b, tagKey, c.Key)
	b = appendText(b, tagKeyName, c.KeyName)
	return appendText(b, tagAddress, c.Address)
}

func appendHeaders(b []byte, headers []Header) []byte {
	for _, h := range headers {
		b = AppendMessage(b, tagHeader, func(b []byte) []byte { return appendText(AppendBytes(b, 1, h.Name), 2, h.Value) })
	}
	return b
}

func appendState(b, state []byte) []byte {
	if len(state) == 0 {
		return b
	}
	return AppendBytes(b, tagState, state)
}

func (t Text) append(b []byte) []byte { return AppendBytes(AppendNumber(b, 1, t.ID), 2, t.Text) }

func (m *Message) append(b []byte) []byte {
	b = appendText(appendText(b, 1, m.Role), 2, m.Name)
	for _, t := range m.Texts {
		b = AppendMessage(b, 3, t.append)
	}
	for _, c := range m.Calls {
		b = AppendMessage(b, 4, func(b []byte) []byte {
			return AppendMessage(appendText(appendText(b, 1, c.ID), 2, c.Name), 3, c.Arguments.append)
		})
	}
	for _, kind := range m.Media {
		b = AppendBytes(b, 5, kind)
	}
	return appendText(b, 6, m.Answers)
}
