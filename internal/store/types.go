// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/internal/prices"
	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/usage"
)

// Errors that callers tell apart with errors.Is. What wraps them says which thing is meant, in words an operator reads.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("already exists")
	ErrInUse    = errors.New("still in use")
	ErrInvalid  = errors.New("invalid")
	ErrTooOld   = errors.New("too old")
)

// Secret is a credential. It prints as "[redacted]" everywhere; only Reveal gives it away.
type Secret string

// String implements fmt.Stringer.
func (Secret) String() string { return "[redacted]" }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return "[redacted]" }

// MarshalText keeps secrets out of JSON and logs.
func (Secret) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// Reveal returns the secret.
func (s Secret) Reveal() string { return string(s) }

// Tenant is a row of weir.tenant.
type Tenant struct {
	policy.Tenant
	Parent     policy.TenantID // whose budgets count too; zero: none
	ParentName string
	Zone       string // in which the periods of its budgets begin, such as Europe/Berlin
	Created    time.Time
}

// Key is a row of weir.key.
type Key struct {
	policy.Key
	TenantName string
	Metadata   map[string]string // for people; nil: none
	Hint       string            // the first and last characters of the secret, for people to tell keys apart: "sk-weir-Ab…9z"
	Created    time.Time
}

// Channel is a row of weir.channel with its models.
type Channel struct {
	policy.Channel
	TenantName string // empty when every tenant may use it
	Provider   string // the dialect: "openai", "azure", "anthropic", "fake"
	BaseURL    string // as SDKs take it: with the version, as in "https://api.openai.com/v1"
	Credential Secret // decrypted
	Created    time.Time
}

// Configuration is what the data plane runs on but for the keys and the [Terms], which are many and followed one by one. It is read in one snapshot of the database.
type Configuration struct {
	Revision int64 // grows with every committed change
	Tenants  []Tenant
	Channels []Channel
	Prices   prices.Version // in force

	// Attachments have the digests of their plugins; [Store.Wasm] has the modules.
	Attachments []Attachment
}

// UsageRow is a row of weir.usage with the names of what its ids refer to (empty when that has been deleted).
type UsageRow struct {
	Exchange             uuid.UUID
	Time                 time.Time
	TenantID             policy.TenantID
	KeyID                policy.KeyID
	ChannelID            policy.ChannelID
	Tenant, Key, Channel string
	Model, UpstreamModel string
	Operation, Status    string
	HTTPStatus, Attempts int
	Stream, Estimated    bool
	Input, CachedInput   int64
	Output, Reasoning    int64
	usage.Billed
	usage.Details
	CostNanoUSD                 *int64 // nil: not priced
	PriceVersion                *int64 // nil: not priced
	RequestBytes, ResponseBytes int64
	FirstByteMS                 *int64 // nil: nothing was answered
	DurationMS                  int64
	Tags                        map[string]string // of plugins; nil: none
}

// UsageFilter selects rows of weir.usage. Zero fields do not restrict.
type UsageFilter struct {
	Since, Until time.Time
	Tenant       policy.TenantID
	Key          policy.KeyID
	Channel      policy.ChannelID
	Model        string
	Status       string
	Exchange     uuid.UUID
	Zone         string    // in which sums have their days and months, such as Europe/Berlin; empty: UTC
	Limit        int       // at most this many, newest first; at most 1000
	Before       uuid.UUID // only rows older than this one (paging)
}

// UsageSum is a total over rows of weir.usage that share the values of Group.
type UsageSum struct {
	Group              map[string]string // the asked-for dimensions, by name
	Requests           int64
	Estimated          int64 // of Requests
	Input, CachedInput int64
	Output, Reasoning  int64
	usage.Billed
	CostNanoUSD int64
	Unpriced    int64 // of Requests: rows without a cost
}
