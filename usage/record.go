// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/policy"
)

// Status says how an exchange ended. Its values are in weir.usage and never change.
type Status string

// How an exchange can end.
const (
	StatusOK            Status = "ok"             // the provider's answer reached its end
	StatusClientClosed  Status = "client_closed"  // the client left first
	StatusUpstreamError Status = "upstream_error" // no channel answered, the last answered with an error, or an answer was cut
	StatusTimeout       Status = "timeout"        // a limit of the gateway on time ended it
	StatusUnresolved    Status = "unresolved"     // admitted, but nothing is known of its end
)

// Tokens are counted as OpenTelemetry does: cached and reasoning tokens are included in input and output.
type Tokens struct {
	Input       int64
	CachedInput int64 // of Input
	Output      int64
	Reasoning   int64 // of Output
	Details
}

// Details are parts of the tokens that some exchanges have, and that may have prices of their own.
type Details struct {
	CacheWrite  int64 `json:"cache_write,omitempty"`  // of the input: put into the provider's cache
	AudioInput  int64 `json:"audio_input,omitempty"`  // of the input
	ImageInput  int64 `json:"image_input,omitempty"`  // of the input
	AudioOutput int64 `json:"audio_output,omitempty"` // of the output
	ImageOutput int64 `json:"image_output,omitempty"` // of the output
}

// Billed are the tokens that a price is applied to: those of [Tokens], or less where a channel's [policy.Partial] says so.
type Billed struct {
	BilledInput  int64
	BilledOutput int64
}

// Cost is what the billed tokens cost, by the prices that were in force when the exchange was admitted.
type Cost struct {
	CostNanoUSD  int64 // means nothing without a price
	PriceVersion int64 // of the prices; zero: no price was known, and the exchange is not free for that
}

// MaxCost is the highest cost that is believed of one exchange, some $70,000, so that no sum of a batch overflows.
const MaxCost = 1 << 46

// Priced reports whether the cost is known.
func (c Cost) Priced() bool { return c.PriceVersion != 0 }

// Record is one row of weir.usage: what became of one admitted exchange.
type Record struct {
	Exchange      uuid.UUID
	Time          time.Time // of admission
	Tenant        policy.TenantID
	Key           policy.KeyID
	Channel       policy.ChannelID // zero when no channel took it
	Model         string           // as the client asked
	UpstreamModel string           // as the channel calls it; empty when no channel took it
	Operation     policy.Operation
	Status        Status
	HTTPStatus    int // that the client got; 0 when it left before
	Attempts      int
	Stream        bool
	Estimated     bool // Tokens do not rest on the provider's own count
	Tokens
	Billed
	Cost          // of what is billed; known once the record has been to a [Pricer]
	Service       policy.Service
	RequestBytes  int64
	ResponseBytes int64
	FirstByte     time.Duration // from the first byte of the request to that of the answer; negative when there was none
	Duration      time.Duration
	Tags          []policy.Tag   // what plugins noted of the request
	Charges       policy.Charges // of budgets
	Seq           int64          // offset in the log, in bytes, of the line's end

	// Trace is what Envoy knows of the exchange's place in a trace: when it began, in microseconds since 1970, and, behind a blank, its traceparent,
	// or "-" without one. It is in no row. Empty where no traces are made.
	Trace string
}

// Charged returns what the exchange is charged to its budgets, in nano-dollars: its cost; what was reserved if that is not known, or the exchange is unresolved,
// so that it may have cost that much.
func (r *Record) Charged() int64 {
	if r.Priced() && r.Status != StatusUnresolved {
		return r.CostNanoUSD
	}
	return r.Charges.Reserved
}

// Batch is a run of records that came from one log, to be written together with the position that the log is read up to.
type Batch struct {
	Writer   uuid.UUID // identity of the log file
	From, To int64     // the bytes of the log that the batch covers: those from From up to, not including, To
	Records  []Record  // in the order of the log; Seq is in (From, To]
}
