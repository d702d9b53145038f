// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/base64"
	"fmt"
	"slices"

	"github.com/google/uuid"
)

// Judge judges one exchange after the engine has found its key: it is how the policies of tenants have their say. The same Judge goes with
// an exchange from its request to the end of its response, so that a change of policies takes effect between exchanges. One goroutine uses it at a
// time.
type Judge interface {
	// Watches reports whether responses are to be shown to what [Judge.Watch] returns. It is asked before the body has come, and its answer holds for the
	// exchange.
	Watches() bool

	// Request judges a request before it is authorised for its model and before channels are picked. It may refuse it, or change it: a body that it
	// changes is read anew, and it is the model in there that counts. A nil ruling changes nothing.
	Request(q *Question) (*Ruling, *Denial)

	// Watch returns who sees the response of the exchange that is now admitted. It is called if Watches said so, and never for an exchange that is refused.
	Watch(q *Question) Watcher

	// Abandon is called instead of Watch for an exchange that is refused after Request let it through: it was changed to something that cannot be served. Nothing is
	// called after it.
	Abandon()
}

// Question is an exchange as a [Judge] is shown it. It must not be changed, nor kept.
type Question struct {
	Exchange  uuid.UUID
	Tenant    *Tenant
	Key       *Key
	Address   string   // the client's IP address; empty if it is not known
	Headers   []Header // of the request, those that Envoy was told to forward for policies
	Path      string   // of the request, with the query
	Operation Operation
	Model     string
	Stream    bool
	Service   Service
	Body      []byte

	// Choices is for [Options].Estimate: the channels that may take the exchange, none before they are picked.
	Choices []Choice

	// StripUsage is for [Judge.Watch]: the gateway has asked for the chunk with the usage, and the client must not see it.
	StripUsage bool

	// Channels, for judges alone, returns the names of the channels that may serve a model to this key, best first.
	Channels func(model string) []string
}

// Header is a header field. The name is in lower case.
type Header struct{ Name, Value string }

// Tag is a note on an exchange, of its key or of a policy. It goes with the ticket into the row of the exchange.
type Tag struct{ Name, Value string }

// Limits of the tags of one exchange; what is beyond them is left out.
const (
	MaxTags     = 16
	MaxTagName  = 64  // bytes
	MaxTagValue = 256 // bytes
)

// MergeTags adds tags to those of a list, which it may change; the last value of a name counts. What is beyond [MaxTags] is left out.
func MergeTags(tags, more []Tag) []Tag {
	for _, t := range more {
		i := slices.IndexFunc(tags, func(x Tag) bool { return x.Name == t.Name })
		switch {
		case i >= 0:
			tags[i].Value = t.Value
		case len(tags) < MaxTags:
			tags = append(tags, t)
		}
	}
	return tags
}

// EncodeTags writes tags as one opaque word, which [ParseTags] reads. Those that no reader would take are left out; it is empty if none is left.
func EncodeTags(tags []Tag) string {
	return base64.RawURLEncoding.EncodeToString(appendTags(nil, tags))
}

// ParseTags decodes what [EncodeTags] made. The error wraps [ErrTicket].
func ParseTags(s string) ([]Tag, error) {
	b, err := strict.DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("%w: tags: %w", ErrTicket, err)
	}
	if len(b) == 0 {
		return nil, nil
	}
	r := ticketReader{b: b}
	tags := r.tags()
	if r.failed || len(r.b) != 0 {
		return nil, fmt.Errorf("%w: tags of %d bytes", ErrTicket, len(b))
	}
	return tags, nil
}

// withTags returns the tags of a key and those of policies; of two with one name the policy's, which knows the exchange.
func withTags(key, policies []Tag) []Tag {
	if len(key) == 0 {
		return policies
	}
	return MergeTags(slices.Clone(key), policies)
}

// Ruling is what a [Judge] changes of a request.
type Ruling struct {
	Body     []byte   // to forward instead; nil: as it was
	Channels []string // only these, in this order, of those that it was offered; none: as the engine picks
	Set      []Header // to the provider
	Remove   []string
	Tags     []Tag
}

// Watcher sees the response of an exchange on its way to the client, and may change it. It is used by one goroutine, and nothing is called after
// Close.
type Watcher interface {
	// Head is called once and first. Whole says that the body is to be given to Body in one piece, so that the head need not be sent before.
	Head(status int, headers []Header) (ruling *HeadRuling, whole bool)

	// Body takes the next bytes of the body and returns what the client gets in their place; last says that no more follow. If over is true, the
	// client gets nothing after it. A denial, which may come only for a body that was asked for whole, replaces the response.
	Body(chunk []byte, last bool) (out []byte, over bool, denial *Denial)

	// Tags returns what has been noted of the exchange so far, beside the tags of the request. It is asked after Head and after each Body: what is noted when nothing is
	// sent to Envoy any more is lost.
	Tags() []Tag

	// Close is called once and last: the response has ended, or was cut off if Body was not called with last.
	Close()
}

// HeadRuling is what a [Watcher] changes of the head of a response.
type HeadRuling struct {
	Set    []Header // to the client
	Remove []string
	Denial *Denial // instead of the response; nil: none
}
