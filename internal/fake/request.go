// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
)

// request is the body of a request, of whichever operation.
type request struct {
	recipe recipe
	model  string
	stream bool

	fields map[string]json.RawMessage // names are case-sensitive; of a name that comes twice the last counts
	seed   uint64                     // hash of all text that was counted
}

// parseRequest reads what all operations have in common. The request it returns holds what was understood, also when it is refused.
func parseRequest(body []byte) (*request, *refusal) {
	q := &request{seed: fnv.New64a().Sum64()}
	if err := json.Unmarshal(body, &q.fields); err != nil || q.fields == nil {
		return q, badRequest("", "", "We could not parse the JSON body of your request. The API expects a JSON object as payload.")
	}
	if f := q.field("model", &q.model); f != nil {
		return q, f
	}
	if f := q.field("stream", &q.stream); f != nil {
		return q, f
	}
	if q.model == "" {
		return q, badRequest("model", "missing_required_parameter", "Missing required parameter: 'model'.")
	}
	return q, nil
}

// field decodes a member of the body. A member that is absent or null leaves to as it is.
func (q *request) field(name string, to any) *refusal {
	raw, ok := q.fields[name]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(raw, to); err != nil {
		if wrong := new(json.UnmarshalTypeError); errors.As(err, &wrong) {
			at := name
			if wrong.Field != "" {
				at += "." + wrong.Field
			}
			return badRequest(at, "invalid_type", "Invalid type for '%s': expected %s, but got %s instead.", at, wrong.Type, wrong.Value)
		}
		return badRequest(name, "invalid_value", "Invalid value for '%s': %s.", name, err)
	}
	return nil
}

// whole decodes a whole number from 1 to high; it is absent if the member is absent or null.
func (q *request) whole(name string, absent, high int) (int, *refusal) {
	var n *int
	if f := q.field(name, &n); f != nil {
		return 0, f
	}
	if n == nil {
		return absent, nil
	}
	if *n < 1 || *n > high {
		return 0, badRequest(name, "invalid_value", "Invalid value for '%s': expected a number from 1 to %d, but got %d.", name, high, *n)
	}
	return *n, nil
}

// includeUsage says whether the client asked for a usage chunk.
func (q *request) includeUsage() (bool, *refusal) {
	var o *struct {
		IncludeUsage bool `json:"include_usage"`
	}
	if f := q.field("stream_options", &o); f != nil {
		return false, f
	}
	if o != nil && !q.stream {
		return false, badRequest("stream_options", "invalid_value", "The 'stream_options' parameter is only allowed when 'stream' is enabled.")
	}
	return o != nil && o.IncludeUsage, nil
}

// tool is a function that the client offers, in the nested form of chat or the flat one of responses.
type tool struct {
	Type     string `json:"type"`
	Name     string `json:"name"`
	Function struct {
		Name string `json:"name"`
	} `json:"function"`
}

// name returns the function's name in either form.
func (t tool) name() string {
	if t.Function.Name != "" {
		return t.Function.Name
	}
	return t.Name
}

// called says which function the model calls, if any, and what the tools cost in input tokens.
func (q *request) called() (name string, tokens int, _ *refusal) {
	var tools []tool
	if f := q.field("tools", &tools); f != nil {
		return "", 0, f
	}
	for _, t := range tools {
		if t.Type == "function" && name == "" {
			name = t.name()
		}
	}
	if len(tools) > 0 {
		tokens = q.text(string(q.fields["tools"]))
	}
	if choice := q.fields["tool_choice"]; len(choice) > 0 && choice[0] == '{' {
		var t tool
		if f := q.field("tool_choice", &t); f != nil {
			return "", 0, f
		}
		name = t.name()
	} else if string(choice) == `"none"` {
		name = ""
	}
	return name, tokens, nil
}

// part is an element of a message's content: https://platform.openai.com/docs/api-reference/chat/create.
type part struct {
	Type     string          `json:"type"`
	Text     string          `json:"text"`
	Refusal  string          `json:"refusal"`
	Detail   string          `json:"detail"`    // of an input_image
	ImageURL json.RawMessage `json:"image_url"` // an object in chat, a string in responses
}

// content counts the tokens of a message's content, a string or a list of parts. param is its place in the body.
func (q *request) content(raw json.RawMessage, param string) (int, *refusal) {
	if len(raw) == 0 || string(raw) == "null" {
		return 0, nil
	}
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return q.text(s), nil
	}
	var parts []part
	if json.Unmarshal(raw, &parts) != nil {
		return 0, badRequest(param, "invalid_type", "Invalid type for '%s': expected a string or an array of objects.", param)
	}
	tokens := 0
	for i, p := range parts {
		switch p.Type {
		case "text", "input_text", "output_text":
			tokens += q.text(p.Text)
		case "refusal":
			tokens += q.text(p.Refusal)
		case "image_url", "input_image":
			n, f := p.image(fmt.Sprintf("%s[%d].image_url", param, i))
			if f != nil {
				return 0, f
			}
			tokens += n
		case "input_audio", "file", "input_file":
			tokens += fileTokens
		default:
			at := fmt.Sprintf("%s[%d].type", param, i)
			return 0, badRequest(at, "invalid_value", "Invalid value: '%s'. Supported values are: 'text', 'image_url', 'input_audio', 'refusal' and 'file'.", p.Type)
		}
	}
	return tokens, nil
}

// image counts an image part, which must hold a URL of the web or of its data.
func (p part) image(param string) (int, *refusal) {
	url, detail := "", p.Detail
	if json.Unmarshal(p.ImageURL, &url) != nil {
		var o struct{ URL, Detail string }
		if json.Unmarshal(p.ImageURL, &o) != nil {
			return 0, badRequest(param, "invalid_type", "Invalid type for '%s': expected an object with a URL.", param)
		}
		url, detail = o.URL, o.Detail
	}
	if !strings.HasPrefix(url, "https://") && !strings.HasPrefix(url, "http://") && !strings.HasPrefix(url, "data:image/") {
		return 0, badRequest(param, "invalid_image_url", "Invalid '%s': expected a valid URL.", param)
	}
	if detail == "low" {
		return lowImageTokens, nil
	}
	return imageTokens, nil
}
