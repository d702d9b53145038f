// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"encoding/json"
	"time"
)

// Plugin is a policy in WebAssembly.
type Plugin struct {
	ID       int64           `json:"id"`
	Name     string          `json:"name"`
	TenantID *int64          `json:"tenant_id"` // null means that it is the operator's, for any tenant
	Tenant   *string         `json:"tenant"`
	Versions []PluginVersion `json:"versions"` // the one that was pushed last comes first
	Attached int             `json:"attached"` // times
	Created  time.Time       `json:"created"`
}

// PluginVersion is a module of a plugin.
type PluginVersion struct {
	Digest string          `json:"digest"` // SHA-256, in hexadecimal
	Size   int64           `json:"size"`   // bytes
	About  json.RawMessage `json:"about"`  // what it says of itself; null when nothing
	Schema json.RawMessage `json:"schema"` // JSON Schema of its configuration; null when none
	Pushed time.Time       `json:"pushed"`
}

// PluginConfig is the configuration of a plugin, as the plugin gets it. In JSON it is an object or a list as it stands, but for the spaces in between, and any other
// text a string.
type PluginConfig string

// MarshalJSON implements json.Marshaler.
func (c PluginConfig) MarshalJSON() ([]byte, error) {
	if t := bytes.TrimSpace([]byte(c)); len(t) > 0 && (t[0] == '{' || t[0] == '[') && json.Valid(t) {
		return t, nil
	}
	return json.Marshal(string(c))
}

// UnmarshalJSON implements json.Unmarshaler.
func (c *PluginConfig) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, (*string)(c))
	}
	var short bytes.Buffer
	if err := json.Compact(&short, b); err != nil {
		return err
	}
	*c = PluginConfig(short.String())
	return nil
}

// PluginLimits bound a plugin. Zero and absent mean the default.
type PluginLimits struct {
	Fuel        int64 `json:"fuel,omitempty"`         // of a call
	MemoryBytes int64 `json:"memory_bytes,omitempty"` // a multiple of 65536
	TimeMS      int64 `json:"time_ms,omitempty"`      // of a call
}

// Attachment is a plugin in a place: what it judges, and how it is run there.
type Attachment struct {
	ID       int64        `json:"id"`
	PluginID int64        `json:"plugin_id"`
	Plugin   string       `json:"plugin"`
	Digest   string       `json:"digest"`    // the version in force
	TenantID *int64       `json:"tenant_id"` // null: exchanges of all tenants
	Tenant   *string      `json:"tenant"`
	KeyID    *int64       `json:"key_id"` // null: of all keys
	Key      *string      `json:"key"`
	Place    int          `json:"place"` // lower goes first
	Mode     string       `json:"mode"`  // closed, open or shadow
	Config   PluginConfig `json:"config"`
	PluginRights
	Limits   PluginLimits `json:"limits"`
	Disabled bool         `json:"disabled"`
	AttachmentHistory
}

// PluginRights are what a plugin may see and use.
type PluginRights struct {
	Grants  []string `json:"grants"`  // capabilities
	Headers []string `json:"headers"` // that it is shown
	Body    bool     `json:"body"`    // it is shown the body

	Upstreams   []PluginUpstream `json:"upstreams"`    // that it may call
	RequestOnly bool             `json:"request_only"` // it is not shown responses
}

// PluginUpstream is a server that a plugin may call.
type PluginUpstream struct {
	Name    string `json:"name"` // as the plugin calls it
	URL     string `json:"url"`
	Private bool   `json:"private,omitempty"` // it may be at a private or local address
}

// AttachmentHistory is what became of an attachment.
type AttachmentHistory struct {
	Created    time.Time   `json:"created"`
	Swapped    time.Time   `json:"swapped"`     // when the version was changed last
	Previous   *string     `json:"previous"`    // the version before; null when there is no way back
	RolledBack *RolledBack `json:"rolled_back"` // null when the version in force was chosen by somebody
}

// RolledBack says that a version was given up for the one before.
type RolledBack struct {
	At   time.Time `json:"at"`
	From string    `json:"from"` // the version that was left
	Why  string    `json:"why"`
}

// NewAttachment asks for an attachment: with neither a tenant nor a key, to all exchanges.
type NewAttachment struct {
	Plugin   string       `json:"plugin"`
	Version  string       `json:"version,omitempty"` // the first digits of its digest; the one that was pushed last when absent
	Tenant   string       `json:"tenant,omitempty"`  // id or name
	Key      string       `json:"key,omitempty"`     // id or name
	Place    int          `json:"place,omitempty"`
	Mode     string       `json:"mode,omitempty"` // closed when absent
	Config   PluginConfig `json:"config,omitempty"`
	Grants   []string     `json:"grants,omitempty"`
	Headers  []string     `json:"headers,omitempty"`
	Body     bool         `json:"body,omitempty"`
	Limits   PluginLimits `json:"limits,omitzero"`
	Disabled bool         `json:"disabled,omitempty"`

	Upstreams   []PluginUpstream `json:"upstreams,omitempty"`
	RequestOnly bool             `json:"request_only,omitempty"`
}

// AttachmentChange changes the members that are present.
type AttachmentChange struct {
	Version  *string       `json:"version,omitempty"` // an empty one means the one that was pushed last
	Place    *int          `json:"place,omitempty"`
	Mode     *string       `json:"mode,omitempty"`
	Config   *PluginConfig `json:"config,omitempty"`
	Grants   *[]string     `json:"grants,omitempty"`
	Headers  *[]string     `json:"headers,omitempty"`
	Body     *bool         `json:"body,omitempty"`
	Limits   *PluginLimits `json:"limits,omitempty"` // as a whole
	Disabled *bool         `json:"disabled,omitempty"`

	Upstreams   *[]PluginUpstream `json:"upstreams,omitempty"` // as a whole
	RequestOnly *bool             `json:"request_only,omitempty"`
}

// NewRollBack asks for the version before.
type NewRollBack struct {
	Why string `json:"why,omitempty"`
}
