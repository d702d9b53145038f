// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"

	"github.com/weir-proxy/weir/plugins/abi"
	"github.com/weir-proxy/weir/policy"
)

// JudgeError says that a judge could not judge an event. With a judge that is open, the response went on without it.
type JudgeError struct {
	Judge string
	Kind  abi.Kind
	Err   error
}

// Error implements error.
func (e *JudgeError) Error() string {
	return fmt.Sprintf("judge %s: event of kind %d: %v", e.Judge, e.Kind, e.Err)
}

// Unwrap returns the judge's own error.
func (e *JudgeError) Unwrap() error { return e.Err }

// UnreadableError says that a response cannot be judged, because it is not what its operation answers, has two readings, or is too large. It repeats
// nothing of the response.
type UnreadableError struct {
	Reason string
	Err    error // of the JSON; may be nil
}

// Error implements error.
func (e *UnreadableError) Error() string {
	if e.Err == nil {
		return "read response: " + e.Reason
	}
	return fmt.Sprintf("read response: %s: %v", e.Reason, e.Err)
}

// Unwrap returns what was wrong with the JSON.
func (e *UnreadableError) Unwrap() error { return e.Err }

func unreadable(reason string) error { return &UnreadableError{Reason: reason} }

// denied ends a response in a judge's words.
type denied struct {
	abi.Denial
	judge string
}

// Error implements error.
func (d *denied) Error() string { return fmt.Sprintf("judge %s denies: %s", d.judge, d.Code) }

// Codes of the errors by which responses end that no judge has denied.
const (
	codePlugin     = "plugin_failed"
	codeUnreadable = "response_unreadable"
)

// judgeOf returns whose error it is; empty if it is no judge's.
func judgeOf(err error) string {
	if d, ok := errors.AsType[*denied](err); ok {
		return d.judge
	}
	if j, ok := errors.AsType[*JudgeError](err); ok {
		return j.Judge
	}
	return ""
}

// denial says what a client reads of an error.
func denial(err error) abi.Denial {
	if d, ok := errors.AsType[*denied](err); ok {
		d.Message = cmp.Or(d.Message, "A policy of this gateway has denied the response.")
		return d.Denial
	}
	if _, ok := errors.AsType[*UnreadableError](err); ok {
		return abi.Denial{Status: 502, Code: codeUnreadable, Message: "The policies of this gateway could not read the provider's response."}
	}
	return abi.Denial{Status: 503, Code: codePlugin, Message: "A policy of this gateway could not be evaluated. Try again later."}
}

// body is a denial in OpenAI's shape.
func body(d abi.Denial) []byte {
	p := policy.Denial{Status: d.Status, Type: "invalid_request_error", Code: d.Code, Message: d.Message}
	if d.Status >= 500 {
		p.Type = "server_error"
	}
	return p.Body()
}

// appendDenial appends the event by which a stream of chat ends: OpenAI's packages raise what has the member error.
func appendDenial(b []byte, d abi.Denial, eol string) []byte {
	b = append(b, "data: "...)
	b = append(b, body(d)...)
	return append(append(b, eol...), eol...)
}

// appendErrorEvent appends the event by which a stream of responses ends, with the error twice: as it is specified
// (https://platform.openai.com/docs/api-reference/responses-streaming/error), and as OpenAI sends it and its packages look for it.
func appendErrorEvent(b []byte, d abi.Denial, eol string, sequence int64) []byte {
	inner := body(d)
	b = append(append(b, "event: error"...), eol...)
	b = append(b, `data: {"type":"error","sequence_number":`...)
	b = strconv.AppendInt(b, sequence, 10)
	b = append(b, `,"code":`...)
	b = appendQuoted(b, d.Code)
	b = append(b, `,"message":`...)
	b = appendQuoted(b, d.Message)
	b = append(b, `,"param":null,`...)
	b = append(b, inner[1:]...)
	return append(append(b, eol...), eol...)
}
