// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	otelv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	tracingv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// AccessLog is how an Envoy tells of the exchanges that ended.
type AccessLog string

// The ways. The lines are the same.
const (
	AccessLogFile AccessLog = "file" // it writes them to a file, which the processor reads
	AccessLogGRPC AccessLog = "grpc" // it sends them to the processor, which has a [LogServer]: for Envoys that share no disk with one
)

// Check says what is wrong with the value, if anything is.
func (a AccessLog) Check() error {
	if a != AccessLogFile && a != AccessLogGRPC {
		return fmt.Errorf("access log %q is neither %s nor %s", string(a), AccessLogFile, AccessLogGRPC)
	}
	return nil
}

// The lines of the access log. Package usage reads them; both sides are held together by the end-to-end tests. The operators are
// those of https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/observability/access_log/usage.
var (
	exchangeLine = map[string]string{
		"kind":       "exchange",
		"exchange":   "%DYNAMIC_METADATA(weir:exchange)%",
		"ticket":     "%DYNAMIC_METADATA(weir:ticket)%",
		"tags":       "%DYNAMIC_METADATA(weir:tags)%",
		"usage":      "%DYNAMIC_METADATA(weir.usage:last)%",
		"cluster":    "%UPSTREAM_CLUSTER%",
		"status":     "%RESPONSE_CODE%",
		"flags":      "%RESPONSE_FLAGS%",
		"details":    "%RESPONSE_CODE_DETAILS%",
		"attempts":   "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
		"rx":         "%BYTES_RECEIVED%",
		"tx":         "%BYTES_SENT%",
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

// traceKey is a further member of an exchange's line, where traces are made: see [Tracing].
const traceKey = "trace"

// traceValue is when the exchange began, in microseconds, and where it stands in a trace: once the request went out to a channel, below Envoy's own
// span, since that is what Envoy tells the channel.
const traceValue = "%START_TIME(%s%6f)% %REQ(TRACEPARENT):55%"

// exchangeLineOf is what the line of an exchange holds.
func exchangeLineOf(g Gateway) map[string]string {
	if !g.Tracing.Lines {
		return exchangeLine
	}
	line := maps.Clone(exchangeLine)
	line[traceKey] = traceValue
	return line
}

// isNumber reports whether Envoy's file has a number at a key of a line; what is sent by gRPC is text throughout.
func isNumber(key string) bool {
	switch key {
	case "status", "attempts", "rx", "tx", "duration", "first_byte":
		return true
	}
	return false
}

// known lets only exchanges through whose metadata has a member.
func known(member string) *accesslogv3.AccessLogFilter { return present("weir", member) }

// present lets only exchanges through whose metadata of a namespace has a member, which may be one within another.
func present(namespace string, path ...string) *accesslogv3.AccessLogFilter {
	var segments []*matcherv3.MetadataMatcher_PathSegment
	for _, key := range path {
		segments = append(segments, &matcherv3.MetadataMatcher_PathSegment{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: key}})
	}
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_MetadataFilter{
		MetadataFilter: &accesslogv3.MetadataFilter{
			Matcher: &matcherv3.MetadataMatcher{
				Filter: namespace,
				Path:   segments,
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

// accessLog makes the logger of one kind of lines.
func accessLog(g Gateway, line map[string]string, filter *accesslogv3.AccessLogFilter) (*accesslogv3.AccessLog, error) {
	name, config := "envoy.access_loggers.file", proto.Message(fileLog(g.LogFile, line))
	if g.AccessLog == AccessLogGRPC {
		name, config = "envoy.access_loggers.open_telemetry", grpcLog(line)
	}
	packed, err := anypb.New(config)
	return &accesslogv3.AccessLog{Name: name, Filter: filter, ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: packed}}, err
}

func fileLog(path string, line map[string]string) *filelogv3.FileAccessLog {
	fields := make(map[string]*structpb.Value, len(line))
	for k, v := range line {
		fields[k] = structpb.NewStringValue(v)
	}
	return &filelogv3.FileAccessLog{
		Path: path,
		AccessLogFormat: &filelogv3.FileAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{
			Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: &structpb.Struct{Fields: fields}},
		}},
	}
}

const (
	// sendEvery and sendBytes say when a message is sent. Envoy 1.40 knows no other values, whatever it is told, unless by fields that it is
	// about to drop. It repeats a message that it could not deliver only if that has no more than 64 KiB.
	sendEvery = time.Second
	sendBytes = 16 << 10
	// sendRetries last for months.
	sendRetries = 1_000_000
	// A message that cannot be delivered is sent again after sendAgain at the first time and sendAgainMost at the last; the longer one is
	// also how long Envoy waits for one answer.
	sendAgain, sendAgainMost = 250 * time.Millisecond, 15 * time.Second
	// sendAgainOn are the failures of which it is certain that nothing of the message was written: no connection, a stream that the
	// processor did not look at, and its own word. Whatever else goes wrong, the message is given up: exchanges that have no line get an
	// estimate in the end, and those that have two would be paid twice.
	sendAgainOn = "connect-failure,refused-stream,unavailable"
)

// grpcLog sends lines by OTLP, field by field: each attribute of a log record is made by the same operator as the field of a line in a
// file. It is OTLP and not Envoy's own protocol (ALS) because each message is answered here, and sent again when there was nobody to answer: see the
// decision send-lines-by-otlp in docs/adr.
func grpcLog(line map[string]string) *otelv3.OpenTelemetryAccessLogConfig {
	var tags []*tracingv3.CustomTag
	for _, k := range slices.Sorted(maps.Keys(line)) {
		t := &tracingv3.CustomTag{Tag: k, Type: &tracingv3.CustomTag_Value{Value: line[k]}}
		if !strings.Contains(line[k], "%") {
			t.Type = &tracingv3.CustomTag_Literal_{Literal: &tracingv3.CustomTag_Literal{Value: line[k]}}
		}
		tags = append(tags, t)
	}
	return &otelv3.OpenTelemetryAccessLogConfig{
		LogName: line["kind"],
		GrpcService: &corev3.GrpcService{
			TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
				ClusterName: processorCluster, SkipEnvoyHeaders: true,
			}},
			Timeout: durationpb.New(0), // with all of its repetitions: none
			RetryPolicy: &corev3.RetryPolicy{
				RetryOn:    sendAgainOn,
				NumRetries: wrapperspb.UInt32(sendRetries),
				RetryBackOff: &corev3.BackoffStrategy{
					BaseInterval: durationpb.New(sendAgain), MaxInterval: durationpb.New(sendAgainMost),
				},
			},
		},
		BufferFlushInterval:  durationpb.New(sendEvery),
		BufferSizeBytes:      wrapperspb.UInt32(sendBytes),
		DisableBuiltinLabels: true,
		CustomTags:           tags,
	}
}
