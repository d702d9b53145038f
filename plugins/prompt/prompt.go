// SPDX-License-Identifier: Apache-2.0

package prompt

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/weir-proxy/weir/internal/jsonscan"
	"github.com/weir-proxy/weir/plugins/abi"
	"github.com/weir-proxy/weir/policy"
)

// Prompt is what one request says. It refers to the body that it was read from, which must not be altered.
type Prompt struct {
	Messages  []abi.Message
	Tools     []abi.Tool
	MaxOutput int64 // tokens that the client allows for each answer; 0 if it does not say, or not as a whole number
	Choices   int64 // answers that it makes the model write: the larger of n and best_of; 0 if it does not say

	body   []byte
	op     policy.Operation
	object jsonscan.Object // the outermost
	texts  []jsonscan.Span // of the JSON string that the text with id i+1 is
	model  jsonscan.Span
	limits []limit         // members that bound the output
	turns  []jsonscan.Span // of each message in the body; the zero Span for one that is no element of the list
	list   jsonscan.Span   // the array that messages are inserted into
	whole  jsonscan.Span   // the string that stands for the list, where the client sent one
}

// limit is a member that bounds the output.
type limit struct {
	at    jsonscan.Span
	value int64 // 0: not a positive whole number
	null  bool  // the client left it open
	own   bool  // it is a member of this operation, and not one of another that some provider may take all the same
}

// Model returns the model that the body names; empty if it names none.
func (p *Prompt) Model() string {
	value := p.body[p.model.Start:p.model.End]
	if len(value) == 0 || value[0] != '"' {
		return ""
	}
	return jsonscan.Unquote(value)
}

// Error says what is wrong with a body, in words for who sent it.
type Error struct {
	Param  string // such as messages[0].content
	Reason string // a whole sentence
}

// Error implements error.
func (e *Error) Error() string { return e.Reason }

// ErrInsert is returned by [Prompt.Apply] for a message that is to be inserted where there are no messages.
var ErrInsert = errors.New("messages can be inserted into chats and responses only")

// Keys of the outermost object, by operation. [jsonscan.Object.Values] has them in this order; model is the first and the limits of the output are the last. All
// three names of such a limit are looked for everywhere: there are providers that take one for another.
var (
	chatKeys       = jsonscan.NewKeys("model", "messages", "tools", "functions", "prediction", "n", "max_tokens", "max_completion_tokens", "max_output_tokens")
	completionKeys = jsonscan.NewKeys("model", "prompt", "suffix", "n", "best_of", "max_tokens", "max_completion_tokens", "max_output_tokens")
	embeddingKeys  = jsonscan.NewKeys("model", "input")
	responsesKeys  = jsonscan.NewKeys("model", "instructions", "input", "tools", "prompt", "max_output_tokens", "max_tokens", "max_completion_tokens")
	templateKeys   = jsonscan.NewKeys("variables")
	predictionKeys = jsonscan.NewKeys("content")
)

// Read reads a body that [policy.Exchange] would accept: one JSON object, valid as a whole. Every error is an [*Error]. The texts
// lie in body as long as they have no escapes: it must not be altered.
func Read(op policy.Operation, body []byte) (*Prompt, error) {
	p := &Prompt{body: body, op: op}
	var keys *jsonscan.Keys
	var read func(v []jsonscan.Span) error
	switch op {
	case policy.OpChat:
		keys, read = chatKeys, p.readChat
	case policy.OpCompletions:
		keys, read = completionKeys, p.readCompletion
	case policy.OpEmbeddings:
		keys, read = embeddingKeys, func(v []jsonscan.Span) error { return p.readInputs("input", v[1]) }
	case policy.OpResponses:
		keys, read = responsesKeys, p.readResponses
	default:
		return nil, &Error{Reason: "Requests of this kind cannot be read by a plugin."}
	}
	if err := keys.Scan(body, &p.object); err != nil {
		return nil, malformed("", err)
	}
	p.model = p.object.Values[0]
	if err := read(p.object.Values[:]); err != nil {
		return nil, err
	}
	return p, nil
}

// Texts returns how many texts there are. Their ids are 1 to that number.
func (p *Prompt) Texts() int { return len(p.texts) }

