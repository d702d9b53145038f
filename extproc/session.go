// SPDX-License-Identifier: Apache-2.0

package extproc

import (
	"fmt"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"

	"github.com/weir-proxy/weir/policy"
)

// session is one stream: one request of a client.
//
//	new ──headers──▶ waiting ──body──▶ over
//	 └──── refused, answered ──────────▶
//	                    └─▶ watching ──▶    if a policy wants to see the response
type session struct {
	server   *Server
	exchange *policy.Exchange // nil until the headers have come
	near     bool             // Envoy's clock is ours, and the shedder is to be asked
	route    route            // how Envoy learns of the channels
	waiting  bool             // for the body
	watch    *watch           // nil unless the response comes here too
	buffered bool             // Envoy has said that it collects the body and sends it in one message
	code     string           // of the refusal, for the log; empty otherwise
	fault    string           // what is wrong with Envoy's configuration, for the log; empty otherwise
	err      error            // why an admission was not noted, for the log
}

// step takes one message of Envoy and returns the answer, and whether the session is over; then it must not be called again.
// It does no input or output, but for what [Options].Admitted does. A nil answer is none at all.
func (x *session) step(m *extprocv3.ProcessingRequest) (answer *extprocv3.ProcessingResponse, done bool) {
	if m.GetObservabilityMode() {
		return nil, true // Envoy reads no answers: there is nothing to decide
	}
	if x.watch != nil {
		return x.watch.step(x, m)
	}
	switch r := m.GetRequest().(type) {
	case *extprocv3.ProcessingRequest_RequestHeaders:
		if x.exchange != nil {
			break
		}
		return x.begin(r.RequestHeaders, m.GetProtocolConfig())
	case *extprocv3.ProcessingRequest_RequestBody:
		if !x.waiting {
			break
		}
		// A buffered body is whole even if it is not the end of the stream: then trailers follow.
		if r.RequestBody.GetEndOfStream() || x.buffered {
			return x.admit(r.RequestBody.GetBody())
		}
	case *extprocv3.ProcessingRequest_RequestTrailers:
		if x.waiting { // and so the body had no bytes
			return x.admit(nil)
		}
	}
	return x.misconfigured(fmt.Sprintf("unexpected message %T", m.GetRequest())), true
}

// begin decides by the headers, if that is possible.
func (x *session) begin(h *extprocv3.HttpHeaders, c *extprocv3.ProtocolConfiguration) (answer *extprocv3.ProcessingResponse, done bool) {
	if x.near && x.late(h) {
		return x.refuse(policy.Overloaded()), true
	}
	exchange, reply, denial := x.server.engine.Begin(head(h, x.server.trustedHops))
	x.exchange = exchange
	switch {
	case denial != nil:
		return x.refuse(denial), true
	case reply != nil:
		x.server.metrics.answered.Inc()
		return replyResponse(x.id(), reply), true
	}
	// Only with a buffered body does the router wait for the decision and do changes of headers count. Envoys that do not say
	// how they are configured are believed.
	mode := c.GetRequestBodyMode()
	x.buffered = mode == extprocfilterv3.ProcessingMode_BUFFERED
	if c != nil && !x.buffered {
		return x.misconfigured("request_body_mode is " + mode.String() + ", not BUFFERED"), true
	}
	x.waiting = true
	return continueResponse(exchange.ID, exchange.Watched()), false
}

// admit decides by the body.
func (x *session) admit(body []byte) (answer *extprocv3.ProcessingResponse, done bool) {
	x.waiting = false
	admission, denial := x.exchange.Admit(body)
	if denial != nil {
		return x.refuse(denial), true
	}
	if admission.Watch != nil {
		x.watch = &watch{watcher: admission.Watch} // from here on it has to be closed
	}
	answer = admissionResponse(admission, x.route)
	if x.err = x.server.admitted(admission, len(body)); x.err != nil {
		x.server.engine.Cancel(admission.Exchange)
		return x.refuse(policy.Unavailable()), true
	}
	x.server.metrics.admitted.Inc()
	return answer, x.watch == nil
}

