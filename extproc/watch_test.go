// SPDX-License-Identifier: Apache-2.0

package extproc

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/weir-proxy/weir/policy"
)

// overseer is a judge and its watcher: it makes everything upper case, and ends the response at an exclamation mark.
type overseer struct {
	whole  bool
	denial *policy.Denial // of a body that is whole
	ruling policy.HeadRuling
	seen   []string // the calls
	closed chan struct{}
	tags   []policy.Tag
}

func (o *overseer) Tags() []policy.Tag { return o.tags }

func (o *overseer) Watches() bool { return true }

func (o *overseer) Abandon() {}
func (o *overseer) Request(*policy.Question) (*policy.Ruling, *policy.Denial) {
	return &policy.Ruling{Set: []policy.Header{{Name: "x-set", Value: "1"}}, Remove: []string{"x-gone"}}, nil
}
func (o *overseer) Watch(*policy.Question) policy.Watcher { return o }

func (o *overseer) Head(status int, headers []policy.Header) (*policy.HeadRuling, bool) {
	call := "head " + strconv.Itoa(status)
	for _, h := range headers {
		call += " " + h.Name + "=" + h.Value
	}
	o.seen = append(o.seen, call)
	return &o.ruling, o.whole
}

func (o *overseer) Body(chunk []byte, last bool) (out []byte, over bool, denial *policy.Denial) {
	o.seen = append(o.seen, "body "+string(chunk)+" "+strconv.FormatBool(last))
	text := strings.ToUpper(string(chunk))
	if text == string(chunk) {
		return chunk, false, o.denial
	}
	text, _, over = strings.Cut(text, "!")
	return []byte(text), over, o.denial
}

func (o *overseer) Close() {
	o.seen = append(o.seen, "close")
	if o.closed != nil {
		close(o.closed)
	}
}

// watching returns a session of an exchange that was admitted and is watched by o, and what its answers were.
func watching(t *testing.T, o *overseer) (*session, []*extprocv3.ProcessingResponse) {
	t.Helper()
	e := policy.New(policy.Options{
		Clock: func() time.Time { return noon }, Random: rand.NewPCG(1, 2), Judge: func(*policy.Tenant, *policy.Key) policy.Judge { return o },
	})
	e.SetSnapshot(testSnapshot(t))
	x := &session{server: New(Options{Engine: e})}
	headers, body := chat(t, "sk-good", []byte(`{"model":"gpt-4o","stream":true}`))
	var answers []*extprocv3.ProcessingResponse
	for _, m := range []*extprocv3.ProcessingRequest{headers, body} {
		answer, done := x.step(m)
		if done {
			t.Fatalf("the session is over after %v", answer)
		}
		answers = append(answers, answer)
	}
	return x, answers
}

func responseHeaders(end bool, lines ...string) *extprocv3.ProcessingRequest {
	h := &extprocv3.HttpHeaders{EndOfStream: end, Headers: &corev3.HeaderMap{}}
	for i := 0; i < len(lines); i += 2 {
		h.Headers.Headers = append(h.Headers.Headers, &corev3.HeaderValue{Key: lines[i], RawValue: []byte(lines[i+1])})
	}
	return &extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_ResponseHeaders{ResponseHeaders: h}}
}

func responseBody(chunk string, last bool) *extprocv3.ProcessingRequest {
	return &extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_ResponseBody{
		ResponseBody: &extprocv3.HttpBody{Body: []byte(chunk), EndOfStream: last},
	}}
}

// bodyOf says what an answer makes of a chunk.
func bodyOf(t *testing.T, r *extprocv3.ProcessingResponse) string {
	t.Helper()
	b := r.GetResponseBody()
	if b == nil {
		t.Fatalf("not an answer to a body: %v", r)
	}
	switch m := b.GetResponse().GetBodyMutation().GetMutation().(type) {
	case nil:
		return "as it was"
	case *extprocv3.BodyMutation_ClearBody:
		return "nothing"
	case *extprocv3.BodyMutation_Body:
		return string(m.Body)
	default:
		t.Fatalf("unexpected mutation %v", m)
		return ""
	}
}

