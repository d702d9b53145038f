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
}

// Billed are the tokens that a price is applied to: those of [Tokens], or less where a channel's [policy.Partial] says so.
type Billed struct {
	BilledInput  int64
	BilledOutput int64
}

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
	RequestBytes  int64
	ResponseBytes int64
	FirstByte     time.Duration // from the first byte of the request to that of the answer; negative when there was none
	Duration      time.Duration
	Tags          []policy.Tag // what plugins noted of the request
	Seq           int64        // offset in the log, in bytes, of the line's end
}

// Batch is a run of records that came from one log, to be written together with the position that the log is read up to.
type Batch struct {
	Writer   uuid.UUID // identity of the log file
	From, To int64     // the bytes of the log that the batch covers: those from From up to, not including, To
	Records  []Record  // in the order of the log; Seq is in (From, To]
}
