// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"errors"
	"mime"
	"slices"
	"strings"

	"github.com/weir-proxy/weir/plugins/abi"
	"github.com/weir-proxy/weir/policy"
)

// Head takes status and headers of the response, with names in lower case. It is called once, first. If the output has a status, the response ends here.
//
// Errors, here and in the other methods, say what went wrong, as [JudgeError] and [UnreadableError]; what to do all the same is in the output. Content-length is among
// the headers to remove if the length may change.
func (a *Answer) Head(status int, headers []abi.Header) (Headers, Output, error) {
	a.chain.errs = nil
	h, err := a.chain.head(status, headers)
	if err == nil {
		a.stage, err = a.begin(status, headers)
	}
	if err != nil && (a.chain.closed() || !isUnreadable(err)) {
		a.stage = holding // nothing has gone out
		return Headers{}, a.refuse(err), errors.Join(a.chain.errs...)
	}
	if err != nil {
		a.chain.errs = append(a.chain.errs, err)
	}
	if a.stage != passing {
		h.Held = a.stage == holding
		h.Remove = append(h.Remove, "content-length")
	}
	return h, Output{}, errors.Join(a.chain.errs...)
}

// begin decides what is done with the body.
func (a *Answer) begin(status int, headers []abi.Header) (stage, error) {
	a.failed = status < 200 || status > 299
	switch {
	case a.failed, a.chain.common.Operation == string(policy.OpEmbeddings):
		return passing, nil
	case a.dialect == nil:
		return passing, unreadable("it is of an operation that this gateway does not know")
	}
	var kind string
	for _, h := range headers {
		switch h.Name {
		case "content-type":
			kind = h.Value
		case "content-encoding":
			if h.Value != "" && h.Value != "identity" {
				return passing, unreadable("it is compressed")
			}
		}
	}
	if media, _, _ := mime.ParseMediaType(kind); media == "text/event-stream" { // a bad parameter does not change what it is
		return streaming, nil
	}
	return holding, nil // what is not JSON is refused as such
}

// head shows the head to the judges, each with what the ones before have made of the headers.
func (c *chain) head(status int, headers []abi.Header) (h Headers, _ error) {
	left := slices.Clone(headers)
	for i := range c.judges {
		e := c.next(abi.KindHead, 0)
		e.Status, e.Headers = status, left
		v, err := c.call(i)
		if err != nil {
			return Headers{}, err
		}
		for _, name := range v.Remove {
			left = without(left, name)
			h.Set = without(h.Set, name)
			h.Remove = append(h.Remove, name)
		}
		for _, s := range v.Set {
			left = append(without(left, s.Name), s)
			h.Set = append(without(h.Set, s.Name), s)
			h.Remove = slices.DeleteFunc(h.Remove, func(name string) bool { return strings.EqualFold(name, s.Name) })
		}
	}
	return h, nil
}

func without(headers []abi.Header, name string) []abi.Header {
	return slices.DeleteFunc(headers, func(h abi.Header) bool { return h.Name == name })
}
