// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// told is a message as Envoy sends it, with a word wherever a client's may stand.
func told(word string) *collectortrace.ExportTraceServiceRequest {
	pair := func(key string) *commonpb.KeyValue {
		return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: word}}}
	}
	return &collectortrace.ExportTraceServiceRequest{ResourceSpans: []*tracepb.ResourceSpans{{
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{pair("service.name")}},
		ScopeSpans: []*tracepb.ScopeSpans{{
			Scope: &commonpb.InstrumentationScope{Name: "envoy", Version: word},
			Spans: []*tracepb.Span{{
				TraceId: []byte("\xff\xfe0123456789abcd"), SpanId: []byte("\xff1234567"), TraceState: word, Name: word, Kind: tracepb.Span_SPAN_KIND_SERVER,
				StartTimeUnixNano: 1, EndTimeUnixNano: 2, Attributes: []*commonpb.KeyValue{pair("user_agent"), pair(word)},
				Status: &tracepb.Status{Message: word, Code: tracepb.Status_STATUS_CODE_ERROR},
			}},
		}},
	}}}
}

// holder stands for what a client writes; in bytes it is replaced by as many that are not UTF-8.
const holder = "~~~"

func TestATextThatIsNotUTF8SpoilsNothingElse(t *testing.T) {
	b, err := proto.Marshal(told("a" + holder + "b"))
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.ReplaceAll(b, []byte(holder), []byte("\xff\xfe\xfd"))
	var got collectortrace.ExportTraceServiceRequest
	if proto.Unmarshal(b, &got) == nil {
		t.Fatal("the message is fine as it is")
	}
	mended, err := mend(b, request)
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(mended, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&got, told("a\uFFFDb"), protocmp.Transform()); diff != "" {
		t.Errorf("got -, want +:\n%s", diff)
	}
	m, err := decode(b)
	if err != nil || !strings.Contains(m.String(), "user_agent") {
		t.Errorf("decoded: %v, %v", m, err)
	}
}

func FuzzMend(f *testing.F) {
	for _, word := range []string{"", "word", holder} {
		b, err := proto.Marshal(told(word))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(bytes.ReplaceAll(b, []byte(holder), []byte("\xff\xfe\xfd")))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var before collectortrace.ExportTraceServiceRequest
		fine := proto.Unmarshal(b, &before) == nil
		mended, err := mend(b, request)
		if err != nil {
			if fine {
				t.Fatalf("a message that is fine is refused: %v", err)
			}
			return
		}
		if !fine {
			return
		}
		var after collectortrace.ExportTraceServiceRequest
		if err := proto.Unmarshal(mended, &after); err != nil || !proto.Equal(&before, &after) {
			t.Fatalf("a message that was fine is changed: %v", err)
		}
	})
}
