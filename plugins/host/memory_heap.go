// SPDX-License-Identifier: Apache-2.0

//go:build !linux || weir_heap

package host

// linear is the memory of an instance, on Go's heap.
type linear struct {
	reserved []byte
	from     *frozen
	bytes    int
}

// newLinear takes all of the memory at once, so that growing never copies.
func newLinear(most uint64) (*linear, error) { return &linear{reserved: make([]byte, most)}, nil }

// Reallocate implements experimental.LinearMemory.
func (l *linear) Reallocate(size uint64) []byte {
	if size > uint64(len(l.reserved)) {
		return nil
	}
	return l.reserved[:size:len(l.reserved)]
}

// Free implements experimental.LinearMemory.
func (l *linear) Free() { l.reserved = nil }

func (l *linear) attach(f *frozen, size int) error {
	l.from, l.bytes = f, size
	return l.reset(nil)
}

func (l *linear) reset(*hotPages) error {
	if l.from != nil {
		copy(l.reserved[:l.bytes], l.from.bytes)
	}
	return nil
}

func (l *linear) learn(*hotPages) {}

type frozen struct{ bytes []byte }

func freeze(memory []byte) (frozen, error) { return frozen{append([]byte(nil), memory...)}, nil }

func (f frozen) close() error { return nil }
