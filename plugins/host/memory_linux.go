// SPDX-License-Identifier: Apache-2.0

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

// reset forgets what was written since attach.
func (l *linear) reset() error {
	if l.bytes == 0 {
		return nil
	}
	return unix.Madvise(l.reserved[:l.bytes], unix.MADV_DONTNEED)
}

// frozen is a file in memory.
type frozen struct{ fd int }

// freeze keeps a copy of memory.
func freeze(memory []byte) (f frozen, err error) {
	f.fd, err = unix.MemfdCreate("weir-plugin", unix.MFD_CLOEXEC)
	if err != nil {
		return f, fmt.Errorf("keep an image: %w", err)
	}
	if err := f.write(memory); err != nil {
		return f, errors.Join(fmt.Errorf("keep an image: %w", err), f.close())
	}
	return f, nil
}

// write leaves out pages of zeros, for which the file needs no room.
func (f frozen) write(memory []byte) error {
	if err := unix.Ftruncate(f.fd, int64(len(memory))); err != nil {
		return err
	}
	const page = 4096
	var zero [page]byte
	for at := 0; at < len(memory); at += page {
		p := memory[at:min(at+page, len(memory))]
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

func (f frozen) close() error { return unix.Close(f.fd) }
