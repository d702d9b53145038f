// SPDX-License-Identifier: Apache-2.0

package extproc

import (
	"encoding/json"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// message makes a message of Envoy from a byte; data is for what the byte leaves open. good says that it carries a key that is
// valid, for a request that may have a body.
func message(op byte, data []byte) (m *extprocv3.ProcessingRequest, good bool) {
	m = &extprocv3.ProcessingRequest{}
	mode := extprocfilterv3.ProcessingMode_BodySendMode(op >> 5)
	if mode < 7 {
		m.ProtocolConfig = &extprocv3.ProtocolConfiguration{RequestBodyMode: mode}
	}
	headers := func(end bool, lines ...string) {
		h := &extprocv3.HttpHeaders{EndOfStream: end, Headers: &corev3.HeaderMap{}}
		for i := 0; i < len(lines); i += 2 {
			h.Headers.Headers = append(h.Headers.Headers, &corev3.HeaderValue{Key: lines[i], RawValue: []byte(lines[i+1])})
		}
		m.Request = &extprocv3.ProcessingRequest_RequestHeaders{RequestHeaders: h}
	}
	body := func(end bool, b []byte) {
		m.Request = &extprocv3.ProcessingRequest_RequestBody{RequestBody: &extprocv3.HttpBody{EndOfStream: end, Body: b}}
	}
	const path = "/v1/chat/completions"
	switch op & 0x1F {
	case 0:
		headers(false, ":method", "POST", ":path", path, "authorization", "Bearer sk-good")
		return m, true
	case 1:
		headers(true, ":method", "GET", ":path", "/v1/models", "authorization", "Bearer sk-good")
	case 2:
		headers(false, ":method", "POST", ":path", path, "authorization", "Bearer sk-wrong")
	case 3:
		headers(false, ":method", "POST", ":path", path)
	case 4:
		headers(false, ":method", "POST", ":path", path, "authorization", string(data))
	case 5:
		headers(op>>5&1 == 1, ":method", "POST", ":path", string(data), "x-api-key", "sk-revoked")
	case 6:
		m.Request = &extprocv3.ProcessingRequest_RequestHeaders{} // with nothing in it
	case 7, 8:
		body(true, []byte(`{"model":"gpt-4o","stream":true}`))
	case 9:
		body(false, []byte(`{"model":"gpt-4o"}`))
	case 10:
		body(true, data)
	case 11:
		m.Request = &extprocv3.ProcessingRequest_RequestBody{}
	case 12:
		m.Request = &extprocv3.ProcessingRequest_RequestTrailers{}
	case 13:
		m.Request = &extprocv3.ProcessingRequest_ResponseHeaders{}
	case 14:
		m.Request = &extprocv3.ProcessingRequest_ResponseBody{ResponseBody: &extprocv3.HttpBody{Body: data}}
	case 15:
		m.Request = &extprocv3.ProcessingRequest_ResponseTrailers{}
	case 16:
		m.ObservabilityMode = true
	}
	return m, false
}

// FuzzStream holds for any messages in any order: no panic, at most one decision, and an admission only after headers with a key.
func FuzzStream(f *testing.F) {
	f.Add([]byte{0x40, 0x47}, []byte("x")) // buffered
	f.Add([]byte{0x40, 0x49}, []byte("x"))
	f.Add([]byte{0xE0, 0xE7}, []byte("x")) // mode unsaid
	f.Add([]byte{0x20, 0x27}, []byte("x")) // streamed
	f.Add([]byte{0x47, 0x40}, []byte("x"))
	f.Add([]byte{0x42, 0x47}, []byte("x"))
	f.Add([]byte{0x44, 0x4A}, []byte("Bearer sk-good"))
	f.Add([]byte{0x44, 0x4A}, []byte(`{"model":"gpt-4o"}`))
	f.Add([]byte{6, 11, 12, 13, 14, 15, 16, 17}, []byte(""))
	server := New(Options{Engine: testEngine(f)})
	f.Fuzz(func(t *testing.T, ops, data []byte) {
		x := session{server: server}
		authenticated := false
		for i, op := range ops {
			m, good := message(op, data)
			authenticated = authenticated || good && i == 0 || i == 0 && op&0x1F == 4 && string(data) == "Bearer sk-good"
			answer, done := x.step(m)
			if answer == nil {
				if !m.GetObservabilityMode() {
					t.Fatalf("message %d has no answer", i)
				}
				return
			}
			r := received(t, answer)
			switch v := r.GetResponse().(type) {
			case *extprocv3.ProcessingResponse_RequestHeaders:
				if done || v.RequestHeaders.GetResponse() != nil || !namesOnlyTheExchange(r.GetDynamicMetadata()) {
					t.Fatalf("message %d is answered with more than continue: %v", i, r)
				}
			case *extprocv3.ProcessingResponse_ImmediateResponse:
				if !done || r.GetDynamicMetadata() != nil || !json.Valid(v.ImmediateResponse.GetBody()) {
					t.Fatalf("message %d is refused, but not only: %v", i, r)
				}
			case *extprocv3.ProcessingResponse_RequestBody:
				if !done || !authenticated {
					t.Fatalf("message %d is admitted without a key, or goes on: %v", i, r)
				}
				if groups(r.GetDynamicMetadata()) == 0 {
					t.Fatalf("message %d is admitted without channels: %v", i, r)
				}
			default:
				t.Fatalf("message %d is answered with %v", i, r)
			}
			if done {
				return
			}
		}
	})
}

// groups returns the number of channels that the metadata names.
func groups(s *structpb.Struct) int {
	return len(s.GetFields()[Namespace].GetStructValue().GetFields()["priority_groups"].GetListValue().GetValues())
}
