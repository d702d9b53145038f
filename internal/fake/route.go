// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// route is an operation of the API.
type route struct {
	name  string // below the prefix
	model string // in the path, for models/{id}
}

// route finds the operation that a request is for.
func (p *Provider) route(r *http.Request) (route, *refusal) {
	unknown := func() *refusal {
		return refuse(http.StatusNotFound, "invalid_request_error", "", "", fmt.Sprintf("Invalid URL (%s %s)", r.Method, r.URL.Path))
	}
	name, below := strings.CutPrefix(r.URL.Path, p.prefix)
	if !below {
		return route{}, unknown()
	}
	to, method := route{name: name}, http.MethodPost
	switch name {
	case "chat/completions", "completions", "responses", "embeddings":
	case "models":
		method = http.MethodGet
	default:
		id, one := strings.CutPrefix(name, "models/")
		if !one || id == "" {
			return route{}, unknown()
		}
		to, method = route{name: "models/", model: id}, http.MethodGet
	}
	if r.Method != method {
		return route{}, refuse(http.StatusMethodNotAllowed, "invalid_request_error", "method_not_supported", "",
			fmt.Sprintf("Not allowed to %s on %s.", r.Method, r.URL.Path))
	}
	return to, nil
}

// make makes the answer to a request from its body.
func (p *Provider) make(to route, body []byte, rec recipe) prepared {
	switch to.name {
	case "models":
		return prepared{answer: p.models()}
	case "models/":
		return prepared{model: to.model, answer: p.retrieve(to.model)}
	}
	q, f := parseRequest(body)
	var a *answer
	if f == nil {
		f = p.missing(q.model)
	}
	if f == nil {
		q.recipe = rec
		switch to.name {
		case "chat/completions":
			a, f = q.chat()
		case "completions":
			a, f = q.completion()
		case "responses":
			a, f = q.response()
		default:
			a, f = q.embedding()
		}
	}
	if f != nil {
		a = f.answer()
	}
	return prepared{model: q.model, stream: q.stream, answer: a}
}

// missing refuses a model that the provider does not have.
func (p *Provider) missing(model string) *refusal {
	if len(p.opts.Models) == 0 || slices.Contains(p.opts.Models, model) {
		return nil
	}
	return refuse(http.StatusNotFound, "invalid_request_error", "model_not_found", "model",
		fmt.Sprintf("The model `%s` does not exist or you do not have access to it.", model))
}

// model is an entry of OpenAI's list: https://platform.openai.com/docs/api-reference/models/object.
type model struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

// describe makes the entry of a model.
func describe(id string) model { return model{id, "model", created, "fake"} }

// models lists what the provider has.
func (p *Provider) models() *answer {
	ids := p.opts.Models
	if len(ids) == 0 {
		ids = []string{
			"gpt-4o", "gpt-4o-mini", "gpt-4.1-mini", "o3-mini", "o4-mini", "gpt-3.5-turbo-instruct",
			"text-embedding-3-small", "text-embedding-3-large",
		}
	}
	list := struct {
		Object string  `json:"object"`
		Data   []model `json:"data"`
	}{Object: "list", Data: []model{}}
	for _, id := range ids {
		list.Data = append(list.Data, describe(id))
	}
	return document(list)
}

// retrieve describes one model.
func (p *Provider) retrieve(id string) *answer {
	if f := p.missing(id); f != nil {
		return f.answer()
	}
	return document(describe(id))
}

// document makes a JSON answer that serves no tokens.
func document(v any) *answer {
	a := &answer{status: http.StatusOK, retryAfter: -1}
	a.event(encode(v), 0)
	return a
}
