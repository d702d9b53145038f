// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
)

// Operation is what a request asks a provider to do.
type Operation string

// The operations that the gateway routes. Their names are in weir.usage and never change.
const (
	OpChat        Operation = "chat"        // POST /v1/chat/completions
	OpCompletions Operation = "completions" // POST /v1/completions
	OpEmbeddings  Operation = "embeddings"  // POST /v1/embeddings
	OpResponses   Operation = "responses"   // POST /v1/responses
)

// operationCodes are the bytes of the ticket format; append only.
var operationCodes = []Operation{1: OpChat, 2: OpCompletions, 3: OpEmbeddings, 4: OpResponses}

// Ticket is all that is known of an exchange when it is admitted. It travels with the request through Envoy as an opaque
// string and comes back in the access log, so that the log line alone is enough to write the usage row.
type Ticket struct {
	Exchange  uuid.UUID // version 7: carries the time of admission
	Tenant    TenantID
	Key       KeyID
	Operation Operation
	Stream    bool
	Model     string   // as the client asked for it
	Choices   []Choice // in the order of the attempts
	Price     int64    // the version of the prices that were in force; zero: no price was known
	Service   Service  // that was asked for; of no account without a price
	Tags      []Tag    // of policies; at most [MaxTags]
	Charges   Charges  // of budgets
}

// Service is how a provider is asked to process a request: service_tier in OpenAI's API. Prices may depend on it.
type Service uint8

// The services that have prices of their own. Whatever else is asked for, such as auto, is Standard. They are bytes of the ticket format; append only.
const (
	Standard Service = iota
	Flex             // cheaper and later
	Priority         // dearer and sooner
	services         // how many there are
)

// Choice is a channel that may take an exchange, and what it calls the model.
type Choice struct {
	Channel  ChannelID
	Upstream string  // the provider's name for the model; never empty in a Choice that [Engine] made
	Partial  Partial // empty means BillEstimate
}

// Upstream returns the name under which a channel knows the ticket's model.
func (t *Ticket) Upstream(id ChannelID) string {
	for _, c := range t.Choices {
		if c.Channel == id {
			return c.Upstream
		}
	}
	return ""
}

// Partial returns what is billed of this exchange if a channel takes it and does not count its tokens.
func (t *Ticket) Partial(id ChannelID) Partial {
	for _, c := range t.Choices {
		if c.Channel == id {
			return cmp.Or(c.Partial, BillEstimate)
		}
	}
	return BillEstimate
}

// Time returns the time of admission, to the millisecond.
func (t *Ticket) Time() time.Time {
	sec, nsec := t.Exchange.Time().UnixTime()
	return time.Unix(sec, nsec).UTC()
}

// ErrTicket is wrapped by every error of [ParseTicket].
var ErrTicket = errors.New("malformed ticket")

// Layout, before base64url without padding; integers are unsigned varints, strings are a varint length and bytes:
//
//	version=1 | exchange (16) | tenant | key | operation | flags | model | n | n × (channel | upstream)
//
// An upstream equal to the model is written as the empty string. Bit 0 of the flags says that it is a stream; the two bits from 1+2i on are
// the [Partial] of the i-th channel. Where there are tags they follow, n × (name | value), and then the [Charges]. A ticket with a price has version 2, and before the tags
//
//	price | service
const (
	ticketVersion   = 1
	ticketPriced    = 2
	ticketStream    = 1 << 0
	partialBits     = 2
	maxTicketString = 512 // bytes; longer model names are refused at admission
	maxChoices      = 16
)

// String encodes the ticket.
func (t *Ticket) String() string {
	b := make([]byte, 0, 96)
	version := byte(ticketVersion)
	if t.Price > 0 {
		version = ticketPriced
	}
	b = append(b, version)
	b = append(b, t.Exchange[:]...)
	b = binary.AppendUvarint(b, uint64(t.Tenant))
	b = binary.AppendUvarint(b, uint64(t.Key))
	code := 0
	for i, op := range operationCodes {
		if op == t.Operation {
			code = i
		}
	}
	b = binary.AppendUvarint(b, uint64(code))
	var flags uint64
	if t.Stream {
		flags |= ticketStream
	}
	for i, c := range t.Choices {
		if code := slices.Index(partialCodes, c.Partial); code > 0 && i < maxChoices {
			flags |= uint64(code) << partialShift(i) //nolint:gosec // it is 1 to 3
		}
	}
	b = binary.AppendUvarint(b, flags)
	b = appendString(b, t.Model)
	b = binary.AppendUvarint(b, uint64(len(t.Choices)))
	for _, c := range t.Choices {
		b = binary.AppendUvarint(b, uint64(c.Channel))
		if c.Upstream == t.Model {
			b = appendString(b, "")
		} else {
			b = appendString(b, c.Upstream)
		}
	}
	if version == ticketPriced {
		b = binary.AppendUvarint(b, uint64(t.Price)) //nolint:gosec // it is positive
		b = append(b, byte(t.Service))
	}
	before := len(b)
	if len(t.Tags) > 0 {
		b = appendTags(b, t.Tags)
	}
	b = appendCharges(b, &t.Charges, len(b) > before)
	return base64.RawURLEncoding.EncodeToString(b)
}

