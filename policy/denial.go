// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"time"
)

// Denial is a refusal as a client may read it. Nothing that is not in a Denial ever reaches a client.
type Denial struct {
	Status     int           // HTTP status
	Type       string        // OpenAI's error type, such as "invalid_request_error"
	Code       string        // OpenAI's error code, such as "invalid_api_key"
	Param      string        // the member of the request that is at fault; may be empty
	Message    string        // a sentence that says what to do
	RetryAfter time.Duration // sent as retry-after, rounded up to a second; zero means not at all
	Allow      string        // the method to use instead, sent as allow; only with status 405
	Headers    []Header      // others that tell the client more, such as what is left of a limit

	// Reply, if not nil, is what the client gets instead of Status and Body: a policy answers in its own words, and not necessarily in the negative.
	Reply *Reply
}

// Replied returns a denial by which a policy answers itself.
func Replied(r *Reply) *Denial {
	d := Denied(r.Status, CodePluginReply, "A policy of this gateway has answered.")
	d.Reply = r
	return d
}

// Error implements error.
func (d *Denial) Error() string { return d.Code + ": " + d.Message }

// Body returns the denial in OpenAI's error shape:
// https://platform.openai.com/docs/guides/error-codes.
func (d *Denial) Body() []byte {
	type detail struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    string  `json:"code"`
	}
	e := struct {
		Error detail `json:"error"`
	}{detail{Message: d.Message, Type: d.Type, Code: d.Code}}
	if d.Param != "" {
		e.Error.Param = &d.Param
	}
	b, err := json.Marshal(e)
	if err != nil {
		panic(err) // only strings: cannot fail
	}
	return b
}
