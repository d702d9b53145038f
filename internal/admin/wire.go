// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/usage"
)

// List is the answer to every request for several things.
type List[T any] struct {
	Items []T    `json:"items"`          // never null
	Next  string `json:"next,omitempty"` // pass it as cursor to get what follows; absent when nothing does
}

// Nullable is a member of a change that can be absent (leave it), null (undo it) or a value.
type Nullable[T any] struct {
	Present bool
	Value   *T // nil means null
}

// To is a present value.
func To[T any](v T) Nullable[T] { return Nullable[T]{Present: true, Value: &v} }

// Null is a present null.
func Null[T any]() Nullable[T] { return Nullable[T]{Present: true} }

// IsZero lets omitzero leave an absent member out.
func (n Nullable[T]) IsZero() bool { return !n.Present }

// MarshalJSON implements json.Marshaler.
func (n Nullable[T]) MarshalJSON() ([]byte, error) { return json.Marshal(n.Value) }

// UnmarshalJSON implements json.Unmarshaler.
func (n *Nullable[T]) UnmarshalJSON(b []byte) error {
	n.Present, n.Value = true, nil
	if bytes.Equal(b, []byte("null")) {
		return nil
	}
	return json.Unmarshal(b, &n.Value)
}

// Tenant is a customer.
type Tenant struct {
	ID       int64     `json:"id"`
	Name     string    `json:"name"`
	Disabled bool      `json:"disabled"`
	Groups   []string  `json:"groups"`    // of channels that it may use; empty means any
	ParentID *int64    `json:"parent_id"` // whose budgets count too; null: nobody's
	Parent   *string   `json:"parent"`
	TimeZone string    `json:"time_zone"` // in which the periods of its budgets begin
	Created  time.Time `json:"created"`
}

// NewTenant asks for a tenant.
type NewTenant struct {
	Name     string       `json:"name"`
	Parent   string       `json:"parent,omitempty"`    // id or name; none when empty
	TimeZone string       `json:"time_zone,omitempty"` // UTC when empty
	Budget   *BudgetTerms `json:"budget,omitempty"`
	Limits   *Rates       `json:"limits,omitempty"` // of all its keys together, for all models
}

// TenantChange changes the members that are present.
type TenantChange struct {
	Name     *string               `json:"name,omitempty"`
	Disabled *bool                 `json:"disabled,omitempty"`
	Parent   Nullable[string]      `json:"parent,omitzero"`
	TimeZone *string               `json:"time_zone,omitempty"`
	Budget   Nullable[BudgetTerms] `json:"budget,omitzero"`  // null: no budget any more
	Limits   *Rates                `json:"limits,omitempty"` // of all its keys together, for all models
	Groups   *[]string             `json:"groups,omitempty"`
}

// Key is what clients of the gateway authenticate with.
type Key struct {
	ID       int64      `json:"id"`
	TenantID int64      `json:"tenant_id"`
	Tenant   string     `json:"tenant"`
	Name     string     `json:"name"`
	Hint     string     `json:"hint"`   // the first and last characters of the secret
	Models   []string   `json:"models"` // empty means all
	Disabled bool       `json:"disabled"`
	Revoked  bool       `json:"revoked"`
	Expires  *time.Time `json:"expires"` // null means never
	Created  time.Time  `json:"created"`
	KeyScope
}

// KeyScope is what a key may reach beyond its models, and what it carries.
type KeyScope struct {
	Groups        []string          `json:"groups"`         // of channels; empty means those of the tenant
	Networks      []string          `json:"networks"`       // of clients; empty means any
	Tags          map[string]string `json:"tags"`           // for rows of usage
	Metadata      map[string]string `json:"metadata"`       // for people
	Pinnable      bool              `json:"pinnable"`       // may be sent with a channel behind it
	Fingerprint   string            `json:"fingerprint"`    // the first 16 hexadecimal digits of the SHA-256 of the secret
	PreviousUntil *time.Time        `json:"previous_until"` // the secret before works until then; null: there is none
}

// CreatedKey is a key with its secret, which is shown this once.
type CreatedKey struct {
	Key
	Secret string `json:"secret"`
}

