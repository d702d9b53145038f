// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Keyring holds keys and finds one by the hash of its secret, while it is being changed. It is made for millions of keys, of which few change at a
// time: most are in a table that never changes, the others in an overlay, and when that has grown both become another table. So the change of a key costs as
// much as the overlay is large at most, not as there are keys. The zero value is empty.
type Keyring struct {
	state atomic.Pointer[ringState] // nil: empty

	mu       sync.Mutex // held while it is changed
	interner interner
	changed  map[KeyID][]KeyHash // keys that the overlay speaks for, with their hashes there; none: the key is gone
	size     int                 // of the overlay, in entries
}

// ringState is what readers use. The table is immutable; a shard of the overlay is replaced as a whole.
type ringState struct {
	table   *keyTable
	overlay [overlayShards]atomic.Pointer[map[KeyHash]*keyEntry] // by the first byte of the hash; a nil entry: the hash is no key's any more
	keys    atomic.Int64
}

const (
	overlayShards = 256
	// The overlay is merged into the table when it has more entries than this and a sixteenth of the table's.
	overlayLeast = 4096
	overlayShare = 16
)

// Len returns the number of keys, revoked ones too.
func (r *Keyring) Len() int {
	if s := r.state.Load(); s != nil {
		return int(s.keys.Load())
	}
	return 0
}

// find sets g to what the key of a hash gives access to, but for its tenant. It does not look at whether the key may be used.
func (r *Keyring) find(h *KeyHash, g *grant) bool {
	e, ok := r.entry(h)
	if ok {
		e.grant(g)
	}
	return ok
}

// entry returns what there is of a hash.
func (r *Keyring) entry(h *KeyHash) (e keyEntry, ok bool) {
	s := r.state.Load()
	if s == nil {
		return e, false
	}
	if shard := s.overlay[h[0]].Load(); shard != nil {
		if found, ok := (*shard)[*h]; ok {
			if found == nil {
				return e, false
			}
			return *found, true
		}
	}
	if found := s.table.find(h); found != nil {
		return s.table.entry(found), true
	}
	return e, false
}

// Replace makes the keyring hold what the builder has, and nothing else. It returns an error, and changes nothing, for keys that no store should hold
// together: ids or hashes that repeat.
func (r *Keyring) Replace(b *KeyBuilder) error {
	t, err := b.table()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.interner = b.interner
	r.setLocked(t)
	return nil
}

func (r *Keyring) setLocked(t *keyTable) {
	s := &ringState{table: t}
	s.keys.Store(int64(t.keys))
	r.changed, r.size = make(map[KeyID][]KeyHash), 0
	r.state.Store(s)
}

// Change puts keys in the place of those with the same id, adds those that are new, and takes out those that are gone. A key that no store should hold is an
// error, and none is changed then.
func (r *Keyring) Change(keys []Key, gone []KeyID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state.Load() == nil {
		r.setLocked(&keyTable{})
	}
	e := ringEdit{ring: r, state: r.state.Load()}
	for i := range keys {
		entries, err := r.interner.entries(&keys[i])
		if err != nil {
			return err
		}
		e.put = append(e.put, entries)
	}
	for _, entries := range e.put {
		e.set(entries[0].record.id, entries)
	}
	for _, id := range gone {
		e.set(id, nil)
	}
	e.publish()
	if r.size > max(overlayLeast, len(e.state.table.records)/overlayShare) {
		return r.mergeLocked()
	}
	return nil
}

// Knows reports whether a key is in the keyring.
func (r *Keyring) Knows(id KeyID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.state.Load()
	return s != nil && len(r.hashesLocked(s, id)) > 0
}

// hashesLocked returns under which hashes a key is found.
func (r *Keyring) hashesLocked(s *ringState, id KeyID) []KeyHash {
	if hashes, ok := r.changed[id]; ok {
		return hashes
	}
	var hashes []KeyHash
	for _, rec := range s.table.of(id) {
		hashes = append(hashes, rec.hash)
	}
	return hashes
}

// ringEdit is a change of the overlay on its way. Each shard is copied once, however many keys of it change.
type ringEdit struct {
	ring   *Keyring
	state  *ringState
	put    [][]keyEntry
	shards [overlayShards]map[KeyHash]*keyEntry // those that change
}

func (e *ringEdit) shard(h *KeyHash) map[KeyHash]*keyEntry {
	to := &e.shards[h[0]]
	if *to == nil {
		*to = make(map[KeyHash]*keyEntry)
		if old := e.state.overlay[h[0]].Load(); old != nil {
			maps.Copy(*to, *old)
		}
	}
	return *to
}

// holder returns whose a hash is, or zero.
func (e *ringEdit) holder(h *KeyHash) (id KeyID, previous bool) {
	if entry, ok := e.shard(h)[*h]; ok {
		if entry == nil {
			return 0, false
		}
		return entry.record.id, entry.record.flags&keyPrevious != 0
	}
	if r := e.state.table.find(h); r != nil {
		return r.id, r.flags&keyPrevious != 0
	}
	return 0, false
}

// set makes entries all that there is of a key. A hash that has gone over to another key stays that key's.
func (e *ringEdit) set(id KeyID, entries []keyEntry) {
	before := e.ring.hashesLocked(e.state, id)
	for i := range before {
		if owner, _ := e.holder(&before[i]); owner == id {
			e.write(&before[i], nil)
		}
	}
	hashes := make([]KeyHash, 0, len(entries))
	for i := range entries {
		h := &entries[i].record.hash
		owner, previous := e.holder(h)
		if owner != 0 && owner != id && !previous && entries[i].record.flags&keyPrevious != 0 {
			continue // somebody's secret of today
		}
		e.write(h, &entries[i])
		hashes = append(hashes, *h)
	}
	switch {
	case len(before) == 0 && len(hashes) > 0:
		e.state.keys.Add(1)
	case len(before) > 0 && len(hashes) == 0:
		e.state.keys.Add(-1)
	}
	e.ring.changed[id] = hashes
}

func (e *ringEdit) write(h *KeyHash, entry *keyEntry) {
	shard := e.shard(h)
	if _, there := shard[*h]; !there {
		e.ring.size++
	}
	shard[*h] = entry
}

// publish lets readers see the change.
func (e *ringEdit) publish() {
	for i, shard := range e.shards {
		if shard != nil {
			e.state.overlay[i].Store(&shard)
		}
	}
}

// mergeLocked makes one table of the table and the overlay.
func (r *Keyring) mergeLocked() error {
	s := r.state.Load()
	b := NewKeyBuilder(len(s.table.records) + r.size)
	b.text = make([]byte, 0, len(s.table.text))
	for i := 0; i < len(s.table.records); {
		records := s.table.of(s.table.records[i].id)
		i += len(records)
		if _, changed := r.changed[records[0].id]; changed {
			continue
		}
		entries := make([]keyEntry, 0, 2)
		for j := range records {
			entries = append(entries, s.table.entry(&records[j]))
		}
		if err := b.add(entries); err != nil {
			return err
		}
	}
	for id, hashes := range r.changed {
		var entries []keyEntry
		for i := range hashes {
			if e := (*s.overlay[hashes[i][0]].Load())[hashes[i]]; e != nil && e.record.id == id {
				entries = append(entries, *e)
			}
		}
		if err := b.add(entries); err != nil {
			return err
		}
	}
	t, err := b.table()
	if err != nil {
		return err
	}
	for known, a := range r.interner.known { // what no key has any more
		if _, used := b.index[a]; !used {
			delete(r.interner.known, known)
		}
	}
	r.setLocked(t)
	return nil
}
