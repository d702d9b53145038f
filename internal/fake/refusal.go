// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// refusal is an error as OpenAI words it: https://platform.openai.com/docs/guides/error-codes.
type refusal struct {
	status     int
	retryAfter int // seconds; negative: no header

	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

// Error implements error.
func (f *refusal) Error() string { return f.Message }

// badRequest is a 400 that blames one member of the request; param and code may be empty.
func badRequest(param, code, format string, args ...any) *refusal {
	return refuse(http.StatusBadRequest, "invalid_request_error", code, param, fmt.Sprintf(format, args...))
}

// refuse makes a refusal; an empty code or param becomes null, as OpenAI has it.
func refuse(status int, kind, code, param, message string) *refusal {
	f := &refusal{status: status, retryAfter: -1, Message: message, Type: kind}
	if code != "" {
		f.Code = &code
	}
	if param != "" {
		f.Param = &param
	}
	return f
}

// refuseWith words the error that OpenAI would give with a status.
func refuseWith(status, retryAfter int) *refusal {
	kind, code, message := "invalid_request_error", "", http.StatusText(status)
	switch status {
	case http.StatusBadRequest:
		message = "Your request was malformed or missing some required parameters."
	case http.StatusUnauthorized:
		code, message = "invalid_api_key", "Incorrect API key provided."
	case http.StatusForbidden:
		code, message = "permission_denied", "You are not allowed to use this resource."
	case http.StatusNotFound:
		code, message = "model_not_found", "The model does not exist or you do not have access to it."
	case http.StatusTooManyRequests:
		kind, code, message = "requests", "rate_limit_exceeded", "Rate limit reached for requests."
	case http.StatusInternalServerError:
		kind, message = "server_error", "The server had an error while processing your request."
	case http.StatusServiceUnavailable:
		kind, code, message = "server_error", "service_unavailable", "The engine is currently overloaded, please try again later."
	default:
		if status > http.StatusInternalServerError {
			kind = "server_error"
		}
		if message == "" {
			message = fmt.Sprintf("Status %d.", status)
		}
	}
	f := refuse(status, kind, code, "", message)
	f.retryAfter = retryAfter
	return f
}

// answer makes the response that carries the refusal.
func (f *refusal) answer() *answer {
	b, err := json.Marshal(map[string]*refusal{"error": f})
	if err != nil {
		panic(err) // only strings: cannot fail
	}
	a := &answer{status: f.status, retryAfter: f.retryAfter}
	a.event(b, 0)
	return a
}
