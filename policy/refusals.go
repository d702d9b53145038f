// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/weir-proxy/weir/internal/jsonscan"
)

// Codes of a [Denial]. Clients and dashboards rely on them: they never change.
const (
	CodeInvalidKey          = "invalid_api_key"
	CodeInvalidJSON         = "invalid_json"
	CodeInvalidRequest      = "invalid_request_error"
	CodeUnknownURL          = "unknown_url"
	CodeMethodNotAllowed    = "method_not_allowed"
	CodeUnsupportedEncoding = "unsupported_content_encoding"
	CodeTooLarge            = "request_too_large"
	CodeAddressNotAllowed   = "ip_not_authorized" // OpenAI's word
	CodeModelNotAllowed     = "model_not_allowed"
	CodeChannelNotAllowed   = "channel_not_allowed"
	CodeModelNotFound       = "model_not_found"
	CodeNoChannel           = "no_channel"
	CodeRateLimit           = "rate_limit_exceeded"
	CodePriceUnknown        = "price_unknown"
	CodeUnavailable         = "unavailable"
	CodeOverloaded          = "overloaded"
	CodeInternal            = "internal_error"
	CodePluginReply         = "plugin_reply" // a plugin has answered in its own words
)

// Types of a [Denial], as OpenAI names them.
const (
	typeInvalidRequest = "invalid_request_error"
	typeServer         = "server_error"
)

// Internal returns the denial for a fault of the gateway itself. It says nothing of the cause: that is for the log.
func Internal() *Denial {
	return &Denial{
		Status: http.StatusInternalServerError, Type: typeServer, Code: CodeInternal,
		Message: "The gateway had an internal error. Retry, and quote the x-weir-exchange-id header if it persists.",
	}
}

// Unavailable returns the denial for a request whose usage could not be recorded: better none is served than one that is not in the
// books. It says nothing of the cause: that is for the log.
func Unavailable() *Denial {
	return &Denial{
		Status: http.StatusServiceUnavailable, Type: typeServer, Code: CodeUnavailable, RetryAfter: 5 * time.Second,
		Message: "The gateway cannot record usage at present and takes no new requests. Retry in a moment.",
	}
}

// Overloaded returns the denial for a request that came when too many did.
func Overloaded() *Denial {
	return &Denial{
		Status: http.StatusServiceUnavailable, Type: typeServer, Code: CodeOverloaded, RetryAfter: time.Second,
		Message: "The gateway is overloaded. Try again later.",
	}
}

func notReady() *Denial {
	return &Denial{
		Status: http.StatusServiceUnavailable, Type: typeServer, Code: CodeUnavailable, RetryAfter: time.Second,
		Message: "The gateway has not read its configuration yet: it is starting, or cannot reach its database. Retry in a moment.",
	}
}

// badKey refuses a credential. The message never repeats any of it.
func badKey(message string) *Denial {
	return &Denial{Status: http.StatusUnauthorized, Type: typeInvalidRequest, Code: CodeInvalidKey, Message: message}
}

func badRequest(param, message string) *Denial {
	return &Denial{Status: http.StatusBadRequest, Type: typeInvalidRequest, Code: CodeInvalidRequest, Param: param, Message: message}
}

// BadRequest returns the denial for a request that cannot be served as it is; param is the member at fault, if it is one.
func BadRequest(param, message string) *Denial { return badRequest(param, message) }

// Denied returns the denial of a policy, with a status from 400 to 599.
func Denied(status int, code, message string) *Denial {
	d := &Denial{Status: status, Type: typeInvalidRequest, Code: code, Message: message}
	if status >= http.StatusInternalServerError {
		d.Type = typeServer
	}
	return d
}

func unknownURL(method, path string) *Denial {
	const most = 200 // bytes of a path that are worth repeating
	message := fmt.Sprintf("Invalid URL (%s %s)", method, cut(path, most))
	// The base URL of a client is where most go wrong: the version is left out, or stands there twice.
	if _, ok := endpoints["/v1"+path]; ok {
		message += ". The base URL of a client ends in /v1."
	} else if rest, twice := strings.CutPrefix(path, "/v1/v1/"); twice {
		if _, ok := endpoints["/v1/"+rest]; ok {
			message += ". Leave /v1 out of the base URL, or out of the path."
		}
	}
	return &Denial{Status: http.StatusNotFound, Type: typeInvalidRequest, Code: CodeUnknownURL, Message: message}
}

