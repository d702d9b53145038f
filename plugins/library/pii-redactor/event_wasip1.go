// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strconv"

	weir "github.com/weir-proxy/weir/plugins/sdk/go"
)

//go:wasmexport weir_event
func event(at, length uint32) uint64 { return weir.EventHook(at, length, hear) }

func hear(e *weir.Event) *weir.Verdict {
	if !config.Responses {
		return weir.GoOn()
	}
	l := readLanes(e.State())
	key, final := "", false
	switch e.Kind() {
	case weir.NewText:
		key = textKey(e)
	case weir.NewArguments:
		n, id, name := e.Tool()
		key = "c" + strconv.FormatInt(e.Choice(), 10) + "." + strconv.FormatInt(n, 10)
		final = e.New() == "" && id == "" && name == ""
	case weir.Finish:
		key, final = textKey(e), true
	default:
		return weir.GoOn().State(l.bytes())
	}
	one := l.lane(key)
	one.arguments = key[0] == 'c'
	out := one.take(e.New(), final, max(l.roomBeside(one), least))
	if final {
		l.remove(key)
	}
	v := weir.GoOn().State(l.bytes())
	if out != e.New() {
		v.Edit(0, 0, len(e.New()), out)
	}
	if one.found {
		v.Tag("pii_in_response", "yes")
	}
	return v
}

// textKey names a text: what is held of one must not be put into another, of the same choice or of one whose events come between.
func textKey(e *weir.Event) string {
	part, number := e.Part()
	if part != "" {
		part = part[:1] // content, refusal, reasoning, summary
	}
	return "t" + strconv.FormatInt(e.Choice(), 10) + part + strconv.FormatInt(number, 10)
}