func TestWatchedResponseComesChunkByChunk(t *testing.T) {
	t.Parallel()
	o := &overseer{ruling: policy.HeadRuling{Set: []policy.Header{{Name: "x-seen", Value: "yes"}}, Remove: []string{"x-secret"}}}
	x, answers := watching(t, o)
	if m := answers[0].GetModeOverride(); m.GetResponseBodyMode() != extprocfilterv3.ProcessingMode_STREAMED ||
		m.GetRequestBodyMode() != extprocfilterv3.ProcessingMode_BUFFERED || m.GetResponseHeaderMode() != extprocfilterv3.ProcessingMode_SEND {
		t.Errorf("mode %v", m)
	}
	request := answers[1].GetRequestBody().GetResponse().GetHeaderMutation()
	if diff := cmp.Diff(request.GetRemoveHeaders(), []string{"x-gone"}); diff != "" || !strings.Contains(request.String(), "x-set") {
		t.Errorf("headers of the request: %v", request)
	}
	head, done := x.step(responseHeaders(false, ":status", "200", "content-type", "text/event-stream"))
	if done {
		t.Fatal("over after the head")
	}
	mutation := head.GetResponseHeaders().GetResponse().GetHeaderMutation()
	if diff := cmp.Diff(mutation.GetRemoveHeaders(), []string{"x-secret", "content-length"}); diff != "" || mutation.GetSetHeaders()[0].GetHeader().GetKey() != "x-seen" {
		t.Errorf("headers of the response: %v", mutation)
	}
	var got []string
	for _, c := range []struct {
		chunk string
		last  bool
	}{{"abc", false}, {"ABC", false}, {"d!e", false}, {"after", false}, {"", true}} {
		answer, done := x.step(responseBody(c.chunk, c.last))
		if done != c.last {
			t.Errorf("%q: done %v", c.chunk, done)
		}
		got = append(got, bodyOf(t, answer))
	}
	x.close()
	x.close()
	if diff := cmp.Diff(got, []string{"ABC", "as it was", "D", "nothing", "as it was"}); diff != "" {
		t.Errorf("chunks: got, want: %s", diff)
	}
	want := []string{"head 200 content-type=text/event-stream", "body abc false", "body ABC false", "body d!e false", "close"}
	if diff := cmp.Diff(o.seen, want); diff != "" {
		t.Errorf("calls: got, want: %s", diff)
	}
}

func TestWholeBodyMayBeDeniedInsteadOfAnswered(t *testing.T) {
	t.Parallel()
	for _, denial := range []*policy.Denial{nil, {Status: 451, Code: "unfit", Type: "invalid_request_error", Message: "No."}} {
		o := &overseer{whole: true, denial: denial}
		x, _ := watching(t, o)
		head, _ := x.step(responseHeaders(false, ":status", "200", "content-type", "application/json"))
		if head.GetModeOverride().GetResponseBodyMode() != extprocfilterv3.ProcessingMode_BUFFERED || head.GetResponseHeaders().GetResponse().GetHeaderMutation() != nil {
			t.Errorf("answer to the head: %v", head)
		}
		answer, done := x.step(responseBody(`{"a":"b"}`, true))
		if !done {
			t.Error("goes on behind the last chunk")
		}
		if denial != nil {
			if i := answer.GetImmediateResponse(); i.GetStatus().GetCode() != 451 || i.GetDetails() != DetailsWithheld {
				t.Errorf("a denial is answered as %v", answer)
			}
			continue
		}
		if got, want := bodyOf(t, answer), `{"A":"B"}`; got != want {
			t.Errorf("body %s, want %s", got, want)
		}
		if h := answer.GetResponseBody().GetResponse().GetHeaderMutation().GetSetHeaders(); len(h) != 1 || string(h[0].GetHeader().GetRawValue()) != "9" {
			t.Errorf("content-length: %v", h)
		}
	}
}

func TestResponsesWithoutBodyOrWithTrailersEnd(t *testing.T) {
	t.Parallel()
	o := &overseer{}
	x, _ := watching(t, o)
	if _, done := x.step(responseHeaders(true, ":status", "204")); !done {
		t.Error("goes on behind a response without a body")
	}
	if diff := cmp.Diff(o.seen, []string{"head 204", "body  true"}); diff != "" {
		t.Error(diff)
	}
	o = &overseer{}
	x, _ = watching(t, o)
	x.step(responseHeaders(false, ":status", "200"))
	x.step(responseBody("a", false))
	answer, done := x.step(&extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_ResponseTrailers{}})
	if !done || answer.GetResponseTrailers() == nil {
		t.Errorf("trailers are answered with %v, done %v", answer, done)
	}
	if diff := cmp.Diff(o.seen, []string{"head 200", "body a false", "body  true"}); diff != "" {
		t.Error(diff)
	}
}

