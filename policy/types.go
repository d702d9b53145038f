// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"crypto/sha256"
	"net/netip"
	"slices"
	"time"
)

// Identifiers are positive; zero means "none". They are made by Postgres and never reused.
type (
	// TenantID names a [Tenant].
	TenantID int64
	// KeyID names a [Key].
	KeyID int64
	// ChannelID names a [Channel].
	ChannelID int64
)

// Tenant is a customer: it owns keys, may own channels, and is who is billed.
type Tenant struct {
	ID       TenantID
	Name     string
	Disabled bool     // every key of a disabled tenant is refused
	Groups   []string // only channels of one of these groups; none means any channel
}

// KeyHash is the SHA-256 of a key's secret. The secret itself is shown once and kept nowhere.
type KeyHash [sha256.Size]byte

// HashKey returns the hash under which a key's secret is stored and looked up.
func HashKey(secret string) KeyHash {
	var room [160]byte // most secrets fit, and cost no allocation
	return sha256.Sum256(append(room[:0], secret...))
}

// Key is a credential that a client sends to the gateway.
type Key struct {
	ID       KeyID
	Tenant   TenantID
	Hash     KeyHash
	Name     string
	Models   []string       // model names that the key may use, each possibly with * as a wildcard; none means all
	Groups   []string       // only channels of one of these groups, and of one of the tenant's; none means the tenant's
	Networks []netip.Prefix // where its clients may be; none means anywhere
	Tags     []Tag          // for the rows of its exchanges
	Disabled bool           // set by an operator; may be undone
	Revoked  bool           // final
	Expires  time.Time      // zero means never

	// Pinnable keys may be sent with a channel behind them, as in "sk-KEY-CHANNEL", the form of one-api: only that channel is used then.
	Pinnable bool

	// Previous is the hash of the secret before this one, which works until PreviousUntil; that is zero when there was none.
	Previous      KeyHash
	PreviousUntil time.Time
}

// Channel is one upstream account: where a model can be had, in what order of preference. Its URL and credential are no
// concern of this package.
type Channel struct {
	ID       ChannelID
	Name     string
	Models   []Model  // what it serves
	Priority int      // higher goes first
	Weight   int      // share of first attempts among channels of one priority; at least 1
	Tenant   TenantID // only this tenant may use it; zero means everybody
	Disabled bool
	Partial  Partial  // what is billed without the provider's count; empty means [BillEstimate]
	Groups   []string // that it belongs to; keys and tenants may be held to some
}

// Partial says what is billed of an exchange whose tokens the provider did not count: the client left, the provider cut the answer or
// reported no usage, or nothing is known of its end. What the provider counted is billed as counted, however the exchange ended.
type Partial string

// The policies. Their names are in weir.channel and never change.
const (
	BillEstimate Partial = "estimate" // all tokens, as estimated
	BillInput    Partial = "input"    // the input, as estimated: the provider has had it; of the output nothing
	BillNone     Partial = "none"     // nothing
)

// partialCodes are the bits of the ticket format; append only, up to four.
var partialCodes = []Partial{BillEstimate, BillInput, BillNone}

// Partials returns all policies, the default first.
func Partials() []Partial { return slices.Clone(partialCodes) }

// Model is a model that a channel serves.
type Model struct {
	Name     string // as clients ask for it
	Upstream string // as the provider calls it; empty means the same
}
