// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/policy"
)

// HeldKey is a key with all that it is held to.
type HeldKey struct {
	Key
	Budgets []Budget `json:"budgets"` // its own, that of its tenant, and those of the tenants above
	Limits  []Limit  `json:"limits"`  // its own, those of its tenant, and those of all
}

// Rotation asks for a new secret of a key.
type Rotation struct {
	OverlapSeconds int64 `json:"overlap_seconds"` // for so long the secret before works yet
}

// KeyImport asks for keys that have secrets already. What is left out of a key is as in [NewKey], for all of them.
type KeyImport struct {
	Tenant   string            `json:"tenant,omitempty"`
	Models   []string          `json:"models,omitempty"`
	Groups   []string          `json:"groups,omitempty"`
	Networks []string          `json:"networks,omitempty"`
	Tags     map[string]string `json:"tags,omitempty"`
	Pinnable bool              `json:"pinnable,omitempty"`
	Expires  *time.Time        `json:"expires,omitempty"`
	Keys     []ImportedKey     `json:"keys"` // at most 1000
}

// ImportedKey is a key by the hash of its secret, which stays with who has it.
type ImportedKey struct {
	Hash string `json:"hash"`
	Hint string `json:"hint"`
	Name string `json:"name,omitempty"`
}

// KeyImported says what became of an import.
type KeyImported struct {
	Created int `json:"created"`
	Known   int `json:"known"` // whose secret was there already: they are as they were
}

const hashScheme = "sha256:"

// HashOf returns the hash of a secret as requests have it: "sha256:" and 64 hexadecimal digits.
func HashOf(secret string) string {
	h := policy.HashKey(secret)
	return hashScheme + hex.EncodeToString(h[:])
}

// FingerprintOf returns the fingerprint of a hash that has the form of [HashOf].
func FingerprintOf(hash string) string {
	digits := strings.TrimPrefix(hash, hashScheme)
	return strings.ToLower(digits[:min(len(digits), fingerprintDigits)])
}

const fingerprintDigits = 16

func parseHash(s string) (h policy.KeyHash, err error) {
	digits, ok := strings.CutPrefix(s, hashScheme)
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != len(h) {
		return h, invalid(`"hash" is not sha256: and 64 hexadecimal digits`).hint("printf %%s SECRET | sha256sum makes them")
	}
	copy(h[:], b)
	return h, nil
}

func scopeOf(k store.Key) KeyScope {
	s := KeyScope{
		Groups: append([]string{}, k.Groups...), Networks: []string{}, Tags: map[string]string{}, Metadata: k.Metadata, Pinnable: k.Pinnable,
		Fingerprint: hex.EncodeToString(k.Hash[:fingerprintDigits/2]), PreviousUntil: timeOrNil(k.PreviousUntil),
	}
	for _, n := range k.Networks {
		s.Networks = append(s.Networks, n.String())
	}
	for _, t := range k.Tags {
		s.Tags[t.Name] = t.Value
	}
	if s.Metadata == nil {
		s.Metadata = map[string]string{}
	}
	return s
}

// wanted is what the store is to make.
func (n *NewKey) wanted() (store.NewKey, error) {
	want := store.NewKey{
		Tenant: n.Tenant, Name: n.Name, Models: n.Models, Groups: n.Groups, Networks: n.Networks, Tags: n.Tags, Metadata: n.Metadata,
		Pinnable: n.Pinnable, Hint: n.Hint, Budget: n.Budget.change(),
	}
	if n.Expires != nil {
		want.Expires = *n.Expires
	}
	var err error
	if want.Limits, err = n.Limits.change(); err != nil {
		return want, err
	}
	if n.Hash != "" {
		if want.Hash, err = parseHash(n.Hash); err != nil {
			return want, err
		}
	}
	return want, nil
}

func (a *api) rotateKey(w http.ResponseWriter, r *http.Request) error {
	var n Rotation
	if err := decode(w, r, &n); err != nil {
		return err
	}
	if n.OverlapSeconds < 0 || n.OverlapSeconds > int64(store.MaxOverlap/time.Second) {
		return invalid(`"overlap_seconds" must be from 0 to %d`, int64(store.MaxOverlap/time.Second))
	}
	k, secret, err := a.Store.RotateKey(r.Context(), r.PathValue("ref"), time.Duration(n.OverlapSeconds)*time.Second)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, CreatedKey{Key: keyOf(k), Secret: secret.Reveal()})
	return nil
}

func (a *api) importKeys(w http.ResponseWriter, r *http.Request) error {
	var n KeyImport
	if err := decode(w, r, &n); err != nil {
		return err
	}
	like, err := (&NewKey{
		Tenant: n.Tenant, Models: n.Models, Groups: n.Groups, Networks: n.Networks, Tags: n.Tags, Pinnable: n.Pinnable, Expires: n.Expires,
	}).wanted()
	if err != nil {
		return err
	}
	var keys []store.ImportedKey
	for _, k := range n.Keys {
		hash, err := parseHash(k.Hash)
		if err != nil {
			return err
		}
		keys = append(keys, store.ImportedKey{Hash: hash, Hint: k.Hint, Name: k.Name})
	}
	made, known, err := a.Store.ImportKeys(r.Context(), like, keys)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, KeyImported{Created: made, Known: known})
	return nil
}
