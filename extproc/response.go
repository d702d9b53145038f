// SPDX-License-Identifier: Apache-2.0

package extproc

import (
	"strconv"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/uuid"

	"github.com/weir-proxy/weir/policy"
)

// Response code details by which Envoy's access log and local_reply_config tell the answers made here from Envoy's own.
const (
	DetailsDenied = "weir_denied" // refused
	DetailsReply  = "weir_reply"  // answered by the gateway itself, as GET /v1/models is

	// DetailsWithheld is of a refusal that takes the place of a provider's good answer: what that has cost is owed all the same. Package usage reads it.
	DetailsWithheld = "weir_withheld"
)

// continuing is the part of the answer to headers that all share; it is never changed.
var continuing = &extprocv3.ProcessingResponse_RequestHeaders{RequestHeaders: &extprocv3.HeadersResponse{}}

// continueResponse lets Envoy go on to the body. From here on Envoy's log names the exchange, also if no decision ever reaches Envoy because
// the client or the processor is gone: a line that has the exchange and no ticket tells that it went to no channel.
//
// Only here can Envoy be told to bring the response of a watched exchange too.
func continueResponse(id uuid.UUID, watched bool) *extprocv3.ProcessingResponse {
	r := &extprocv3.ProcessingResponse{Response: continuing}
	if watched {
		r.ModeOverride = watchMode
	}
	r.ProtoReflect().SetUnknown(exchangeMetadata(id))
	return r
}

func denialResponse(id string, d *policy.Denial, details string) *extprocv3.ProcessingResponse {
	if d.Reply != nil {
		r := immediate(d.Reply.Status, id, d.Reply.Body, details)
		for _, h := range d.Reply.Headers { // a later one takes the place of an earlier one of its name
			r.Headers.SetHeaders = append(r.Headers.SetHeaders, setHeader(h.Name, h.Value))
		}
		return &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ImmediateResponse{ImmediateResponse: r}}
	}
	r := immediate(d.Status, id, d.Body(), details)
	if d.RetryAfter > 0 {
		seconds := (d.RetryAfter + time.Second - 1) / time.Second
		r.Headers.SetHeaders = append(r.Headers.SetHeaders, setHeader("retry-after", strconv.FormatInt(int64(seconds), 10)))
	}
	for _, h := range d.Headers {
		r.Headers.SetHeaders = append(r.Headers.SetHeaders, setHeader(h.Name, h.Value))
	}
	if d.Allow != "" {
		r.Headers.SetHeaders = append(r.Headers.SetHeaders, setHeader("allow", d.Allow))
	}
	return &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ImmediateResponse{ImmediateResponse: r}}
}

func replyResponse(id string, reply *policy.Reply) *extprocv3.ProcessingResponse {
	r := immediate(reply.Status, id, reply.Body, DetailsReply)
	return &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ImmediateResponse{ImmediateResponse: r}}
}

func immediate(status int, id string, body []byte, details string) *extprocv3.ImmediateResponse {
	headers := []*corev3.HeaderValueOption{setHeader("content-type", "application/json")}
	if id != "" {
		headers = append(headers, setHeader("x-weir-exchange-id", id))
	}
	return &extprocv3.ImmediateResponse{
		Status:  &typev3.HttpStatus{Code: typev3.StatusCode(status)},
		Headers: &extprocv3.HeaderMutation{SetHeaders: headers},
		Body:    body,
		Details: details,
	}
}

// admissionResponse routes a request: the metadata names the channels, the headers bound the attempts. The answer comes to the
// body, so that its headers count only in Envoy's BUFFERED mode. An Envoy whose route takes its cluster from a header is given that last: no policy has a say in it.
func admissionResponse(a *policy.Admission, r route) *extprocv3.ProcessingResponse {
	headers := []*corev3.HeaderValueOption{
		setHeader("x-envoy-max-retries", strconv.Itoa(r.attempts(len(a.Choices))-1)),
		setHeader("x-envoy-upstream-rq-per-try-timeout-ms", strconv.FormatInt(a.FirstByteTimeout.Milliseconds(), 10)),
		setHeader("x-client-request-id", a.Exchange.String()),
	}
	common := &extprocv3.CommonResponse{ClearRouteCache: true}
	if a.Body != nil {
		headers = append(headers, setHeader("content-length", strconv.Itoa(len(a.Body))))
		common.BodyMutation = &extprocv3.BodyMutation{Mutation: &extprocv3.BodyMutation_Body{Body: a.Body}}
	}
	for _, h := range a.Set {
		headers = append(headers, setHeader(h.Name, h.Value))
	}
	if r != byGroups {
		headers = append(headers, setHeader(ChannelHeader, clusterName(a.Choices[0].Channel)))
	}
	common.HeaderMutation = &extprocv3.HeaderMutation{SetHeaders: headers, RemoveHeaders: a.Remove}
	answer := &extprocv3.ProcessingResponse{
		Response: &extprocv3.ProcessingResponse_RequestBody{RequestBody: &extprocv3.BodyResponse{Response: common}},
	}
	answer.ProtoReflect().SetUnknown(admissionMetadata(a, r))
	return answer
}

func setHeader(key, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: key, RawValue: []byte(value)},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}
