// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The lines of the access log. Package usage reads them; both sides are held together by the end-to-end tests. The operators are
// those of https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/observability/access_log/usage.
var (
	exchangeLine = map[string]string{
		"kind":       "exchange",
		"exchange":   "%DYNAMIC_METADATA(weir:exchange)%",
		"ticket":     "%DYNAMIC_METADATA(weir:ticket)%",
		"usage":      "%DYNAMIC_METADATA(weir.usage:last)%",
		"cluster":    "%UPSTREAM_CLUSTER%",
		"status":     "%RESPONSE_CODE%",
		"flags":      "%RESPONSE_FLAGS%",
		"details":    "%RESPONSE_CODE_DETAILS%",
		"attempts":   "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
		"rx":         "%BYTES_RECEIVED%",
		"tx":         "%BYTES_SENT%",
		"start":      "%START_TIME(%s.%6f)%",
		"duration":   "%DURATION%",
		"first_byte": "%RESPONSE_DURATION%",
		"log_type":   "%ACCESS_LOG_TYPE%",
	}
	// Of an attempt Envoy knows its own times and flags, the headers, and nothing else: no metadata of the exchange, nor how many attempts
	// there were before. The exchange's id is in a header that the processor set.
	attemptLine = map[string]string{
		"kind":        "attempt",
		"exchange":    "%REQ(X-CLIENT-REQUEST-ID)%",
		"cluster":     "%UPSTREAM_CLUSTER%",
		"status":      "%RESPONSE_CODE%",
		"flags":       "%RESPONSE_FLAGS%",
		"retry_after": "%RESP(RETRY-AFTER)%",
		"duration":    "%DURATION%",
	}
)

// known lets only exchanges through whose metadata has a member.
func known(member string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_MetadataFilter{
		MetadataFilter: &accesslogv3.MetadataFilter{
			Matcher: &matcherv3.MetadataMatcher{
				Filter: "weir",
				Path:   []*matcherv3.MetadataMatcher_PathSegment{{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: member}}},
				Value:  &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_PresentMatch{PresentMatch: true}},
			},
			MatchIfKeyNotFound: wrapperspb.Bool(false),
		},
	}}
}

// admitted lets only exchanges through that carry a ticket: a refusal is no row.
func admitted() *accesslogv3.AccessLogFilter { return known("ticket") }

// ended lets also those exchanges through whose decision may have been made, and did not reach Envoy: because the client left (status 0),
// or because the processor died. The processor has noted them as admitted, and learns from the line that they are not.
func ended() *accesslogv3.AccessLogFilter {
	return anyOf(admitted(), allOf(known("exchange"), anyOf(
		statusCode(accesslogv3.ComparisonFilter_EQ, 0, "weir.exchange.log_status"),
		statusCode(accesslogv3.ComparisonFilter_GE, 500, "weir.exchange.log_from_status"),
	)))
}

func statusCode(op accesslogv3.ComparisonFilter_Op, value uint32, key string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{
		StatusCodeFilter: &accesslogv3.StatusCodeFilter{
			Comparison: &accesslogv3.ComparisonFilter{Op: op, Value: &corev3.RuntimeUInt32{DefaultValue: value, RuntimeKey: key}},
		},
	}}
}

func anyOf(filters ...*accesslogv3.AccessLogFilter) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_OrFilter{OrFilter: &accesslogv3.OrFilter{Filters: filters}}}
}

func allOf(filters ...*accesslogv3.AccessLogFilter) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{AndFilter: &accesslogv3.AndFilter{Filters: filters}}}
}

// failed lets only attempts through that a channel's health should know of. What was not admitted is not attempted.
func failed() *accesslogv3.AccessLogFilter {
	return anyOf(
		statusCode(accesslogv3.ComparisonFilter_GE, 400, "weir.attempt.log_from_status"),
		&accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{}}},
	)
}

func fileLog(path string, line map[string]string, filter *accesslogv3.AccessLogFilter) (*accesslogv3.AccessLog, error) {
	fields := make(map[string]*structpb.Value, len(line))
	for k, v := range line {
		fields[k] = structpb.NewStringValue(v)
	}
	config, err := anypb.New(&filelogv3.FileAccessLog{
		Path: path,
		AccessLogFormat: &filelogv3.FileAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{
			Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: &structpb.Struct{Fields: fields}},
		}},
	})
	return &accesslogv3.AccessLog{
		Name:       "envoy.access_loggers.file",
		Filter:     filter,
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: config},
	}, err
}
