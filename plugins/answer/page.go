// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"cmp"

	"github.com/weir-proxy/weir/internal/jsonscan"
)

// page is a JSON text under judgement: an event of a stream, or a whole body.
type page struct {
	text   []byte
	stream bool
	eol    string // of the stream
	before []byte // events that go out before this one
	edits  jsonscan.Edits
	left   bool // something is left for the client in the event
	lost   bool // something was taken out of it
	drop   bool // the event does not go out

	usage     jsonscan.Span // a count of the provider
	onlyUsage bool          // the event has nothing else
	last      bool          // nothing but the end is to come
	failed    bool          // the provider reports an error
}

func (p *page) reset(text []byte, stream bool, eol string) {
	*p = page{text: text, stream: stream, eol: eol, before: p.before[:0], edits: p.edits[:0]}
}

// put has another value stand at a place.
func (p *page) put(at jsonscan.Span, with string) {
	p.edits = append(p.edits, jsonscan.Edit{At: at, With: with})
}

// element is one of an array, and whether it is to go.
type element struct {
	at   jsonscan.Span
	gone bool
}

// remove takes elements out of an array with their commas.
func (p *page) remove(list []element) {
	kept := 0
	for i, e := range list {
		switch {
		case !e.gone:
			kept++
		case kept > 0:
			p.put(jsonscan.Span{Start: list[i-1].at.End, End: e.at.End}, "")
		case i+1 < len(list):
			p.put(jsonscan.Span{Start: e.at.Start, End: list[i+1].at.Start}, "")
		default:
			p.put(e.at, "")
		}
	}
}

// end is how lines of the stream end, as far as is known.
func (p *page) end() string { return cmp.Or(p.eol, "\n") }
