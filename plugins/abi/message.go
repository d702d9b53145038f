// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"encoding/binary"
	"errors"
	"unicode/utf8"
)

const fieldHead = 8 // tag and length

// AppendNumber appends a field that holds a number.
func AppendNumber(b []byte, tag uint32, v int64) []byte {
	b = binary.LittleEndian.AppendUint32(b, tag)
	b = binary.LittleEndian.AppendUint32(b, 8)
	return binary.LittleEndian.AppendUint64(b, uint64(v))
}

// AppendBytes appends a field that holds bytes or a text.
func AppendBytes[T ~string | ~[]byte](b []byte, tag uint32, v T) []byte {
	b = binary.LittleEndian.AppendUint32(b, tag)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(v)))
	return append(b, v...)
}

// appendText appends a text unless it is empty.
func appendText(b []byte, tag uint32, v string) []byte {
	if v == "" {
		return b
	}
	return AppendBytes(b, tag, v)
}

// appendCount appends a number unless it is zero.
func appendCount(b []byte, tag uint32, v int64) []byte {
	if v == 0 {
		return b
	}
	return AppendNumber(b, tag, v)
}

// AppendMessage appends a field that holds the fields that write appends.
func AppendMessage(b []byte, tag uint32, write func([]byte) []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, tag)
	b = append(b, 0, 0, 0, 0)
	at := len(b)
	b = write(b)
	binary.LittleEndian.PutUint32(b[at-4:], uint32(len(b)-at))
	return b
}

var (
	errCut    = errors.New("a message ends inside a field")
	errNumber = errors.New("a number does not have 8 bytes")
	errText   = errors.New("a text is not UTF-8")
)

// next splits the first field off a message.
func next(b []byte) (tag uint32, value, rest []byte, err error) {
	if len(b) < fieldHead {
		return 0, nil, nil, errCut
	}
	tag = binary.LittleEndian.Uint32(b)
	n := binary.LittleEndian.Uint32(b[4:])
	b = b[fieldHead:]
	if uint64(n) > uint64(len(b)) {
		return 0, nil, nil, errCut
	}
	return tag, b[:n:n], b[n:], nil
}

// fields calls a function for each field of a message.
func fields(b []byte, each func(tag uint32, value []byte) error) error {
	for len(b) > 0 {
		tag, value, rest, err := next(b)
		if err != nil {
			return err
		}
		if err := each(tag, value); err != nil {
			return err
		}
		b = rest
	}
	return nil
}

func number(to *int64, v []byte) error {
	if len(v) != 8 {
		return errNumber
	}
	*to = int64(binary.LittleEndian.Uint64(v))
	return nil
}

func text(to *string, v []byte) error {
	if !utf8.Valid(v) {
		return errText
	}
	*to = string(v)
	return nil
}
