// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"net/http"
	"strconv"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weir-proxy/weir/policy"
)

// Details of the processor's immediate responses begin with this, which tells them from Envoy's own replies.
const ourDetails = "weir_"

// localReplies are what Envoy says by itself, in words that an OpenAI client understands. The first whose condition holds is
// taken. response.code_details are those of
// https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/http/http_conn_man/response_code_details.
var localReplies = []struct {
	when   string        // a CEL expression over the response
	denial policy.Denial // its status is set where it is another than Envoy's own
}{
	{`response.code == 503 && response.code_details.contains("overload")`, *policy.Overloaded()}, // first: it has to be cheap
	{`(response.code == 503 || response.code == 504) && response.code_details.contains("ext_proc")`, policy.Denial{ // 504: it is late
		Status: http.StatusServiceUnavailable, Type: "server_error", Code: "processor_unavailable", Message: "The gateway cannot decide on requests at the moment. Try again.",
	}},
	{`response.code == 503 && (response.code_details == "no_healthy_upstream" || response.code_details == "cluster_not_found")`, policy.Denial{
		Type: "server_error", Code: "no_channel", Message: "No channel can take this request at the moment. Try again later.",
	}},
	{`response.code == 503 && response.code_details.startsWith("upstream_reset")`, policy.Denial{
		Type: "server_error", Code: "upstream_unavailable", Message: "The provider could not be reached or closed the connection. Try again.",
	}},
	{`response.code == 504`, policy.Denial{
		Type: "server_error", Code: "upstream_timeout", Message: "The provider did not answer in time.",
	}},
	{`response.code == 408`, policy.Denial{
		Type: "invalid_request_error", Code: "request_timeout", Message: "The request did not arrive in time.",
	}},
	{`response.code == 413`, policy.Denial{
		Type: "invalid_request_error", Code: "request_too_large", Message: "The request body is larger than this gateway accepts.",
	}},
	{`response.code == 431`, policy.Denial{
		Type: "invalid_request_error", Code: "headers_too_large", Message: "The request headers are larger than this gateway accepts.",
	}},
	{`response.code >= 500`, policy.Denial{
		Type: "server_error", Code: "internal_error", Message: "The gateway could not handle this request.",
	}},
	{`response.code >= 400`, policy.Denial{
		Type: "invalid_request_error", Code: "bad_request", Message: "The request is not valid HTTP, or asks for what this gateway does not do.",
	}},
}

// unseenID is the id of an exchange that no filter has seen which could give it one: a UUID of version 7 in form, made of the time when the request began, down to the
// microsecond. Nothing else is known of such an exchange. Envoy's own ids are of version 4.
const unseenID = "%START_TIME(00%y%m%d-%H%M-70%S-8%3f-000%9f)%"

// localReplyConfig leaves the processor's answers alone and gives Envoy's own the shape of an OpenAI error.
func localReplyConfig() (*hcmv3.LocalReplyConfig, error) {
	ours, err := mapper(fmt.Sprintf(`response.code_details.startsWith(%q)`, ourDetails), "")
	if err != nil {
		return nil, err
	}
	out := &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{ours}}
	for _, r := range localReplies {
		m, err := mapper(r.when, string(r.denial.Body()))
		if err != nil {
			return nil, err
		}
		if r.denial.RetryAfter > 0 {
			m.HeadersToAdd = []*corev3.HeaderValueOption{
				header("retry-after", strconv.Itoa(int(r.denial.RetryAfter.Seconds()))),
				header("x-weir-exchange-id", unseenID),
			}
		}
		if r.denial.Status != 0 {
			m.StatusCode = wrapperspb.UInt32(uint32(r.denial.Status)) //nolint:gosec // a constant of three digits
		}
		out.Mappers = append(out.Mappers, m)
	}
	return out, nil
}

// mapper replaces the body of the replies that a CEL expression selects; an empty body keeps theirs.
func mapper(when, body string) (*hcmv3.ResponseMapper, error) {
	filter, err := anypb.New(&celv3.ExpressionFilter{Expression: when})
	if err != nil {
		return nil, err
	}
	m := &hcmv3.ResponseMapper{
		Filter: &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{
			ExtensionFilter: &accesslogv3.ExtensionFilter{
				Name:       "envoy.access_loggers.extension_filters.cel",
				ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{TypedConfig: filter},
			},
		}},
		BodyFormatOverride: &corev3.SubstitutionFormatString{
			ContentType: "application/json",
			Format: &corev3.SubstitutionFormatString_TextFormatSource{
				TextFormatSource: inline("%LOCAL_REPLY_BODY%"),
			},
		},
	}
	if body != "" {
		m.Body = inline(body)
	}
	return m, nil
}
