// SPDX-License-Identifier: Apache-2.0

package proxywasm

import (
	"slices"

	"github.com/weir-proxy/weir/policy"
)

// section is the request or the response as the plugin sees it.
type section struct {
	headers headers
	body    []byte // never changed in place
	known   bool   // it has come
	open    bool   // it may still be changed
}

// field returns the headers that a number stands for; nil if there are none now.
func (c caller) field(n uint64) (h *headers, open bool) {
	var none headers
	switch n {
	case mapRequestHeaders:
		if c.request.known {
			return &c.request.headers, c.request.open
		}
	case mapResponseHeaders:
		if c.response.known {
			return &c.response.headers, c.response.open
		}
	case mapCallHeaders:
		if c.answer != nil {
			return &c.answer.headers, false
		}
	case mapRequestTrailers, mapResponseTrailers, mapCallTrailers:
		return &none, false
	}
	return nil, false
}

// buffer returns what a number stands for.
func (c caller) buffer(n uint64) (b []byte, known bool) {
	switch n {
	case bufferRequestBody:
		return c.request.body, c.request.known
	case bufferResponseBody:
		return c.response.body, c.response.known
	case bufferCallBody:
		if c.answer != nil {
			return c.answer.body, true
		}
	case bufferVMConfig:
		return c.plugin.source.VMConfig, true
	case bufferPluginConfig:
		return c.plugin.source.Config, true
	}
	return nil, false
}

// getBuffer is proxy_get_buffer_bytes(buffer, start, most, out, its length).
func (c caller) getBuffer(a args) uint64 {
	b, known := c.buffer(a[0])
	if !known {
		return statusNotFound
	}
	start := min(a[1], uint64(len(b)))
	return c.give(b[start:min(start+a[2], uint64(len(b)))], a[3], a[4])
}

// bufferStatus is proxy_get_buffer_status(buffer, its length, flags).
func (c caller) bufferStatus(a args) uint64 {
	b, known := c.buffer(a[0])
	if !known {
		return statusNotFound
	}
	c.put32(a[1], uint32(len(b)))
	c.put32(a[2], 0)
	return statusOK
}

// setBuffer is proxy_set_buffer_bytes(buffer, start, length, data, its length): data takes the place of a part of the buffer.
func (c caller) setBuffer(a args) uint64 {
	var s *section
	switch a[0] {
	case bufferRequestBody:
		s = &c.request
	case bufferResponseBody:
		s = &c.response
	default:
		return statusBadArgument
	}
	if !s.known || !s.open {
		return statusBadArgument
	}
	data := c.bytes(a[3], a[4])
	start := min(a[1], uint64(len(s.body)))
	end := min(start+a[2], uint64(len(s.body)))
	if uint64(len(s.body))-(end-start)+uint64(len(data)) > uint64(c.plugin.limits.MemoryBytes) {
		return statusInternalFailure
	}
	c.guest.Charge(int64(len(s.body)))
	s.body = slices.Concat(s.body[:start], data, s.body[end:])
	return statusOK
}

// inject is proxy_inject_encoded_data_to_filter_chain(data, its length, end): more of the response's body.
func (c caller) inject(a args) uint64 {
	if !c.response.known || !c.response.open || len(c.injected)+int(a[1]) > c.plugin.limits.HeldBytes {
		return statusBadArgument
	}
	c.injected = append(c.injected, c.bytes(a[0], a[1])...)
	return statusOK
}

func (c caller) getPairs(a args) uint64 {
	h, _ := c.field(a[0])
	if h == nil {
		return statusBadArgument
	}
	return c.give(h.encode(), a[1], a[2])
}

func (c caller) mapSize(a args) uint64 {
	h, _ := c.field(a[0])
	if h == nil {
		return statusBadArgument
	}
	c.put32(a[1], uint32(len(h.encode())))
	return statusOK
}

func (c caller) setPairs(a args) uint64 {
	h, open := c.field(a[0])
	if h == nil || !open {
		return statusBadArgument
	}
	list, ok := decodeHeaders(c.bytes(a[1], a[2]))
	if !ok {
		return statusParseFailure
	}
	*h = list
	return statusOK
}

// getHeader is proxy_get_header_map_value(map, name, its length, out, its length).
func (c caller) getHeader(a args) uint64 {
	h, _ := c.field(a[0])
	if h == nil {
		return statusBadArgument
	}
	value, ok := h.get(c.text(a[1], a[2]))
	if !ok {
		return statusNotFound
	}
	return c.give([]byte(value), a[3], a[4])
}

func (c caller) addHeader(a args) uint64 { return c.putHeader(a, (*headers).add) }

func (c caller) replaceHeader(a args) uint64 { return c.putHeader(a, (*headers).replace) }

func (c caller) putHeader(a args, put func(h *headers, name, value string)) uint64 {
	h, open := c.field(a[0])
	if h == nil || !open {
		return statusBadArgument
	}
	name, value := c.text(a[1], a[2]), c.text(a[3], a[4])
	if name == "" {
		return statusBadArgument
	}
	if !h.fits(len(name) + len(value)) {
		return statusInternalFailure
	}
	put(h, name, value)
	return statusOK
}

func (c caller) removeHeader(a args) uint64 {
	h, open := c.field(a[0])
	if h == nil || !open {
		return statusBadArgument
	}
	h.remove(c.text(a[1], a[2]))
	return statusOK
}

// sendLocal is proxy_send_local_response(status, details, their length, body, its length, headers, their length, gRPC status). The first one counts.
func (c caller) sendLocal(a args) uint64 {
	if !c.request.known {
		return statusBadArgument
	}
	status, body := a[0], c.bytes(a[3], a[4])
	fields, ok := decodeHeaders(c.bytes(a[5], a[6]))
	switch {
	case !ok:
		return statusParseFailure
	case status < 200 || status > 599 || len(body) > c.plugin.limits.HeldBytes:
		return statusBadArgument
	case c.reply != nil:
		return statusOK
	}
	c.reply = &policy.Reply{Status: int(status), Body: slices.Clone(body), Headers: replyHeaders(fields)}
	return statusOK
}

// replyHeaders are those of a local response that a plugin may give it. One that does not say what it is, is text, as it is in Envoy.
func replyHeaders(fields headers) []policy.Header {
	out := []policy.Header{{Name: "content-type", Value: "text/plain"}}
	set, _ := fields.changes(nil)
	return append(out, set...)
}
