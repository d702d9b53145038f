// SPDX-License-Identifier: Apache-2.0

package extproc

import (
	"fmt"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"

	"github.com/weir-proxy/weir/policy"
)

// watch is a response on its way through the processor.
type watch struct {
	watcher  policy.Watcher
	answered bool   // by a provider, and well
	over     bool   // the client gets nothing more
	whole    bool   // the body comes in one piece, and the head waits for it
	tags     string // that Envoy was told of last
}

// watchMode has Envoy bring the response too, chunk by chunk. It repeats what Envoy's configuration says of the request, since it stands in the place
// of all of it.
var watchMode = &extprocfilterv3.ProcessingMode{
	RequestHeaderMode:   extprocfilterv3.ProcessingMode_SEND,
	RequestBodyMode:     extprocfilterv3.ProcessingMode_BUFFERED,
	RequestTrailerMode:  extprocfilterv3.ProcessingMode_SKIP,
	ResponseHeaderMode:  extprocfilterv3.ProcessingMode_SEND,
	ResponseBodyMode:    extprocfilterv3.ProcessingMode_STREAMED,
	ResponseTrailerMode: extprocfilterv3.ProcessingMode_SEND,
}

// wholeMode is the same for a body that must be known before the head goes out.
var wholeMode = &extprocfilterv3.ProcessingMode{
	RequestHeaderMode:   extprocfilterv3.ProcessingMode_SEND,
	RequestBodyMode:     extprocfilterv3.ProcessingMode_BUFFERED,
	RequestTrailerMode:  extprocfilterv3.ProcessingMode_SKIP,
	ResponseHeaderMode:  extprocfilterv3.ProcessingMode_SEND,
	ResponseBodyMode:    extprocfilterv3.ProcessingMode_BUFFERED,
	ResponseTrailerMode: extprocfilterv3.ProcessingMode_SEND,
}

// step takes one message about the response. Whatever is answered, Envoy's log gets the tags that are known by then.
func (w *watch) step(x *session, m *extprocv3.ProcessingRequest) (answer *extprocv3.ProcessingResponse, done bool) {
	answer, done = w.decide(x, m)
	if tags := w.watcher.Tags(); len(tags) > 0 {
		if word := policy.EncodeTags(tags); word != w.tags {
			w.tags = word
			answer.ProtoReflect().SetUnknown(tagMetadata(word))
		}
	}
	return answer, done
}

func (w *watch) decide(x *session, m *extprocv3.ProcessingRequest) (answer *extprocv3.ProcessingResponse, done bool) {
	switch r := m.GetRequest().(type) {
	case *extprocv3.ProcessingRequest_ResponseHeaders:
		return w.head(x, r.ResponseHeaders)
	case *extprocv3.ProcessingRequest_ResponseBody:
		return w.body(x, r.ResponseBody)
	case *extprocv3.ProcessingRequest_ResponseTrailers:
		if !w.over {
			_, _, _ = w.watcher.Body(nil, true) // nothing can be added to a body once the trailers are there
		}
		return &extprocv3.ProcessingResponse{
			Response: &extprocv3.ProcessingResponse_ResponseTrailers{ResponseTrailers: &extprocv3.TrailersResponse{}},
		}, true
	}
	return x.misconfigured(fmt.Sprintf("unexpected message %T", m.GetRequest())), true
}

func (w *watch) head(x *session, h *extprocv3.HttpHeaders) (answer *extprocv3.ProcessingResponse, done bool) {
	status, headers := responseHead(h)
	w.answered = status >= 200 && status < 300
	ruling, whole := w.watcher.Head(status, headers)
	if ruling == nil {
		ruling = &policy.HeadRuling{}
	}
	if ruling.Denial != nil {
		return x.refuse(ruling.Denial), true
	}
	common := &extprocv3.CommonResponse{HeaderMutation: mutation(ruling.Set, ruling.Remove)}
	r := &extprocv3.ProcessingResponse{
		Response: &extprocv3.ProcessingResponse_ResponseHeaders{ResponseHeaders: &extprocv3.HeadersResponse{Response: common}},
	}
	if h.GetEndOfStream() {
		_, _, _ = w.watcher.Body(nil, true)
		return r, true
	}
	if w.whole = whole; whole {
		r.ModeOverride = wholeMode
		return r, false
	}
	// The body may become longer or shorter as it passes.
	if common.HeaderMutation == nil {
		common.HeaderMutation = &extprocv3.HeaderMutation{}
	}
	common.HeaderMutation.RemoveHeaders = append(common.HeaderMutation.RemoveHeaders, "content-length")
	return r, false
}

func (w *watch) body(x *session, b *extprocv3.HttpBody) (answer *extprocv3.ProcessingResponse, done bool) {
	chunk, last := b.GetBody(), b.GetEndOfStream()
	var out []byte
	if !w.over {
		var denial *policy.Denial
		out, w.over, denial = w.watcher.Body(chunk, last || w.whole)
		if denial != nil && w.whole {
			return x.refuse(denial), true
		}
	}
	common := &extprocv3.CommonResponse{}
	switch {
	case same(out, chunk):
	case len(out) == 0:
		common.BodyMutation = &extprocv3.BodyMutation{Mutation: &extprocv3.BodyMutation_ClearBody{ClearBody: true}}
	default:
		common.BodyMutation = &extprocv3.BodyMutation{Mutation: &extprocv3.BodyMutation_Body{Body: out}}
	}
	if w.whole && common.BodyMutation != nil {
		common.HeaderMutation = mutation([]policy.Header{{Name: "content-length", Value: strconv.Itoa(len(out))}}, nil)
	}
	return &extprocv3.ProcessingResponse{
		Response: &extprocv3.ProcessingResponse_ResponseBody{ResponseBody: &extprocv3.BodyResponse{Response: common}},
	}, last
}

// same reports whether out is chunk itself, or as empty.
func same(out, chunk []byte) bool {
	return len(out) == len(chunk) && (len(out) == 0 || &out[0] == &chunk[0])
}

// responseHead returns the status and the other headers of a response.
func responseHead(h *extprocv3.HttpHeaders) (status int, headers []policy.Header) {
	for _, v := range h.GetHeaders().GetHeaders() {
		if v.GetKey() == ":status" {
			status, _ = strconv.Atoi(value(v)) // Envoy has parsed it
			continue
		}
		headers = append(headers, policy.Header{Name: v.GetKey(), Value: value(v)})
	}
	return status, headers
}

// mutation sets and removes headers; nil if there is nothing to do.
func mutation(set []policy.Header, remove []string) *extprocv3.HeaderMutation {
	if len(set)+len(remove) == 0 {
		return nil
	}
	m := &extprocv3.HeaderMutation{SetHeaders: make([]*corev3.HeaderValueOption, 0, len(set)), RemoveHeaders: remove}
	for _, h := range set {
		m.SetHeaders = append(m.SetHeaders, setHeader(h.Name, h.Value))
	}
	return m
}
