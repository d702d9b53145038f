// SPDX-License-Identifier: Apache-2.0

package store

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"github.com/weir-proxy/weir/policy"
)

// PluginID is the id of a plugin.
type PluginID int64

// AttachmentID is the id of an attachment.
type AttachmentID int64

// Digest names a version of a plugin: the SHA-256 of its module. The zero value is none.
type Digest [sha256.Size]byte

// DigestOf returns the digest of a module.
func DigestOf(wasm []byte) Digest { return sha256.Sum256(wasm) }

// String returns 64 hexadecimal digits, or nothing for the zero value.
func (d Digest) String() string {
	if d == (Digest{}) {
		return ""
	}
	return hex.EncodeToString(d[:])
}

// Plugin is a row of weir.plugin with its versions.
type Plugin struct {
	ID         PluginID
	Name       string
	Tenant     policy.TenantID // whose it is; zero: the operator's, for any tenant
	TenantName string
	Versions   []PluginVersion // the one that was pushed last comes first
	Attached   int             // times
	Created    time.Time
}

// PluginVersion is a row of weir.plugin_version without its module.
type PluginVersion struct {
	Digest Digest
	Size   int64  // bytes of the module
	About  string // what the module says of itself, JSON; empty: nothing
	Schema string // of its configuration, JSON Schema; empty: none
	Pushed time.Time
}

// Version returns the version that ref means: the first digits of its digest, six of them at least, or nothing for the one that was pushed last.
func (p *Plugin) Version(ref string) (PluginVersion, error) {
	prefix := strings.TrimPrefix(strings.ToLower(ref), "sha256:")
	if ref != "" && (len(prefix) < minDigestRef || len(prefix) > 2*sha256.Size || strings.Trim(prefix, "0123456789abcdef") != "") {
		return PluginVersion{}, invalid("version %q: a version is named by the first digits of its digest, at least %d", ref, minDigestRef)
	}
	var found []PluginVersion
	for _, v := range p.Versions {
		if strings.HasPrefix(v.Digest.String(), prefix) {
			found = append(found, v)
		}
	}
	switch {
	case len(found) == 0:
		return PluginVersion{}, notFound("plugin", p.Name+"@"+ref)
	case len(found) > 1 && ref != "":
		return PluginVersion{}, invalid("version %q: %d versions of %s begin so; give more digits", ref, len(found), p.Name)
	}
	return found[0], nil
}

// PluginMode is what an attachment makes of a plugin's verdicts and failures.
type PluginMode string

// Modes of an attachment.
const (
	PluginClosed PluginMode = "closed" // a failure denies the exchange
	PluginOpen   PluginMode = "open"   // a failure is as if the plugin had gone on
	PluginShadow PluginMode = "shadow" // verdicts and failures are counted, and neither is used
)

// PluginLimits bound a plugin. A zero means the default.
type PluginLimits struct {
	Fuel        int64 // of a call
	MemoryBytes int64
	Time        time.Duration // of a call, in whole milliseconds
}

// PluginSettings are how a plugin is run where it is attached.
type PluginSettings struct {
	Place    int // among the attachments of one scope: lower goes first, equal ones by id
	Mode     PluginMode
	Config   string   // as the plugin gets it, usually JSON; empty: none
	Grants   []string // capabilities
	Headers  []string // that the plugin is shown, in lower case
	Body     bool     // it is shown the body too
	Limits   PluginLimits
	Disabled bool

	Upstreams   []PluginUpstream // that the plugin may call
	RequestOnly bool             // it is not shown responses, even if it has hooks for them
}

// PluginUpstream is a server that a plugin may call. Its JSON is what stands in weir.attachment.
type PluginUpstream struct {
	Name    string `json:"name"` // as the plugin calls it: the name of a cluster
	URL     string `json:"url"`  // such as https://moderation.example.com; a path in it is put before that of each call
	Private bool   `json:"private,omitempty"`
}

// Attachment is a row of weir.attachment: a plugin in a place.
type Attachment struct {
	ID         AttachmentID
	PluginID   PluginID
	Plugin     string // its name
	Digest     Digest // the version in force
	Tenant     policy.TenantID
	TenantName string
	Key        policy.KeyID
	KeyName    string
	PluginSettings
	Created time.Time
	AttachmentHistory
}

// AttachmentHistory is what became of the versions of an attachment.
type AttachmentHistory struct {
	Swapped        time.Time // when the version was changed last
	Previous       Digest    // the version before; zero: there is no way back
	PreviousConfig string
	RolledBack     time.Time // zero: the version in force was chosen by somebody
	RolledBackWhy  string
	RolledBackOf   Digest // the version that was left
}
