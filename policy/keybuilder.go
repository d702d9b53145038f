// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

// KeyBuilder gathers the keys that a [Keyring] is to hold. It is used by one goroutine, and once.
type KeyBuilder struct {
	interner
	records []keyRecord
	text    []byte
	access  []*access
	index   map[*access]uint32
}

// NewKeyBuilder returns a builder with room for so many keys. It may get more.
func NewKeyBuilder(keys int) *KeyBuilder {
	return &KeyBuilder{records: make([]keyRecord, 0, keys), index: make(map[*access]uint32)}
}

// Add takes a key. It keeps nothing of it. Keys in the order of their ids are quickest. It returns an error for one that no store should hold.
func (b *KeyBuilder) Add(k *Key) error {
	entries, err := b.entries(k)
	if err != nil {
		return err
	}
	return b.add(entries)
}

func (b *KeyBuilder) add(entries []keyEntry) error {
	for i := range entries {
		e := &entries[i]
		n, known := b.index[e.access]
		if !known {
			n = uint32(len(b.access)) //nolint:gosec // there are fewer than records
			b.access = append(b.access, e.access)
			b.index[e.access] = n
		}
		r := e.record
		if i > 0 {
			r.text = b.records[len(b.records)-1].text // the other secret of the same key
		} else {
			if len(b.text)+len(e.name)+len(e.tags) > math.MaxUint32 {
				return errors.New("the names and tags of all keys take more than 4 GiB")
			}
			r.text = uint32(len(b.text)) //nolint:gosec // checked above
			b.text = append(append(b.text, e.name...), e.tags...)
		}
		r.access = n
		b.records = append(b.records, r)
	}
	return nil
}

// table indexes what was added.
func (b *KeyBuilder) table() (*keyTable, error) {
	byID := func(x, y keyRecord) int { return compareIDs(x.id, y.id) }
	if !slices.IsSortedFunc(b.records, byID) {
		slices.SortStableFunc(b.records, byID)
	}
	if len(b.records) >= math.MaxUint32 {
		return nil, fmt.Errorf("%d keys are too many", len(b.records))
	}
	t := &keyTable{records: b.records, slots: make([]uint32, slotsFor(len(b.records))), text: string(b.text), access: b.access}
	for i := range t.records {
		r := &t.records[i]
		if i == 0 || t.records[i-1].id != r.id {
			t.keys++
		} else if r.flags&keyPrevious == 0 {
			return nil, fmt.Errorf("key %d: id is not positive or not unique", r.id)
		}
		if err := t.insert(i); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// insert puts a record into the slots. Of two with one hash the one whose secret it is now wins.
func (t *keyTable) insert(i int) error {
	r, mask := &t.records[i], uint64(len(t.slots)-1)
	for at := binary.LittleEndian.Uint64(r.hash[:]) & mask; ; at = (at + 1) & mask {
		n := t.slots[at]
		if n == 0 {
			t.slots[at] = uint32(i + 1) //nolint:gosec // checked by table
			return nil
		}
		other := &t.records[n-1]
		if other.hash != r.hash {
			continue
		}
		switch {
		case r.flags&keyPrevious != 0:
		case other.flags&keyPrevious != 0:
			t.slots[at] = uint32(i + 1) //nolint:gosec // checked by table
		default:
			return fmt.Errorf("key %d: same hash as key %d", r.id, other.id)
		}
		return nil
	}
}