// appendTags writes the tags; those that no reader would take are left out.
func appendTags(b []byte, tags []Tag) []byte {
	fit := slices.DeleteFunc(slices.Clone(tags), func(t Tag) bool { return t.Name == "" || len(t.Name) > MaxTagName || len(t.Value) > MaxTagValue })
	fit = fit[:min(len(fit), MaxTags)]
	if len(fit) == 0 {
		return b
	}
	b = binary.AppendUvarint(b, uint64(len(fit)))
	for _, t := range fit {
		b = appendString(appendString(b, t.Name), t.Value)
	}
	return b
}

func partialShift(i int) int { return 1 + partialBits*i }

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// strict is the encoding of tickets and tags, of which each has one form only.
var strict = base64.RawURLEncoding.Strict()

// ParseTicket decodes what [Ticket.String] made.
func ParseTicket(s string) (*Ticket, error) {
	t := &Ticket{}
	if err := t.parse(s, nil); err != nil {
		return nil, err
	}
	return t, nil
}

// TicketReader reads tickets one after the other, for less than [ParseTicket] takes. The zero value is ready for use, by one goroutine.
type TicketReader struct {
	ticket Ticket
	names  names
}

// Read is [ParseTicket], but that the next call overwrites the ticket and its Choices. Everything else of it may be kept, and models of one name share
// its memory.
func (r *TicketReader) Read(s string) (*Ticket, error) {
	if r.names == nil {
		r.names = make(names)
	}
	if err := r.ticket.parse(s, r.names); err != nil {
		return nil, err
	}
	return &r.ticket, nil
}

// names are those of models that were read before.
type names map[string]string

// maxNames bounds them: clients can invent names, of up to maxTicketString bytes.
const maxNames = 1000

// of returns the name in b.
func (n names) of(b []byte) string {
	if n == nil {
		return string(b)
	}
	if s, ok := n[string(b)]; ok {
		return s
	}
	if len(n) >= maxNames {
		clear(n)
	}
	s := string(b)
	n[s] = s
	return s
}

// parse sets the whole ticket to what s says. Its Choices use their memory again. With an error it is of no use.
func (t *Ticket) parse(s string, known names) error {
	var from, to [256]byte // room for nearly every ticket, without an allocation
	b, err := strict.AppendDecode(to[:0], append(from[:0], s...))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTicket, err)
	}
	r := ticketReader{b: b, names: known}
	version := r.byte()
	if version != ticketVersion && version != ticketPriced {
		return fmt.Errorf("%w: version %d", ErrTicket, version)
	}
	*t = Ticket{Choices: t.Choices[:0]}
	copy(t.Exchange[:], r.bytes(len(t.Exchange)))
	t.Tenant = TenantID(r.id())
	t.Key = KeyID(r.id())
	if code := r.uvarint(); code > 0 && code < uint64(len(operationCodes)) {
		t.Operation = operationCodes[code]
	} else {
		r.failed = true
	}
	flags := r.uvarint()
	t.Stream = flags&ticketStream != 0
	t.Model = r.name()
	t.Choices = r.choices(t.Choices, t.Model, flags)
	if version == ticketPriced {
		t.Price, t.Service = r.id(), Service(r.byte())
		r.failed = r.failed || t.Price == 0 || t.Service >= services
	}
	r.rest(t)
	if r.failed || len(r.b) != 0 || flags>>partialShift(len(t.Choices)) != 0 {
		return fmt.Errorf("%w: %d bytes", ErrTicket, len(b))
	}
	return nil
}

// ticketReader reads the fields of a ticket; after the first that does not fit, failed is set and all further ones are zero.
type ticketReader struct {
	b      []byte
	failed bool
	names  names // of models; nil: each has its own memory
}

func (r *ticketReader) bytes(n int) []byte {
	if r.failed || n > len(r.b) {
		r.failed = true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *ticketReader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *ticketReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.failed || n <= 0 {
		r.failed = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *ticketReader) id() int64 {
	v := r.uvarint()
	if v > 1<<63-1 {
		r.failed = true
		return 0
	}
	return int64(v)
}

// choices reads the channels of a ticket with the model and flags, into memory that may be used again.
func (r *ticketReader) choices(choices []Choice, model string, flags uint64) []Choice {
	n := r.uvarint()
	if n > maxChoices {
		r.failed = true
	}
	for i := uint64(0); i < n && !r.failed; i++ {
		c := Choice{Channel: ChannelID(r.id()), Upstream: r.name()}
		if c.Upstream == "" {
			c.Upstream = model
		}
		code := flags >> partialShift(int(i)) & (1<<partialBits - 1) //nolint:gosec // i is at most maxChoices
		if code >= uint64(len(partialCodes)) {
			r.failed = true
			break
		}
		if code > 0 {
			c.Partial = partialCodes[code]
		}
		choices = append(choices, c)
	}
	return choices
}

func (r *ticketReader) tags() []Tag {
	n := r.uvarint()
	if n == 0 || n > MaxTags {
		r.failed = true
	}
	var tags []Tag
	for i := uint64(0); i < n && !r.failed; i++ {
		t := Tag{Name: r.string(), Value: r.string()}
		r.failed = r.failed || t.Name == "" || len(t.Name) > MaxTagName || len(t.Value) > MaxTagValue
		tags = append(tags, t)
	}
	return tags
}

func (r *ticketReader) string() string { return string(r.text()) }

// name reads the name of a model.
func (r *ticketReader) name() string {
	b := r.text()
	if len(b) == 0 {
		return ""
	}
	return r.names.of(b)
}

func (r *ticketReader) text() []byte {
	n := r.uvarint()
	if n > maxTicketString {
		r.failed = true
		return nil
	}
	return r.bytes(int(n))
}
