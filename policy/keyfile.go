// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
)

// ErrKeyring is wrapped by the errors of [ReadKeys] for what Write has not written.
var ErrKeyring = errors.New("malformed keyring")

// Layout of a keyring that was written; integers are unsigned varints, strings are a varint length and bytes:
//
//	version=1 | n | n × access | length of the text | text | n | n × record
//	access     n | n × model | n | n × group | n | n × network
//	record     hash (32) | id (8) | tenant (8) | expires (8) | text (4) | access (4) | tags (2) | name (1) | flags (1), little-endian
//
// It has no checksum: whoever keeps it puts one around it.
const (
	keyringVersion = 1
	recordBytes    = 68
	maxListed      = 1 << 20 // entries of a list, so that a damaged length does not become an allocation
)

// Write writes the keys in a form that [ReadKeys] takes. Changes that are made meanwhile are in it or not. Only hashes are in it, no secret.
func (r *Keyring) Write(w io.Writer) error {
	t, err := r.merged()
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(w, 1<<16)
	b := binary.AppendUvarint([]byte{keyringVersion}, uint64(len(t.access)))
	for _, a := range t.access {
		b = appendAccess(b, a.models, a.groups, a.networks)
	}
	b = binary.AppendUvarint(b, uint64(len(t.text)))
	_, _ = out.Write(b) // the first error comes back from Flush
	_, _ = out.WriteString(t.text)
	_, _ = out.Write(binary.AppendUvarint(b[:0], uint64(len(t.records))))
	for i := range t.records {
		_, _ = out.Write(t.records[i].append(b[:0]))
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write keys: %w", err)
	}
	return nil
}

// merged returns a table that has all keys.
func (r *Keyring) merged() (*keyTable, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state.Load() == nil {
		return &keyTable{}, nil
	}
	if r.size > 0 {
		if err := r.mergeLocked(); err != nil {
			return nil, err
		}
	}
	return r.state.Load().table, nil
}

func (r *keyRecord) append(b []byte) []byte {
	b = append(b, r.hash[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.id))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.tenant))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.expires))
	b = binary.LittleEndian.AppendUint32(b, r.text)
	b = binary.LittleEndian.AppendUint32(b, r.access)
	b = binary.LittleEndian.AppendUint16(b, r.tags)
	return append(b, r.name, r.flags)
}

func (r *keyRecord) read(b []byte) {
	copy(r.hash[:], b)
	r.id = KeyID(binary.LittleEndian.Uint64(b[32:]))
	r.tenant = TenantID(binary.LittleEndian.Uint64(b[40:]))
	r.expires = int64(binary.LittleEndian.Uint64(b[48:]))
	r.text = binary.LittleEndian.Uint32(b[56:])
	r.access = binary.LittleEndian.Uint32(b[60:])
	r.tags = binary.LittleEndian.Uint16(b[64:])
	r.name, r.flags = b[66], b[67]
}

// ReadKeys reads what [Keyring.Write] wrote. Its errors wrap [ErrKeyring].
func ReadKeys(b []byte) (*KeyBuilder, error) {
	r := ticketReader{b: b}
	if v := r.byte(); v != keyringVersion {
		return nil, fmt.Errorf("%w: version %d", ErrKeyring, v)
	}
	out := NewKeyBuilder(0)
	for n := r.length(maxListed << 4); n > 0 && !r.failed; n-- {
		a := r.access()
		out.index[a] = uint32(len(out.access)) //nolint:gosec // bounded by length
		out.access = append(out.access, a)
		if out.known == nil {
			out.known = make(map[string]*access)
		}
		out.known[string(appendAccess(nil, a.models, a.groups, a.networks))] = a
	}
	out.text = r.bytes(r.length(math.MaxUint32))
	n := r.length(math.MaxUint32)
	if r.failed || len(r.b) != n*recordBytes {
		return nil, fmt.Errorf("%w: cut", ErrKeyring)
	}
	out.records = make([]keyRecord, n)
	for i := range out.records {
		rec := &out.records[i]
		rec.read(r.bytes(recordBytes))
		if end := int64(rec.text) + int64(rec.name) + int64(rec.tags); rec.id <= 0 || end > int64(len(out.text)) || int(rec.access) >= len(out.access) {
			return nil, fmt.Errorf("%w: record %d", ErrKeyring, i)
		}
	}
	return out, nil
}

// length reads how many of something follow: never more than there are bytes.
func (r *ticketReader) length(most uint64) int {
	n := r.uvarint()
	if n > most || n > uint64(len(r.b)) {
		r.failed = true
		return 0
	}
	return int(n) //nolint:gosec // at most len(r.b)
}

func (r *ticketReader) access() *access {
	a := &access{models: r.texts(), groups: r.texts()}
	for _, s := range r.texts() {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			r.failed = true
		}
		a.networks = append(a.networks, p)
	}
	a.allow = newAllowList(a.models)
	return a
}

func (r *ticketReader) texts() []string {
	var out []string
	for n := r.length(maxListed); n > 0 && !r.failed; n-- {
		out = append(out, r.string())
	}
	return out
}
