// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"iter"
	"maps"
	"sync"
	"sync/atomic"
)

// Registry holds things by their ids, while it is being changed: readers neither wait nor allocate, and the change of one thing among many copies a small part
// of them alone. It is made for what keys and tenants have of their own: budgets, limits. The zero value is empty.
type Registry[K ~int64, V any] struct {
	mu     sync.Mutex // of who changes it
	shards [registryShards]atomic.Pointer[map[K]V]
	count  atomic.Int64
}

const registryShards = 256

// shardFor spreads ids that rise one by one evenly.
func shardFor[K ~int64](k K) uint64 {
	return uint64(k) % registryShards //nolint:gosec // any number does
}

// Get returns the thing of an id.
func (r *Registry[K, V]) Get(k K) (v V, ok bool) {
	if m := r.shards[shardFor(k)].Load(); m != nil {
		v, ok = (*m)[k]
	}
	return v, ok
}

// Len returns how many things there are.
func (r *Registry[K, V]) Len() int { return int(r.count.Load()) }

// All goes through the things, in no order. What changes meanwhile may be seen or not.
func (r *Registry[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for i := range r.shards {
			m := r.shards[i].Load()
			if m == nil {
				continue
			}
			for k, v := range *m {
				if !yield(k, v) {
					return
				}
			}
		}
	}
}

// Change takes out what is gone, and then puts things in the place of those with the same ids, or beside them.
func (r *Registry[K, V]) Change(put map[K]V, gone []K) {
	r.mu.Lock()
	defer r.mu.Unlock()
	edited := make(map[uint64]map[K]V)
	shard := func(k K) map[K]V {
		i := shardFor(k)
		m, ok := edited[i]
		if !ok {
			m = make(map[K]V)
			if old := r.shards[i].Load(); old != nil {
				m = maps.Clone(*old)
			}
			edited[i] = m
		}
		return m
	}
	for _, k := range gone {
		delete(shard(k), k)
	}
	for k, v := range put {
		shard(k)[k] = v
	}
	for i, m := range edited {
		before := 0
		if old := r.shards[i].Load(); old != nil {
			before = len(*old)
		}
		r.shards[i].Store(&m)
		r.count.Add(int64(len(m) - before))
	}
}