func (p *Prompt) readChat(v []jsonscan.Span) error {
	p.list = v[1]
	i := 0
	for at := range jsonscan.Elements(p.body, v[1]) {
		m, err := p.readMessage("messages["+strconv.Itoa(i)+"]", at)
		if err != nil {
			return err
		}
		p.add(at, m)
		i++
	}
	if at := v[4]; p.is(at, '{') {
		var o jsonscan.Object
		if err := predictionKeys.Find(at.Of(p.body), &o); err != nil {
			return malformed("prediction", err)
		}
		m := abi.Message{Role: roleAssistant}
		if err := p.readContent("prediction.content", shift(o.Values[0], at.Start), &m); err != nil {
			return err
		}
		p.add(jsonscan.Span{}, m)
	}
	if err := p.readTools("tools", v[2]); err != nil {
		return err
	}
	if err := p.readTools("functions", v[3]); err != nil {
		return err
	}
	p.readChoices(v[5])
	p.readLimits(2, v[6], v[7], v[8])
	return nil
}

func (p *Prompt) readCompletion(v []jsonscan.Span) error {
	if err := p.readInputs("prompt", v[1]); err != nil {
		return err
	}
	if at := v[2]; p.is(at, '"') {
		p.add(jsonscan.Span{}, abi.Message{Role: roleUser, Texts: []abi.Text{p.text(at)}})
	}
	p.readChoices(v[3], v[4])
	p.readLimits(1, v[5], v[6], v[7])
	return nil
}

// readChoices reads how many answers the client asks for. A number that is not whole counts as the next larger one: there may be a provider that takes it.
func (p *Prompt) readChoices(members ...jsonscan.Span) {
	for _, at := range members {
		if !at.Found() {
			continue
		}
		if n, err := strconv.ParseFloat(string(at.Of(p.body)), 64); err == nil && n > 0 {
			p.Choices = max(p.Choices, int64(min(math.Ceil(n), math.MaxInt32)))
		}
	}
}

// readInputs reads a prompt that is a string, or a list of strings or tokens.
func (p *Prompt) readInputs(param string, at jsonscan.Span) error {
	if p.is(at, '"') {
		p.add(jsonscan.Span{}, abi.Message{Role: roleUser, Texts: []abi.Text{p.text(at)}})
		return nil
	}
	tokens := false
	for e := range jsonscan.Elements(p.body, at) {
		switch {
		case p.is(e, '"'):
			p.add(jsonscan.Span{}, abi.Message{Role: roleUser, Texts: []abi.Text{p.text(e)}})
		case p.is(e, '{'):
			return &Error{Param: param, Reason: "Invalid type for '" + param + "': expected strings or tokens, got an object."}
		default: // a number, or a list of them: tokens of a prompt that only the provider can read
			tokens = true
		}
	}
	if tokens {
		p.add(jsonscan.Span{}, abi.Message{Role: roleUser, Media: []string{mediaTokens}})
	}
	return nil
}

func (p *Prompt) add(at jsonscan.Span, m abi.Message) {
	p.Messages = append(p.Messages, m)
	p.turns = append(p.turns, at)
}

// text takes the JSON string at a place in.
func (p *Prompt) text(at jsonscan.Span) abi.Text {
	p.texts = append(p.texts, at)
	return abi.Text{ID: int64(len(p.texts)), Text: jsonscan.View(at.Of(p.body))}
}

// is reports whether there is a value, and it begins with c.
func (p *Prompt) is(at jsonscan.Span, c byte) bool { return at.Found() && p.body[at.Start] == c }

// str returns the string at a place; empty if there is none, or it is something else.
func (p *Prompt) str(at jsonscan.Span) string {
	if !p.is(at, '"') {
		return ""
	}
	return jsonscan.Unquote(at.Of(p.body))
}

// readLimits reads members that bound the output. The first few are those of this operation.
func (p *Prompt) readLimits(own int, members ...jsonscan.Span) {
	for i, at := range members {
		if !at.Found() {
			continue
		}
		if p.is(at, 'n') {
			p.limits = append(p.limits, limit{at: at, null: true, own: i < own})
			continue
		}
		n, err := strconv.ParseInt(string(at.Of(p.body)), 10, 64)
		if err != nil || n < 0 {
			n = 0
		}
		p.limits = append(p.limits, limit{at: at, value: n, own: i < own})
		p.MaxOutput = max(p.MaxOutput, n)
	}
}

func shift(s jsonscan.Span, by int) jsonscan.Span {
	if !s.Found() {
		return s
	}
	return jsonscan.Span{Start: s.Start + by, End: s.End + by}
}

func malformed(param string, err error) error {
	where := "The body"
	if param != "" {
		where = "'" + param + "'"
	}
	var e *jsonscan.Error
	if errors.As(err, &e) && e.Key != "" {
		return &Error{Param: param, Reason: fmt.Sprintf("%s is ambiguous: %s %q.", where, e.Reason, e.Key)}
	}
	return &Error{Param: param, Reason: fmt.Sprintf("%s is not a JSON object that can be read: %s.", where, err)}
}
