// SPDX-License-Identifier: Apache-2.0

package extproc

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/weir-proxy/weir/policy"
)

// Namespaces of the dynamic metadata. Envoy's configuration refers to them.
const (
	Namespace    = "weir"     // exchange; then priority_groups or next, ticket, model; tags, of the response
	TapNamespace = "weir.tap" // what the filter on the response needs
)

// dynamicMetadata is the number of the field in ProcessingResponse.
const dynamicMetadata = 8

// admissionMetadata encodes the dynamic metadata of an admission as the wire form of ProcessingResponse's field dynamic_metadata:
//
//	weir:
//	  priority_groups: [{name: "1", clusters: [{cluster_name: "channel-<id>", weight: 1}]}, …]   in the order of the attempts
//	  next: {channel-<id>: channel-<id>, …}   in place of priority_groups, for an Envoy whose route is byNext: which comes after which; nothing for byFirst
//	  ticket: <opaque>
//	  model: {at: [start, end], channel-<id>: <JSON string>, …}   for channels that call the model otherwise
//	weir.tap:
//	  id: <exchange id>
//	  strip: true   only when the chunk with the usage is not for the client
//	  headers: "<name>: <value>\n…"   for the client, if there are any
//	  counted: true   when the exchange counts among those at once, and its end is to be told without delay
//
// A structpb.Struct of this takes some 150 allocations and goes through maps by reflection when it is sent: it would be by
// far the dearest part of a decision (BenchmarkMetadata has both). So the bytes are written directly; a test compares them with what
// structpb makes.
func admissionMetadata(a *policy.Admission, r route) []byte {
	w := wire{b: make([]byte, 0, 512)}
	w.nest(dynamicMetadata, func() {
		w.member(Namespace, func() {
			w.object(func() {
				switch r {
				case byNext:
					w.member("next", func() { w.object(func() { w.next(a.Choices) }) })
				case byFirst:
				default:
					w.member("priority_groups", func() { w.groups(a.Choices) })
				}
				w.member("ticket", func() { w.text(a.Ticket) })
				w.member("model", func() { w.object(func() { w.model(a) }) })
			})
		})
		w.member(TapNamespace, func() {
			w.object(func() {
				w.member("id", func() { w.text(a.Exchange.String()) })
				if a.StripUsage {
					w.member("strip", func() { w.truth(true) })
				}
				if len(a.Inform) > 0 {
					w.member("headers", func() { w.text(headerLines(a.Inform)) })
				}
				if slices.ContainsFunc(a.Inform, isConcurrency) {
					w.member("counted", func() { w.truth(true) })
				}
			})
		})
	})
	return w.b
}

// exchangeMetadata encodes the dynamic metadata of an exchange that nothing is decided on yet, in the same form:
//
//	weir:
//	  exchange: <exchange id>
func exchangeMetadata(id uuid.UUID) []byte {
	w := wire{b: make([]byte, 0, 80)}
	w.nest(dynamicMetadata, func() {
		w.member(Namespace, func() {
			w.object(func() {
				w.member("exchange", func() { w.text(id.String()) })
			})
		})
	})
	return w.b
}

// tagMetadata encodes the dynamic metadata of an exchange whose response a policy has noted something of, in the same form:
//
//	weir:
//	  tags: <opaque>
func tagMetadata(word string) []byte {
	w := wire{b: make([]byte, 0, 64+len(word))}
	w.nest(dynamicMetadata, func() {
		w.member(Namespace, func() {
			w.object(func() {
				w.member("tags", func() { w.text(word) })
			})
		})
	})
	return w.b
}

func (w *wire) groups(choices []policy.Choice) {
	w.list(func() {
		for i, c := range choices {
			w.item(func() {
				w.object(func() {
					w.member("name", func() { w.text(strconv.Itoa(i + 1)) })
					w.member("clusters", func() {
						w.list(func() {
							w.item(func() {
								w.object(func() {
									w.member("cluster_name", func() { w.text(clusterName(c.Channel)) })
									w.member("weight", func() { w.number(1) })
								})
							})
						})
					})
				})
			})
		}
	})
}

// next writes for each channel but the last which one comes after it. No channel is among the choices twice.
func (w *wire) next(choices []policy.Choice) {
	for i, c := range choices[1:] {
		w.member(clusterName(choices[i].Channel), func() { w.text(clusterName(c.Channel)) })
	}
}

func (w *wire) model(a *policy.Admission) {
	w.member("at", func() {
		w.list(func() {
			w.item(func() { w.number(float64(a.ModelStart)) })
			w.item(func() { w.number(float64(a.ModelEnd)) })
		})
	})
	for _, c := range a.Choices {
		if c.Upstream != a.Model {
			w.member(clusterName(c.Channel), func() { w.text(quote(c.Upstream)) })
		}
	}
}

// headerLines writes headers as HTTP does, for a tap that need not know what an object is.
func headerLines(headers []policy.Header) string {
	var b strings.Builder
	for _, h := range headers {
		b.WriteString(h.Name)
		b.WriteString(": ")
		b.WriteString(h.Value)
		b.WriteByte('\n')
	}
	return b.String()
}

// isConcurrency says of a header that only an exchange has which counts among those at once.
func isConcurrency(h policy.Header) bool { return h.Name == "x-ratelimit-limit-concurrency" }

// clusterName is the name of a channel's cluster in Envoy.
func clusterName(id policy.ChannelID) string { return "channel-" + strconv.FormatInt(int64(id), 10) }

// quote writes a JSON string.
func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string cannot fail
	}
	return string(b)
}

// wire writes google.protobuf.Struct and what it consists of.
// See https://github.com/protocolbuffers/protobuf/blob/main/src/google/protobuf/struct.proto.
type wire struct{ b []byte }

// nest writes a message as the field of the given number.
func (w *wire) nest(number protowire.Number, message func()) {
	w.b = protowire.AppendTag(w.b, number, protowire.BytesType)
	start := len(w.b)
	message()
	// The length comes before the message but is known behind it: make room.
	size := len(w.b) - start
	w.b = protowire.AppendVarint(w.b, uint64(size))
	var length [10]byte
	n := copy(length[:], w.b[start+size:])
	copy(w.b[start+n:], w.b[start:start+size])
	copy(w.b[start:], length[:n])
}

// member writes an entry of a Struct's map; value writes its Value.
func (w *wire) member(name string, value func()) {
	w.nest(1, func() {
		w.b = protowire.AppendTag(w.b, 1, protowire.BytesType)
		w.b = protowire.AppendString(w.b, name)
		w.nest(2, value)
	})
}

// object writes a Value that is a Struct, list one that is a ListValue; item writes one Value of that.
func (w *wire) object(members func()) { w.nest(5, members) }
func (w *wire) list(items func())     { w.nest(6, items) }
func (w *wire) item(value func())     { w.nest(1, value) }

func (w *wire) text(s string) {
	w.b = protowire.AppendTag(w.b, 3, protowire.BytesType)
	w.b = protowire.AppendString(w.b, s)
}

func (w *wire) number(f float64) {
	w.b = protowire.AppendTag(w.b, 2, protowire.Fixed64Type)
	w.b = protowire.AppendFixed64(w.b, math.Float64bits(f))
}

func (w *wire) truth(t bool) {
	w.b = protowire.AppendTag(w.b, 4, protowire.VarintType)
	w.b = protowire.AppendVarint(w.b, protowire.EncodeBool(t))
}
