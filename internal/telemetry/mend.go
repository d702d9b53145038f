// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"bytes"
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
)

// field is what a field of a message holds, as far as there is text in it.
type field struct {
	text bool
	of   map[protowire.Number]*field
}

// Messages of https://github.com/open-telemetry/opentelemetry-proto/tree/v1.11.0/opentelemetry/proto, as far as Envoy sets texts in them.
var (
	text     = &field{text: true}
	keyValue = &field{of: map[protowire.Number]*field{1: text, 2: {of: map[protowire.Number]*field{1: text}}}}
	spans    = &field{of: map[protowire.Number]*field{3: text, 5: text, 9: keyValue, 15: {of: map[protowire.Number]*field{2: text}}}}
	request  = &field{of: map[protowire.Number]*field{1: {of: map[protowire.Number]*field{
		1: {of: map[protowire.Number]*field{1: keyValue}},
		2: {of: map[protowire.Number]*field{1: {of: map[protowire.Number]*field{1: text, 2: text}}, 2: spans}},
	}}}}
)

// errMessage is about bytes that are no message.
var errMessage = errors.New("malformed message")

// mend returns a message in which every text is UTF-8. Envoy takes over what clients write into headers, and generated code refuses a whole message for one
// text that is not: a client could keep the spans of all others from being told.
func mend(b []byte, f *field) ([]byte, error) {
	out := make([]byte, 0, len(b)+16)
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, errMessage
		}
		inner := f.of[number]
		if inner == nil || typ != protowire.BytesType {
			m := protowire.ConsumeFieldValue(number, typ, b[n:])
			if m < 0 {
				return nil, errMessage
			}
			out, b = append(out, b[:n+m]...), b[n+m:]
			continue
		}
		v, m := protowire.ConsumeBytes(b[n:])
		if m < 0 {
			return nil, errMessage
		}
		b = b[n+m:]
		if inner.text {
			v = bytes.ToValidUTF8(v, []byte("\uFFFD"))
		} else {
			var err error
			if v, err = mend(v, inner); err != nil {
				return nil, err
			}
		}
		out = protowire.AppendBytes(protowire.AppendTag(out, number, typ), v)
	}
	return out, nil
}