// NewKey asks for a key. Every member may be left out.
type NewKey struct {
	Tenant  string     `json:"tenant,omitempty"` // id or name; "default" when empty
	Name    string     `json:"name,omitempty"`
	Models  []string   `json:"models,omitempty"`
	Expires *time.Time `json:"expires,omitempty"`
	Limits  *Rates     `json:"limits,omitempty"` // for all models

	Groups   []string          `json:"groups,omitempty"`
	Networks []string          `json:"networks,omitempty"`
	Tags     map[string]string `json:"tags,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Pinnable bool              `json:"pinnable,omitempty"`
	Hash     string            `json:"hash,omitempty"` // of a secret that exists, as [HashOf] writes it; then none is made
	Hint     string            `json:"hint,omitempty"` // with hash: what may be shown of the secret
	Budget   *BudgetTerms      `json:"budget,omitempty"`
}

// KeyChange changes the members that are present.
type KeyChange struct {
	Name     *string             `json:"name,omitempty"`
	Models   *[]string           `json:"models,omitempty"`
	Disabled *bool               `json:"disabled,omitempty"`
	Expires  Nullable[time.Time] `json:"expires,omitzero"`
	Limits   *Rates              `json:"limits,omitempty"` // for all models

	Groups   *[]string             `json:"groups,omitempty"`
	Networks *[]string             `json:"networks,omitempty"`
	Tags     *map[string]string    `json:"tags,omitempty"`
	Metadata *map[string]string    `json:"metadata,omitempty"`
	Pinnable *bool                 `json:"pinnable,omitempty"`
	Hash     *string               `json:"hash,omitempty"` // puts another secret, which exists, in the place of this one, at once
	Hint     *string               `json:"hint,omitempty"`
	Budget   Nullable[BudgetTerms] `json:"budget,omitzero"` // null: no budget any more
}

// Model is a model that a channel serves.
type Model struct {
	Name     string `json:"name"`
	Upstream string `json:"upstream,omitempty"` // the provider's name for it; absent means the same
}

// Channel is an account with a provider. Its credential is never shown.
type Channel struct {
	ID            int64  `json:"id"`
	Name          string `json:"name"`
	Provider      string `json:"provider"`
	BaseURL       string `json:"base_url"`
	HasCredential bool   `json:"has_credential"`
	// CredentialFingerprint tells credentials apart: see the function. Empty: there is none.
	CredentialFingerprint string    `json:"credential_fingerprint"`
	Models                []Model   `json:"models"`
	Priority              int       `json:"priority"`  // higher goes first
	Weight                int       `json:"weight"`    // share of the first attempts among channels of one priority
	TenantID              *int64    `json:"tenant_id"` // null means that every tenant may use it
	Tenant                *string   `json:"tenant"`
	Disabled              bool      `json:"disabled"`
	BillPartial           string    `json:"bill_partial"` // estimate, input or none: see policy.Partial
	Groups                []string  `json:"groups"`       // that it belongs to
	Created               time.Time `json:"created"`
}

// NewChannel asks for a channel.
type NewChannel struct {
	Name       string  `json:"name"`
	Provider   string  `json:"provider"`
	BaseURL    string  `json:"base_url"`
	Credential string  `json:"credential,omitempty"` // none: the provider is asked without
	Models     []Model `json:"models"`
	Priority   int     `json:"priority,omitempty"`
	Weight     *int    `json:"weight,omitempty"` // 1 when absent
	Tenant     string  `json:"tenant,omitempty"` // id or name; empty means every tenant

	BillPartial string   `json:"bill_partial,omitempty"` // estimate when absent
	Groups      []string `json:"groups,omitempty"`
}

// ChannelChange changes the members that are present.
type ChannelChange struct {
	Name       *string          `json:"name,omitempty"`
	Provider   *string          `json:"provider,omitempty"`
	BaseURL    *string          `json:"base_url,omitempty"`
	Credential *string          `json:"credential,omitempty"`
	Models     *[]Model         `json:"models,omitempty"`
	Priority   *int             `json:"priority,omitempty"`
	Weight     *int             `json:"weight,omitempty"`
	Tenant     Nullable[string] `json:"tenant,omitzero"`
	Disabled   *bool            `json:"disabled,omitempty"`

	BillPartial *string   `json:"bill_partial,omitempty"`
	Groups      *[]string `json:"groups,omitempty"`
}

// ChannelTest is what a provider answered to a request for its list of models.
type ChannelTest struct {
	OK            bool     `json:"ok"`
	URL           string   `json:"url"`            // that was asked
	Status        int      `json:"status"`         // of HTTP; 0 when there was no answer
	LatencyMS     int64    `json:"latency_ms"`     // to the end of the answer
	Detail        string   `json:"detail"`         // what happened, in a sentence
	Hint          string   `json:"hint,omitempty"` // what to do about it
	MissingModels []string `json:"missing_models"` // models of the channel that the provider does not list
}

// UsageRow is what became of one exchange. Its members are the columns of weir.usage, and names for the ids.
type UsageRow struct {
	ExchangeID        uuid.UUID         `json:"exchange_id"`
	TS                time.Time         `json:"ts"`
	TenantID          int64             `json:"tenant_id"`
	Tenant            string            `json:"tenant"`
	KeyID             int64             `json:"key_id"`
	Key               string            `json:"key"`
	ChannelID         *int64            `json:"channel_id"` // null when no channel took it
	Channel           string            `json:"channel"`
	Model             string            `json:"model"`
	UpstreamModel     string            `json:"upstream_model"`
	Operation         string            `json:"operation"`
	Status            string            `json:"status"`
	HTTPStatus        int               `json:"http_status"`
	Attempts          int               `json:"attempts"`
	Stream            bool              `json:"stream"`
	Estimated         bool              `json:"estimated"`
	InputTokens       int64             `json:"input_tokens"`
	CachedInputTokens int64             `json:"cached_input_tokens"`
	OutputTokens      int64             `json:"output_tokens"`
	ReasoningTokens   int64             `json:"reasoning_tokens"`
	BilledInput       int64             `json:"billed_input_tokens"`  // of input_tokens; prices go by these
	BilledOutput      int64             `json:"billed_output_tokens"` // of output_tokens
	TokenDetails      usage.Details     `json:"token_details"`        // further parts of the tokens, those that are not zero
	CostNanoUSD       *int64            `json:"cost_nanousd"`         // null when unpriced
	PriceVersion      *int64            `json:"price_version"`        // that the cost rests on; null when unpriced
	RequestBytes      int64             `json:"request_bytes"`
	ResponseBytes     int64             `json:"response_bytes"`
	FirstByteMS       *int64            `json:"first_byte_ms"` // null when nothing was answered
	DurationMS        int64             `json:"duration_ms"`
	Tags              map[string]string `json:"tags"` // of plugins
}

// UsageSum is a total over exchanges.
type UsageSum struct {
	Group             map[string]string `json:"group"` // the values of the dimensions asked for
	Requests          int64             `json:"requests"`
	Estimated         int64             `json:"estimated"` // of requests
	InputTokens       int64             `json:"input_tokens"`
	CachedInputTokens int64             `json:"cached_input_tokens"`
	OutputTokens      int64             `json:"output_tokens"`
	ReasoningTokens   int64             `json:"reasoning_tokens"`
	BilledInput       int64             `json:"billed_input_tokens"`
	BilledOutput      int64             `json:"billed_output_tokens"`
	CostNanoUSD       *int64            `json:"cost_nanousd"` // null when nothing of it is priced
	Unpriced          int64             `json:"unpriced"`     // of requests
}

// Verdict is how a check ended.
type Verdict string

// The verdicts, from best to worst.
const (
	OK   Verdict = "ok"
	Warn Verdict = "warn" // served, but somebody should look
	Fail Verdict = "fail" // requests are refused
)

// Check is one finding about an installation.
type Check struct {
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	Detail  string  `json:"detail"`         // what was found
	Hint    string  `json:"hint,omitempty"` // how to mend it
}

// Readiness is the answer of /readyz.
type Readiness struct {
	Ready  bool    `json:"ready"`
	Checks []Check `json:"checks"` // without hints and those that are well, because anybody may ask
}

// Version says what is running.
type Version struct {
	Version string `json:"version"`
	Go      string `json:"go"`
}

// Problem is an error as RFC 9457 has it, with a hint.
type Problem struct {
	Type     string `json:"type"`
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Detail   string `json:"detail"`
	Hint     string `json:"hint,omitempty"`     // what to do
	Instance string `json:"instance,omitempty"` // names the request in the log of the server
}

// Error implements error.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.Title
	}
	return p.Detail
}
