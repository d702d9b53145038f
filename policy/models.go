// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
)

// Reply is a request's whole answer, given by the gateway itself.
type Reply struct {
	Status int
	Body   []byte // JSON, unless the headers say otherwise
	// Headers are further ones; content-type may be among them.
	Headers []Header
}

// modelObject is OpenAI's: https://platform.openai.com/docs/api-reference/models/object.
type modelObject struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

// The gateway does not know when a provider made a model, nor who did; clients want the members to be there.
func newModelObject(id string) modelObject {
	return modelObject{ID: id, Object: "model", OwnedBy: "weir"}
}

// answer replies to GET /v1/models and GET /v1/models/{id}: what the key may ask for and some channel serves.
func (s *Snapshot) answer(g *grant, path string) (*Reply, *Denial) {
	var v any
	if id, one := strings.CutPrefix(path, modelPrefix); one {
		// SDKs escape the slash of names like "meta-llama/Llama-3" or do not.
		name, err := url.PathUnescape(id)
		if err != nil || !s.has(g, name) {
			return nil, modelNotFound(cut(id, maxTicketString))
		}
		v = newModelObject(name)
	} else {
		list := []modelObject{}
		for _, name := range s.names {
			if s.has(g, name) {
				list = append(list, newModelObject(name))
			}
		}
		v = struct {
			Object string        `json:"object"`
			Data   []modelObject `json:"data"`
		}{"list", list}
	}
	body, err := json.Marshal(v)
	if err != nil {
		return nil, Internal()
	}
	return &Reply{Status: http.StatusOK, Body: body}, nil
}

func (s *Snapshot) has(g *grant, model string) bool {
	o := s.models[model]
	by := g.reach()
	return o != nil && g.access.allow.allows(model) && o.served(&by)
}
