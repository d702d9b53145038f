// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"crypto/sha256"
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
	Disabled bool // every key of a disabled tenant is refused
}

// KeyHash is the SHA-256 of a key's secret. The secret itself is shown once and kept nowhere.
type KeyHash [sha256.Size]byte

// HashKey returns the hash under which a key's secret is stored and looked up.
func HashKey(secret string) KeyHash { return sha256.Sum256([]byte(secret)) }

// Key is a credential that a client sends to the gateway.
type Key struct {
	ID       KeyID
	Tenant   TenantID
	Hash     KeyHash
	Name     string
	Models   []string  // model names that the key may use, each possibly with * as a wildcard; none means all
	Disabled bool      // set by an operator; may be undone
	Revoked  bool      // final
	Expires  time.Time // zero means never
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
}

// Model is a model that a channel serves.
type Model struct {
	Name     string // as clients ask for it
	Upstream string // as the provider calls it; empty means the same
}
