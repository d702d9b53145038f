// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/http"
	"strconv"
	"strings"
)

// Head is what counts of a request before its body. A header that the client sent on several lines is its values joined by
// commas, as RFC 9110 has it.
type Head struct {
	Method          string
	Path            string // with the query
	Authorization   string
	APIKey          string // the header api-key, which Azure's SDKs send
	XAPIKey         string // the header x-api-key, which Anthropic's SDKs send
	ContentEncoding string
	ContentLength   string   // empty when the client did not say
	Address         string   // the client's IP address, as Envoy saw it
	Headers         []Header // others that Envoy was told to forward, for policies
	EndOfStream     bool     // no body follows
}

// endpoint is a path that the gateway serves.
type endpoint struct {
	method    string
	operation Operation // empty for the endpoints that the gateway answers itself
}

var endpoints = map[string]endpoint{
	"/v1/chat/completions": {http.MethodPost, OpChat},
	"/v1/completions":      {http.MethodPost, OpCompletions},
	"/v1/embeddings":       {http.MethodPost, OpEmbeddings},
	"/v1/responses":        {http.MethodPost, OpResponses},
	"/v1/models":           {http.MethodGet, ""},
}

const modelPrefix = "/v1/models/"

// Begin decides on a request by its head. The exchange is never nil: also a refusal has an id. Then either the denial is set, or
// the reply is, which is the whole answer; or neither, and the request goes on to [Exchange.Admit] with its body.
//
// The key comes before everything else: who has none learns nothing of what is served here.
func (e *Engine) Begin(h *Head) (*Exchange, *Reply, *Denial) {
	now := e.clock()
	x := &Exchange{ID: e.newID(now), engine: e}
	x.snapshot = e.snapshot.Load()
	if x.snapshot == nil {
		return x, nil, notReady()
	}
	grant := &x.held
	if denial := e.authenticate(h, x.snapshot, grant, now); denial != nil {
		return x, nil, denial
	}
	path, _, _ := strings.Cut(h.Path, "?")
	at, ok := endpoints[path]
	if !ok && strings.HasPrefix(path, modelPrefix) {
		at, ok = endpoints["/v1/models"], true
	}
	if !ok {
		return x, nil, unknownURL(h.Method, path)
	}
	if h.Method != at.method {
		return x, nil, wrongMethod(h.Method, at.method)
	}
	if denial := e.checkFraming(h, at); denial != nil {
		return x, nil, denial
	}
	if at.operation == "" {
		reply, denial := x.snapshot.answer(grant, path)
		return x, reply, denial
	}
	if denial := e.gate(); denial != nil {
		return x, nil, denial
	}
	x.grant, x.operation = grant, at.operation
	if x.judge = e.judge(&grant.tenant, &grant.key); x.judge != nil {
		x.address, x.path, x.headers = h.Address, h.Path, h.Headers
	}
	return x, nil, nil
}

// checkFraming checks what the head says of the body.
func (e *Engine) checkFraming(h *Head, at endpoint) *Denial {
	if h.ContentEncoding != "" && !strings.EqualFold(strings.TrimSpace(h.ContentEncoding), "identity") {
		return encodedBody()
	}
	var length int64
	if h.ContentLength != "" {
		n, err := strconv.ParseUint(h.ContentLength, 10, 63)
		if err != nil {
			return badRequest("", "The content-length header is not a number.")
		}
		length = int64(n)
	}
	switch {
	case length > e.maxBody:
		return tooLarge(e.maxBody)
	case at.method == http.MethodGet && (!h.EndOfStream || length > 0):
		return badRequest("", "A GET request to this URL takes no body.")
	case at.method == http.MethodPost && h.EndOfStream:
		return badRequest("", "The request has no body. Send a JSON object.")
	}
	return nil
}

// secret returns the credential that a request carries. SDKs send one in one of three headers; several are taken as long as they
// agree, since which of two should count is not for the gateway to guess.
func (h *Head) secret() (string, *Denial) {
	var secret string
	if h.Authorization != "" {
		scheme, rest, _ := strings.Cut(h.Authorization, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return "", badKey("Incorrect API key provided. The Authorization header must have the form `Bearer YOUR_KEY`.")
		}
		secret = strings.Trim(rest, " \t")
	}
	for _, other := range [...]string{h.APIKey, h.XAPIKey} {
		if other = strings.Trim(other, " \t"); other == "" || other == secret {
			continue
		}
		if secret != "" {
			return "", badKey("Several different API keys were sent. Send one, in one header.")
		}
		secret = other
	}
	if secret == "" {
		return "", badKey("You didn't provide an API key. Send it in an Authorization header with Bearer auth " +
			"(Authorization: Bearer YOUR_KEY), in an api-key header or in an x-api-key header.")
	}
	if strings.ContainsAny(secret, ", \t") { // a header on several lines, or not a key of ours at all
		return "", badKey("Incorrect API key provided. Send one key, in one header.")
	}
	return secret, nil
}
