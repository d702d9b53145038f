// SPDX-License-Identifier: Apache-2.0

package weir

import "encoding/binary"

// Verdict is a plugin's answer. Its methods add to it and return it.
type Verdict struct{ b []byte }

// GoOn goes on, with nothing changed.
func GoOn() *Verdict { return &Verdict{} }

// Deny refuses, with a status from 400 to 599, a code of a-z, 0-9 and _, and a sentence for the client. On an event: it ends the response here.
func Deny(status int, code, message string) *Verdict {
	denial := text(text(number(nil, 1, int64(status)), 2, code), 3, message)
	return &Verdict{text(number(nil, 1, 1), 2, denial)}
}

// DropEvent keeps an event (text or arguments) from the client.
func DropEvent() *Verdict { return &Verdict{number(nil, 1, 2)} }

// Edit puts a text in the place of the bytes from start to end of a text. The text of an event has id 0.
func (v *Verdict) Edit(id int64, start, end int, with string) *Verdict {
	e := number(number(number(nil, 1, id), 2, int64(start)), 3, int64(end))
	v.b = text(v.b, 3, text(e, 4, with))
	return v
}

// SetHeader sets a header, its name in lower case.
func (v *Verdict) SetHeader(name, value string) *Verdict { return v.pair(4, name, value) }

// RemoveHeader removes a header.
func (v *Verdict) RemoveHeader(name string) *Verdict {
	v.b = text(v.b, 5, name)
	return v
}

// Model asks for another model.
func (v *Verdict) Model(model string) *Verdict {
	v.b = text(v.b, 6, model)
	return v
}

// Channel has this channel tried, after those of earlier calls. Channels that are not named are not tried.
func (v *Verdict) Channel(channel string) *Verdict {
	v.b = text(v.b, 7, channel)
	return v
}

// Tag puts a tag on the usage row.
func (v *Verdict) Tag(name, value string) *Verdict { return v.pair(8, name, value) }

// State hands up to 4 KiB to the next call of this exchange.
func (v *Verdict) State(state []byte) *Verdict {
	v.b = text(v.b, 9, state)
	return v
}

// Insert adds a message before the one with this number.
func (v *Verdict) Insert(before int, role, content string) *Verdict {
	v.b = text(v.b, 10, text(text(number(nil, 1, int64(before)), 2, role), 3, content))
	return v
}

// MaxOutputTokens lets the answer have at most so many tokens.
func (v *Verdict) MaxOutputTokens(most int64) *Verdict {
	v.b = number(v.b, 11, most)
	return v
}

// Bytes returns the verdict as the host reads it; for tests.
func (v *Verdict) Bytes() []byte { return v.b }

func (v *Verdict) pair(tag uint32, first, second string) *Verdict {
	v.b = text(v.b, tag, text(text(nil, 1, first), 2, second))
	return v
}

func number(b []byte, tag uint32, n int64) []byte {
	b = binary.LittleEndian.AppendUint32(b, tag)
	b = binary.LittleEndian.AppendUint32(b, 8)
	return binary.LittleEndian.AppendUint64(b, uint64(n))
}

func text[T ~string | ~[]byte](b []byte, tag uint32, s T) []byte {
	b = binary.LittleEndian.AppendUint32(b, tag)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}
