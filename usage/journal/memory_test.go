// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// memory is a file system that forgets what was not synced when the power fails, that can be full, and whose calls can fail.
type memory struct {
	mu     sync.Mutex
	files  map[string]*memoryFile // as the running system sees them
	onDisk map[string]*memoryFile // the names that are durable
	locked bool
	space  int64 // bytes that still fit; negative: without limit
	calls  map[string]int
	fail   func(call, path string) error // nil: never
}

// memoryFile is a file's bytes, and those of them that are durable.
type memoryFile struct {
	data, durable []byte
	poisoned      bool // a sync failed: the kernel has dropped what was dirty, and later syncs do not bring it to the disk
}

func newMemory() *memory {
	return &memory{files: make(map[string]*memoryFile), onDisk: make(map[string]*memoryFile), space: -1, calls: make(map[string]int)}
}

// call counts a call and lets it fail. The lock must be held.
func (m *memory) call(name, path string) error {
	m.calls[name]++
	if m.fail == nil {
		return nil
	}
	return m.fail(name, path)
}

func (m *memory) Open(path string, how mode) (file, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.call("open", path); err != nil {
		return nil, err
	}
	f := m.files[path]
	switch {
	case f == nil && how == forReading:
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	case f != nil && how == newFile:
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrExist}
	case f == nil:
		f = &memoryFile{}
		m.files[path] = f
	}
	return &memoryHandle{m, path, f}, nil
}

func (m *memory) List(dir string) (names []string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for path := range m.files {
		if filepath.Dir(path) == dir {
			names = append(names, filepath.Base(path))
		}
	}
	slices.Sort(names)
	return names, nil
}

func (m *memory) Remove(path string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.call("remove", path); err != nil {
		return err
	}
	if m.files[path] == nil {
		return &fs.PathError{Op: "remove", Path: path, Err: fs.ErrNotExist}
	}
	if m.space >= 0 {
		m.space += int64(len(m.files[path].data))
	}
	delete(m.files, path)
	return nil
}

func (m *memory) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.call("syncdir", dir); err != nil {
		return err
	}
	for path := range m.onDisk {
		if filepath.Dir(path) == dir && m.files[path] == nil {
			delete(m.onDisk, path)
		}
	}
	for path, f := range m.files {
		if filepath.Dir(path) == dir {
			m.onDisk[path] = f
		}
	}
	return nil
}

func (m *memory) Lock(dir string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locked {
		return nil, fmt.Errorf("%w: %s", ErrLocked, dir)
	}
	m.locked = true
	return unlocker{m}, nil
}

type unlocker struct{ m *memory }

func (u unlocker) Close() error {
	u.m.mu.Lock()
	defer u.m.mu.Unlock()
	u.m.locked = false
	return nil
}

// kill returns the file system as the next process finds it when this one is killed; what this one still does has no effect on it.
func (m *memory) kill() *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := newMemory()
	copies := make(map[*memoryFile]*memoryFile)
	dup := func(f *memoryFile) *memoryFile {
		if copies[f] == nil {
			copies[f] = &memoryFile{bytes.Clone(f.data), bytes.Clone(f.durable), f.poisoned}
		}
		return copies[f]
	}
	for path, f := range m.files {
		next.files[path] = dup(f)
	}
	for path, f := range m.onDisk {
		next.onDisk[path] = dup(f)
	}
	return next
}

// powerLoss returns the file system as it is after the machine lost power: of what was not synced, some is there.
func (m *memory) powerLoss(rng *rand.Rand) *memory {
	next := m.kill()
	paths := make(map[string]*memoryFile)
	for path, f := range next.onDisk {
		if next.files[path] == f || rng.IntN(2) == 0 { // deleted, though not for good
			paths[path] = f
		}
	}
	for path, f := range next.files {
		if paths[path] == nil && rng.IntN(2) == 0 {
			paths[path] = f
		}
	}
	for path, f := range paths {
		data := bytes.Clone(f.durable)
		if !f.poisoned && len(f.data) > len(data) && bytes.HasPrefix(f.data, data) && rng.IntN(3) > 0 {
			data = append(data, f.data[len(data):len(data)+rng.IntN(len(f.data)-len(data)+1)]...)
			if filepath.Base(path) == headName {
				data = f.data // one sector is not torn
			}
		}
		f.data, f.durable, f.poisoned = data, bytes.Clone(data), false
	}
	next.files, next.onDisk = paths, make(map[string]*memoryFile)
	maps.Copy(next.onDisk, paths)
	return next
}

// contents returns the bytes of a file, nil if there is none.
func (m *memory) contents(path string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.files[path]; f != nil {
		return bytes.Clone(f.data)
	}
	return nil
}

// memoryHandle is an open file.
type memoryHandle struct {
	m    *memory
	path string
	f    *memoryFile
}

func (h *memoryHandle) ReadAt(b []byte, at int64) (int, error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if err := h.m.call("read", h.path); err != nil {
		return 0, err
	}
	if at >= int64(len(h.f.data)) {
		return 0, io.EOF
	}
	n := copy(b, h.f.data[at:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (h *memoryHandle) WriteAt(b []byte, at int64) (int, error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	err := h.m.call("write", h.path)
	if err != nil {
		b = b[:len(b)/2] // a short write
		if filepath.Base(h.path) == headName {
			b = nil // of one sector, nothing or all
		}
	}
	more := at + int64(len(b)) - int64(len(h.f.data))
	if h.m.space >= 0 && more > h.m.space {
		b = b[:int64(len(b))-(more-h.m.space)]
		more, err = h.m.space, errors.Join(err, syscall.ENOSPC)
	}
	if more > 0 {
		h.f.data = append(h.f.data, make([]byte, more)...)
		if h.m.space >= 0 {
			h.m.space -= more
		}
	}
	return copy(h.f.data[at:], b), err
}

func (h *memoryHandle) Truncate(size int64) error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if err := h.m.call("truncate", h.path); err != nil {
		return err
	}
	if h.m.space >= 0 {
		h.m.space += int64(len(h.f.data)) - size
	}
	h.f.data = h.f.data[:size]
	return nil
}

func (h *memoryHandle) Sync() error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if err := h.m.call("sync", h.path); err != nil {
		h.f.poisoned = true
		return err
	}
	if !h.f.poisoned {
		h.f.durable = bytes.Clone(h.f.data)
	}
	return nil
}

func (h *memoryHandle) Close() error { return nil }
