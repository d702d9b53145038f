// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Numbers of the fields that lead from a message to what one exchange has to tell:
// https://github.com/open-telemetry/opentelemetry-proto/tree/v1.11.0/opentelemetry/proto.
const (
	requestResourceLogs = 1 // ExportLogsServiceRequest
	resourceScopeLogs   = 2 // ResourceLogs
	scopeLogRecords     = 2 // ScopeLogs
	recordAttributes    = 6 // LogRecord
	attributeKey        = 1 // KeyValue
	attributeValue      = 2
	anyString           = 1 // AnyValue
)

// errMessage is wrapped by errors about a message that is not what Envoy sends.
var errMessage = errors.New("malformed message")

// appendLines appends to dst the lines that Envoy would have written to a file for the records of an ExportLogsServiceRequest. It returns
// how many there are, and how many records are of a kind that no line is. With an error dst is as it was.
//
// The message is read field by field and not by generated code, because that refuses a whole message for one string in it that is not UTF-8,
// and what a provider sends may stand in such a string.
func appendLines(dst, message []byte) (out []byte, lines, unknown int, err error) {
	out = dst
	var record attributes
	path := [...]protowire.Number{requestResourceLogs, resourceScopeLogs, scopeLogRecords}
	var descend func(b []byte, depth int) error
	descend = func(b []byte, depth int) error {
		if depth < len(path) {
			return each(b, path[depth], func(v []byte) error { return descend(v, depth+1) })
		}
		record = record[:0]
		if err := each(b, recordAttributes, record.read); err != nil {
			return err
		}
		keys := sortedKeys[string(record.value("kind"))]
		if keys == nil {
			unknown++
			return nil
		}
		out = appendLine(out, keys, record)
		lines++
		return nil
	}
	if err := descend(message, 0); err != nil {
		return dst, 0, 0, err
	}
	return out, lines, unknown, nil
}

// each calls f with every value of a field that holds bytes.
func each(b []byte, field protowire.Number, f func([]byte) error) error {
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: %w", errMessage, protowire.ParseError(n))
		}
		b = b[n:]
		if number != field || typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, typ, b); n < 0 {
				return fmt.Errorf("%w: %w", errMessage, protowire.ParseError(n))
			}
			b = b[n:]
			continue
		}
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return fmt.Errorf("%w: %w", errMessage, protowire.ParseError(n))
		}
		if err := f(v); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// attributes are those of a record. They share memory with the message.
type attributes []attribute

type attribute struct{ key, value []byte }

// read reads a KeyValue whose value is a string.
func (a *attributes) read(b []byte) error {
	var one attribute
	err := each(b, attributeKey, func(v []byte) error {
		one.key = v
		return nil
	})
	if err == nil {
		err = each(b, attributeValue, func(v []byte) error {
			return each(v, anyString, func(v []byte) error {
				one.value = v
				return nil
			})
		})
	}
	*a = append(*a, one)
	return err
}

// value returns what stands at a key, nil for nothing.
func (a attributes) value(key string) []byte {
	for i := range a {
		if string(a[i].key) == key {
			return a[i].value
		}
	}
	return nil
}

// sortedKeys are the keys of each kind of lines, in the order in which Envoy writes them.
var sortedKeys = map[string][]string{
	exchangeLine["kind"]: slices.Sorted(maps.Keys(exchangeLineOf(Gateway{Tracing: Tracing{Lines: true}}))),
	attemptLine["kind"]:  slices.Sorted(maps.Keys(attemptLine)),
}

// appendLine appends the line that Envoy's json_format makes of these values: what is absent is null, and numbers are bare.
func appendLine(dst []byte, keys []string, record attributes) []byte {
	dst = append(dst, '{')
	between := false
	for _, k := range keys {
		v := record.value(k)
		if v == nil && k == traceKey {
			continue // the one that not all Envoys send
		}
		if between {
			dst = append(dst, ',')
		}
		between = true
		dst = append(append(append(dst, '"'), k...), '"', ':')
		switch {
		case len(v) == 0, isNumber(k) && !digits(v):
			dst = append(dst, "null"...)
		case isNumber(k):
			dst = append(dst, v...)
		default:
			dst = appendString(dst, v)
		}
	}
	return append(dst, '}', '\n')
}

func digits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) == 1 || b[0] != '0'
}

// appendString appends a JSON string. As Envoy does, it takes the bytes of what is not UTF-8 for characters of Latin-1: a line is always JSON,
// whatever a provider sent.
func appendString(dst, s []byte) []byte {
	const hex = "0123456789abcdef"
	latin := !utf8.Valid(s)
	dst = append(dst, '"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c < ' ' || c == 0x7f || latin && c >= utf8.RuneSelf:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}
