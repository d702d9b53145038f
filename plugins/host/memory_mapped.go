// SPDX-License-Identifier: Apache-2.0

//go:build linux && !weir_heap

package host

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// linear is the memory of an instance: as much address space as it may ever use, of which the kernel backs what is touched. It is outside of Go's heap, so that it is neither
// cleared nor scanned by the collector.
type linear struct {
	reserved []byte
	from     *frozen // what the first bytes are mapped from; nil before
	bytes    int     // how many are
}

// newLinear reserves a memory of at most so many bytes.
func newLinear(most uint64) (*linear, error) {
	b, err := unix.Mmap(-1, 0, int(most), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes of memory: %w", most, err)
	}
	return &linear{reserved: b}, nil
}

// Reallocate implements experimental.LinearMemory.
func (l *linear) Reallocate(size uint64) []byte {
	if size > uint64(len(l.reserved)) {
		return nil
	}
	return l.reserved[:size:len(l.reserved)]
}

// Free implements experimental.LinearMemory.
func (l *linear) Free() {
	if l.reserved != nil {
		_ = unix.Munmap(l.reserved) // of what was mapped: cannot fail
		l.reserved = nil
	}
}

// attach makes the memory begin with what was frozen. What it held is gone.
func (l *linear) attach(f *frozen, size int) error {
	if size == 0 {
		return nil
	}
	_, err := unix.MmapPtr(f.fd, 0, unsafe.Pointer(unsafe.SliceData(l.reserved)), uintptr(size),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_NORESERVE)
	if err != nil {
		return fmt.Errorf("map the image: %w", err)
	}
	l.from, l.bytes = f, size
	return nil
}

// reset forgets what was written since attach: the pages of hot are copied back, and the kernel drops the rest.
func (l *linear) reset(hot *hotPages) error {
	at := 0
	for _, r := range hot.ranges() {
		if err := l.drop(at, r.start); err != nil {
			return err
		}
		copy(l.reserved[r.start:r.end], l.from.view[r.start:r.end])
		at = r.end
	}
	return l.drop(at, l.bytes)
}

func (l *linear) drop(from, to int) error {
	if from == to {
		return nil
	}
	return unix.Madvise(l.reserved[from:to], unix.MADV_DONTNEED)
}

// learn notes which pages a call has changed.
func (l *linear) learn(hot *hotPages) {
	hot.learn(l.bytes, func(from, to int) bool { return !bytes.Equal(l.reserved[from:to], l.from.view[from:to]) })
}

// frozen is a file in memory, and a view of it.
type frozen struct {
	fd   int
	view []byte
}

// freeze keeps a copy of memory.
func freeze(memory []byte) (f frozen, err error) {
	f.fd, err = unix.MemfdCreate("weir-plugin", unix.MFD_CLOEXEC)
	if err != nil {
		return f, fmt.Errorf("keep an image: %w", err)
	}
	if err := f.write(memory); err != nil {
		return f, errors.Join(fmt.Errorf("keep an image: %w", err), f.close())
	}
	if len(memory) == 0 {
		return f, nil
	}
	f.view, err = unix.Mmap(f.fd, 0, len(memory), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return f, errors.Join(fmt.Errorf("look at the image: %w", err), f.close())
	}
	return f, nil
}

// write leaves out pages of zeros, for which the file needs no room.
func (f frozen) write(memory []byte) error {
	if err := unix.Ftruncate(f.fd, int64(len(memory))); err != nil {
		return err
	}
	zero := make([]byte, osPage)
	for at := 0; at < len(memory); at += osPage {
		p := memory[at:min(at+osPage, len(memory))]
		if bytes.Equal(p, zero[:len(p)]) {
			continue
		}
		for done := 0; done < len(p); {
			n, err := unix.Pwrite(f.fd, p[done:], int64(at+done))
			if err != nil {
				return err
			}
			done += n
		}
	}
	return nil
}

func (f frozen) close() error {
	var err error
	if f.view != nil {
		err = unix.Munmap(f.view)
	}
	return errors.Join(err, unix.Close(f.fd))
}
