// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strconv"

	"github.com/weir-proxy/weir/internal/jsonscan"
)

// The members of a body that the engine acts on; the constants are their places.
var (
	bodyKeys   = jsonscan.NewKeys("model", "stream", "stream_options", "service_tier", "background", "deferred")
	optionKeys = jsonscan.NewKeys("include_usage")
)

const (
	memberModel = iota
	memberStream
	memberOptions
	memberService
	memberBackground
	memberDeferred
)

const memberUsage = 0

// request is what a body asks for.
type request struct {
	model   string
	modelAt jsonscan.Span
	stream  bool
	service Service

	// Whether the usage chunk has to be asked for in the client's place, and the change to the body that does so.
	injected bool
	edit     jsonscan.Edit
}

// readRequest reads a body. Every member that it does not name is between the client and the provider.
func readRequest(body []byte, op Operation) (request, *Denial) {
	if len(body) == 0 {
		return request{}, badRequest("", "The request has no body. Send a JSON object.")
	}
	var o jsonscan.Object
	if err := bodyKeys.Scan(body, &o); err != nil {
		return request{}, badJSON(err, "", 0)
	}
	var r request
	if denial := r.readModel(body, o.Values[memberModel]); denial != nil {
		return request{}, denial
	}
	if at := o.Values[memberStream]; at.Found() {
		switch string(at.Of(body)) {
		case "true":
			r.stream = true
		case "false", "null":
		default:
			return request{}, badRequest("stream", "Invalid type for 'stream': expected a boolean.")
		}
	}
	if at := o.Values[memberService]; at.Found() {
		r.service = serviceNamed(at.Of(body))
	}
	if denial := answeredLater(body, &o); denial != nil {
		return request{}, denial
	}
	switch op {
	case OpChat, OpCompletions:
		return r, r.askForUsage(body, &o)
	case OpEmbeddings:
		r.stream = false // there is no such thing; the provider may complain
	}
	return r, nil
}

// answeredLater refuses what a provider would answer before it has done the work, as Responses and xAI's chats can be asked for: what that costs is in no response that
// passes here, and the answer could not be fetched through the gateway either.
func answeredLater(body []byte, o *jsonscan.Object) *Denial {
	for i, param := range [...]string{"background", "deferred"} {
		at := o.Values[memberBackground+i]
		if !at.Found() {
			continue
		}
		if value := string(at.Of(body)); value != "false" && value != "null" {
			return badRequest(param, "The gateway does not serve answers that are fetched later. Leave out '"+param+"', or set it to false.")
		}
	}
	return nil
}

// serviceNamed returns the service that a value asks for. What it makes of any other value is for the provider to say.
func serviceNamed(value []byte) Service {
	if len(value) > 1 && value[0] == '"' {
		switch jsonscan.Unquote(value) {
		case "flex":
			return Flex
		case "priority":
			return Priority
		}
	}
	return Standard
}

func (r *request) readModel(body []byte, at jsonscan.Span) *Denial {
	if !at.Found() {
		return badRequest("model", "You must provide a model parameter.")
	}
	value := at.Of(body)
	if value[0] != '"' {
		return badRequest("model", "Invalid type for 'model': expected a string.")
	}
	// The longest escape of one byte has six.
	if len(value) > maxTicketString*6+2 {
		return modelTooLong()
	}
	r.modelAt = at
	r.model = jsonscan.Unquote(value)
	switch {
	case r.model == "":
		return badRequest("model", "Invalid value for 'model': expected a name, got an empty string.")
	case len(r.model) > maxTicketString:
		return modelTooLong()
	}
	return nil
}

func modelTooLong() *Denial {
	return badRequest("model", "Invalid value for 'model': longer than "+strconv.Itoa(maxTicketString)+" bytes.")
}

// askForUsage makes sure that a stream ends with a chunk that says what it cost: the provider sends it if
// stream_options.include_usage is true. It is an error for OpenAI to send stream_options without stream, so they are left alone
// then, but for their type.
func (r *request) askForUsage(body []byte, o *jsonscan.Object) *Denial {
	at := o.Values[memberOptions]
	if !at.Found() {
		if r.stream {
			r.inject(o.Insert(`"stream_options":{"include_usage":true}`))
		}
		return nil
	}
	value := at.Of(body)
	if string(value) == "null" {
		if r.stream {
			r.inject(jsonscan.Edit{At: at, With: `{"include_usage":true}`})
		}
		return nil
	}
	if value[0] != '{' {
		return badRequest("stream_options", "Invalid type for 'stream_options': expected an object.")
	}
	var options jsonscan.Object
	if err := optionKeys.Scan(value, &options); err != nil {
		return badJSON(err, "stream_options", at.Start)
	}
	usage := options.Values[memberUsage]
	switch {
	case !usage.Found():
		if r.stream {
			edit := options.Insert(`"include_usage":true`)
			edit.At = shift(edit.At, at.Start)
			r.inject(edit)
		}
	case string(usage.Of(value)) == "true":
	case string(usage.Of(value)) == "false", string(usage.Of(value)) == "null":
		if r.stream {
			r.inject(jsonscan.Edit{At: shift(usage, at.Start), With: "true"})
		}
	default:
		return badRequest("stream_options.include_usage", "Invalid type for 'stream_options.include_usage': expected a boolean.")
	}
	return nil
}

func (r *request) inject(e jsonscan.Edit) { r.injected, r.edit = true, e }

func shift(s jsonscan.Span, by int) jsonscan.Span {
	return jsonscan.Span{Start: s.Start + by, End: s.End + by}
}