func TestDeniedHeadReplacesTheResponse(t *testing.T) {
	t.Parallel()
	for status, details := range map[string]string{"200": DetailsWithheld, "429": DetailsDenied} {
		o := &overseer{ruling: policy.HeadRuling{Denial: &policy.Denial{Status: 403, Code: "no", Message: "No."}}}
		x, _ := watching(t, o)
		answer, done := x.step(responseHeaders(false, ":status", status))
		if i := answer.GetImmediateResponse(); !done || i.GetStatus().GetCode() != 403 || i.GetDetails() != details {
			t.Errorf("in the place of a %s: %v", status, answer)
		}
	}
}

func TestWatcherIsClosedWhenTheClientLeaves(t *testing.T) {
	t.Parallel()
	o := &overseer{closed: make(chan struct{})}
	e := policy.New(policy.Options{Judge: func(*policy.Tenant, *policy.Key) policy.Judge { return o }})
	e.SetSnapshot(testSnapshot(t))
	client := serve(t, Options{Engine: e})
	headers, body := chat(t, "sk-good", []byte(`{"model":"gpt-4o","stream":true}`))
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	stream, err := client.Process(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*extprocv3.ProcessingRequest{headers, body, responseHeaders(false, ":status", "200"), responseBody("a", false)} {
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	leave()
	<-o.closed
}

func TestAddressIsTheOneThatEnvoySaw(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		sent    string
		trusted int
		want    string
	}{
		{"10.0.0.1", 0, "10.0.0.1"},
		{"6.6.6.6, 10.0.0.1", 0, "10.0.0.1"},
		{"spoofed,::1", 0, "::1"},
		{"", 0, ""},
		{"6.6.6.6, 203.0.113.9, 10.0.0.1", 1, "203.0.113.9"}, // of a client that wrote the first itself
		{"6.6.6.6,203.0.113.9,10.0.0.2,10.0.0.1", 2, "203.0.113.9"},
		{"203.0.113.9, 10.0.0.1", 1, "203.0.113.9"},
		{"10.0.0.1", 1, "10.0.0.1"}, // who comes past the proxy
		{"10.0.0.2, 10.0.0.1", 2, "10.0.0.1"},
		{"", 1, ""},
	} {
		h := responseHeaders(false, ":method", "POST", "x-forwarded-for", tt.sent, "x-team", "red").GetResponseHeaders()
		got := head(h, tt.trusted)
		if got.Address != tt.want {
			t.Errorf("%q behind %d: address %q, want %q", tt.sent, tt.trusted, got.Address, tt.want)
		}
		if diff := cmp.Diff(got.Headers, []policy.Header{{Name: "x-team", Value: "red"}}); diff != "" {
			t.Error(diff)
		}
	}
	h := responseHeaders(false, "x-forwarded-for", "6.6.6.6", "x-envoy-external-address", "203.0.113.9").GetResponseHeaders()
	if got := head(h, 0); got.Address != "203.0.113.9" || got.Headers != nil {
		t.Errorf("with Envoy's own word: %+v", got)
	}
}

func TestTagsOfAResponseGoToTheLogWhenTheyChange(t *testing.T) {
	t.Parallel()
	o := &overseer{}
	x, _ := watching(t, o)
	noted := func(r *extprocv3.ProcessingResponse) string {
		t.Helper()
		b, err := proto.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		got := &extprocv3.ProcessingResponse{}
		if err := proto.Unmarshal(b, got); err != nil {
			t.Fatal(err)
		}
		word := got.GetDynamicMetadata().GetFields()["weir"].GetStructValue().GetFields()["tags"].GetStringValue()
		tags, err := policy.ParseTags(word)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, tag := range tags {
			out = append(out, tag.Name+"="+tag.Value)
		}
		return strings.Join(out, " ")
	}
	step := func(m *extprocv3.ProcessingRequest) string {
		answer, _ := x.step(m)
		return noted(answer)
	}
	if got := step(responseHeaders(false, ":status", "200")); got != "" {
		t.Errorf("without tags: %q", got)
	}
	o.tags = []policy.Tag{{Name: "a", Value: "1"}}
	if got := step(responseBody("x", false)); got != "a=1" {
		t.Errorf("with the first: %q", got)
	}
	if got := step(responseBody("x", false)); got != "" {
		t.Errorf("unchanged: %q", got)
	}
	o.tags = []policy.Tag{{Name: "a", Value: "2"}, {Name: "b", Value: "3"}}
	if got := step(responseBody("", true)); got != "a=2 b=3" {
		t.Errorf("at the end: %q", got)
	}
}