func wrongMethod(method, allow string) *Denial {
	return &Denial{
		Status: http.StatusMethodNotAllowed, Type: typeInvalidRequest, Code: CodeMethodNotAllowed, Allow: allow,
		Message: fmt.Sprintf("Not allowed to %s on this URL. Use %s.", cut(method, 20), allow),
	}
}

func tooLarge(limit int64) *Denial {
	return &Denial{
		Status: http.StatusRequestEntityTooLarge, Type: typeInvalidRequest, Code: CodeTooLarge,
		Message: "The request body is larger than the limit of " + strconv.FormatInt(limit, 10) + " bytes.",
	}
}

func encodedBody() *Denial {
	return &Denial{
		Status: http.StatusUnsupportedMediaType, Type: typeInvalidRequest, Code: CodeUnsupportedEncoding,
		Message: "The gateway reads request bodies and takes them only without content-encoding. Send the JSON uncompressed.",
	}
}

// badJSON turns the fault that jsonscan found into a denial; within is the member of the body that was scanned, empty for the
// whole body, and offset where it begins.
func badJSON(err error, within string, offset int) *Denial {
	e, ok := errors.AsType[*jsonscan.Error](err)
	if !ok {
		return Internal()
	}
	d := &Denial{Status: http.StatusBadRequest, Type: typeInvalidRequest, Code: CodeInvalidJSON, Param: e.Key}
	at := e.Offset + offset
	if e.Key == "" {
		d.Message = fmt.Sprintf("We could not parse the JSON body of your request: %s at byte %d.", e.Reason, at)
		return d
	}
	if within != "" {
		d.Param = within + "." + e.Key
	}
	d.Message = fmt.Sprintf("We could not parse the JSON body of your request: %s at byte %d. "+
		"Write %q once, in lower case and without escapes.", e.Reason, at, e.Key)
	return d
}

// Stale returns the denial for a time in which the database has not confirmed for too long what the gateway decides by: keys may have been revoked.
func Stale() *Denial {
	return &Denial{
		Status: http.StatusServiceUnavailable, Type: typeServer, Code: CodeUnavailable, RetryAfter: 5 * time.Second,
		Message: "The gateway has not reached its database for too long and takes no new requests. Retry in a moment.",
	}
}

// wrongAddress refuses a key that comes from where it may not be. Who sends it has proved to hold it, and may know why it does not work.
func wrongAddress() *Denial {
	return &Denial{
		Status: http.StatusUnauthorized, Type: typeInvalidRequest, Code: CodeAddressNotAllowed,
		Message: "This API key may not be used from this IP address.",
	}
}

// notPinned refuses a key that was sent with the name of a channel behind it.
func notPinned(model string) *Denial {
	return &Denial{
		Status: http.StatusForbidden, Type: typeInvalidRequest, Code: CodeChannelNotAllowed, Param: "model",
		Message: fmt.Sprintf("The channel that was sent with the API key does not serve the model `%s` to it.", model),
	}
}

func modelNotAllowed(model string) *Denial {
	return &Denial{
		Status: http.StatusForbidden, Type: typeInvalidRequest, Code: CodeModelNotAllowed, Param: "model",
		Message: fmt.Sprintf("This API key may not use the model `%s`.", model),
	}
}

func modelNotFound(model string) *Denial {
	return &Denial{
		Status: http.StatusNotFound, Type: typeInvalidRequest, Code: CodeModelNotFound, Param: "model",
		Message: fmt.Sprintf("The model `%s` does not exist or you do not have access to it.", model),
	}
}

// PriceUnknown returns the denial for a request of which nobody knows what it would cost.
func PriceUnknown(model string) *Denial {
	return &Denial{
		Status: http.StatusForbidden, Type: typeInvalidRequest, Code: CodePriceUnknown, Param: "model",
		Message: fmt.Sprintf("No price is known for the model `%s`, and this API key may use only what has one. Ask for another model, or ask the operator of this "+
			"gateway to set a price.", model),
	}
}

func noChannel(model string) *Denial {
	return &Denial{
		Status: http.StatusServiceUnavailable, Type: typeServer, Code: CodeNoChannel,
		Message: fmt.Sprintf("No channel is enabled for the model `%s` at present.", model),
	}
}

// cut shortens what a client sent to at most n bytes before it goes into a message.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "…"
}