// close ends the session, however far it has come.
func (x *session) close() {
	if x.watch != nil {
		x.watch.watcher.Close()
		x.watch = nil
	}
}

// misconfigured refuses a request that Envoy does not bring as this package needs it.
func (x *session) misconfigured(fault string) *extprocv3.ProcessingResponse {
	x.fault = fault
	x.server.metrics.misconfigured.Inc()
	if x.exchange == nil {
		x.exchange, _, _ = x.server.engine.Begin(&policy.Head{}) // for its id: without a key it goes no further
	}
	return x.refuse(policy.Internal())
}

func (x *session) refuse(d *policy.Denial) *extprocv3.ProcessingResponse {
	details := DetailsDenied
	if x.watch != nil && x.watch.answered {
		details = DetailsWithheld
	}
	x.waiting = false
	x.code = d.Code
	x.server.metrics.refused.count(d.Code)
	return denialResponse(x.id(), d, details)
}

// id returns the exchange's id; empty when not even headers have come.
func (x *session) id() string {
	if x.exchange == nil {
		return ""
	}
	return x.exchange.ID.String()
}

// externalHeader is the client's address, as Envoy has found it. Envoys that are configured by others may not have it.
const externalHeader = "x-envoy-external-address"

// addressHeader ends with the address that Envoy saw somebody connect from: the client, or the last of the proxies that are trusted. Each of those has
// put the address before it there. What stands before that is the client's word.
const addressHeader = "x-forwarded-for"

// clientAddress returns the address that the first of so many trusted proxies saw. Where there are fewer addresses somebody has come past the proxies, and what
// Envoy saw itself is all that can be believed.
func clientAddress(forwarded string, trusted int) string {
	rest := forwarded
	for ; trusted > 0; trusted-- {
		at := strings.LastIndexByte(rest, ',')
		if at < 0 {
			rest = forwarded
			break
		}
		rest = rest[:at]
	}
	return strings.TrimSpace(rest[strings.LastIndexByte(rest, ',')+1:])
}

// head picks what the engine reads from the headers. Envoy has lower-cased their names.
func head(h *extprocv3.HttpHeaders, trusted int) *policy.Head {
	out := &policy.Head{EndOfStream: h.GetEndOfStream()}
	var external, forwarded string
	for _, v := range h.GetHeaders().GetHeaders() {
		var to *string
		switch v.GetKey() {
		case externalHeader:
			to = &external
		case addressHeader:
			to = &forwarded
		case ":method":
			to = &out.Method
		case ":path":
			to = &out.Path
		case "authorization":
			to = &out.Authorization
		case "api-key":
			to = &out.APIKey
		case "x-api-key":
			to = &out.XAPIKey
		case "content-encoding":
			to = &out.ContentEncoding
		case "content-length":
			to = &out.ContentLength
		case "content-type", "transfer-encoding", ReceivedHeader:
			continue
		default:
			out.Headers = append(out.Headers, policy.Header{Name: v.GetKey(), Value: value(v)})
			continue
		}
		if *to != "" { // a header on several lines
			*to += ","
		}
		*to += value(v)
	}
	if out.Address = external; external == "" {
		out.Address = clientAddress(forwarded, trusted)
	}
	return out
}

// late says whether a request has waited too long to be decided on.
func (x *session) late(h *extprocv3.HttpHeaders) bool {
	x.server.heard()
	waited, known, refuse := x.server.shedder.Refuse(receivedAt(h), x.server.clock())
	if known {
		x.server.metrics.wait.Observe(waited.Seconds())
	}
	return refuse
}

// receivedAt returns when Envoy received a request, in its words.
func receivedAt(h *extprocv3.HttpHeaders) string {
	for _, v := range slices.Backward(h.GetHeaders().GetHeaders()) { // it was added last
		if v.GetKey() == ReceivedHeader {
			return value(v)
		}
	}
	return ""
}

// value returns the value of a header, which Envoy sends in one of two fields, by its configuration.
func value(v *corev3.HeaderValue) string {
	if raw := v.GetRawValue(); len(raw) > 0 {
		return string(raw)
	}
	return v.GetValue()
}
