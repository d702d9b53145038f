// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// keyTable is a set of keys that never changes. It holds no pointer for a key, so that a million of them cost the collector nothing: records of a fixed size,
// their texts in one string, and lists, which many keys have in common, once each.
type keyTable struct {
	records []keyRecord // by id; those of one key behind each other
	slots   []uint32    // 1 + the place of a record, or 0; open addressing by the hash. Their number is a power of two, and half of them are free
	text    string
	access  []*access // the first allows everything
	keys    int       // distinct ids
}

// keyRecord is one secret of a key. It has no padding: 72 bytes.
type keyRecord struct {
	hash    KeyHash
	id      KeyID
	tenant  TenantID
	expires int64  // microseconds of Unix time; noExpiry: never
	text    uint32 // where name and tags begin
	access  uint32
	tags    uint16 // bytes, behind the name
	name    uint8  // bytes
	flags   uint8
	_       uint32
}

// noExpiry is later than any time that Postgres can hold.
const noExpiry = math.MaxInt64

// The flags of a record.
const (
	keyDisabled = 1 << iota
	keyRevoked
	keyPinnable
	keyPrevious // the secret is the one before; the record expires with it
)

// maxKeyName is the longest name of a key, in bytes.
const maxKeyName = math.MaxUint8

// access is what keys may reach: many have the same lists.
type access struct {
	models   []string
	groups   []string
	networks []netip.Prefix
	allow    allowList // of models
}

// find returns the record of a hash, or nil. The time that it takes depends on that hash only, and who cannot choose a secret by its hash
// learns nothing of the hashes that are stored from it: so it need not be constant.
func (t *keyTable) find(h *KeyHash) *keyRecord {
	if len(t.slots) == 0 {
		return nil
	}
	mask := uint64(len(t.slots) - 1)
	for at := binary.LittleEndian.Uint64(h[:]) & mask; ; at = (at + 1) & mask {
		n := t.slots[at]
		if n == 0 {
			return nil
		}
		if r := &t.records[n-1]; r.hash == *h {
			return r
		}
	}
}

// of returns the records of a key.
func (t *keyTable) of(id KeyID) []keyRecord {
	from, _ := slices.BinarySearchFunc(t.records, id, func(r keyRecord, id KeyID) int { return compareIDs(r.id, id) })
	to := from
	for to < len(t.records) && t.records[to].id == id {
		to++
	}
	return t.records[from:to]
}

func compareIDs(a, b KeyID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// entry returns what a record stands for.
func (t *keyTable) entry(r *keyRecord) keyEntry {
	end := r.text + uint32(r.name)
	return keyEntry{record: *r, name: t.text[r.text:end], tags: t.text[end : end+uint32(r.tags)], access: t.access[r.access]}
}

// keyEntry is a record with what it refers to in its table.
type keyEntry struct {
	record keyRecord // text and access count in a table alone
	name   string
	tags   string // encoded; see appendKeyTags
	access *access
}

// grant fills in what the entry gives access to, but for the tenant.
func (e *keyEntry) grant(g *grant) {
	r, a := &e.record, e.access
	g.access, g.pin = a, ""
	g.key = Key{
		ID: r.id, Tenant: r.tenant, Hash: r.hash, Name: e.name, Models: a.models, Groups: a.groups, Networks: a.networks,
		Disabled: r.flags&keyDisabled != 0, Revoked: r.flags&keyRevoked != 0, Pinnable: r.flags&keyPinnable != 0,
	}
	if len(e.tags) > 0 {
		g.key.Tags = parseKeyTags(e.tags)
	}
	if r.flags&keyPrevious != 0 {
		g.key.Hash, g.key.Previous, g.key.PreviousUntil = KeyHash{}, r.hash, time.UnixMicro(r.expires)
	} else if r.expires != noExpiry {
		g.key.Expires = time.UnixMicro(r.expires)
	}
}

// entries returns what is looked up of a key: one entry, or a second for the secret before. It returns an error for a key that no store should hold.
func (in *interner) entries(k *Key) ([]keyEntry, error) {
	if k.ID <= 0 {
		return nil, fmt.Errorf("key %d: id is not positive or not unique", k.ID)
	}
	if slices.Contains(k.Models, "") {
		return nil, fmt.Errorf("key %d: empty model name", k.ID)
	}
	if len(k.Name) > maxKeyName {
		return nil, fmt.Errorf("key %d: name of %d bytes", k.ID, len(k.Name))
	}
	tags := ""
	if len(k.Tags) > 0 {
		tags = string(appendKeyTags(nil, k.Tags))
	}
	if len(tags) > math.MaxUint16 {
		return nil, fmt.Errorf("key %d: tags of %d bytes", k.ID, len(tags))
	}
	e := keyEntry{
		name: strings.Clone(k.Name), tags: tags, access: in.intern(k),
		record: keyRecord{hash: k.Hash, id: k.ID, tenant: k.Tenant, expires: noExpiry, name: uint8(len(k.Name)), tags: uint16(len(tags))},
	}
	for _, f := range [...]struct {
		flag uint8
		set  bool
	}{{keyDisabled, k.Disabled}, {keyRevoked, k.Revoked}, {keyPinnable, k.Pinnable}} {
		if f.set {
			e.record.flags |= f.flag
		}
	}
	if !k.Expires.IsZero() {
		e.record.expires = k.Expires.UnixMicro()
	}
	all := []keyEntry{e}
	if !k.PreviousUntil.IsZero() {
		e.record.hash = k.Previous
		e.record.expires = min(e.record.expires, k.PreviousUntil.UnixMicro())
		e.record.flags |= keyPrevious
		all = append(all, e)
	}
	return all, nil
}

func appendKeyTags(b []byte, tags []Tag) []byte {
	for _, t := range tags {
		b = appendString(appendString(b, t.Name), t.Value)
	}
	return b
}

// parseKeyTags reads what appendKeyTags wrote.
func parseKeyTags(s string) []Tag {
	var tags []Tag
	for r := (ticketReader{b: []byte(s)}); len(r.b) > 0 && !r.failed; {
		tags = append(tags, Tag{Name: r.string(), Value: r.string()})
	}
	return tags
}

// interner keeps one access for all keys with the same lists.
type interner struct {
	known   map[string]*access
	scratch []byte
}

// intern returns the access of a key.
func (in *interner) intern(k *Key) *access {
	b := appendAccess(in.scratch[:0], k.Models, k.Groups, k.Networks)
	in.scratch = b
	if a, ok := in.known[string(b)]; ok {
		return a
	}
	a := &access{models: cloneTexts(k.Models), groups: cloneTexts(k.Groups), networks: slices.Clone(k.Networks)}
	a.allow = newAllowList(a.models)
	if in.known == nil {
		in.known = make(map[string]*access)
	}
	in.known[string(b)] = a
	return a
}

// cloneTexts copies a list and its texts, which may be parts of something large.
func cloneTexts(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = strings.Clone(s)
	}
	return out
}

// appendAccess writes lists so that different ones are different bytes. The networks are written as texts.
func appendAccess(b []byte, models, groups []string, networks []netip.Prefix) []byte {
	for _, list := range [...][]string{models, groups} {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for _, s := range list {
			b = appendString(b, s)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(networks)))
	for _, n := range networks {
		b = appendString(b, n.String())
	}
	return b
}

// slotsFor returns how many slots a table of n records has.
func slotsFor(n int) int {
	if n == 0 {
		return 0
	}
	return 1 << bits.Len(uint(2*n-1))
}
