// SPDX-License-Identifier: Apache-2.0

package host

import (
	"os"
	"sync"
	"sync/atomic"
)

// image is the pristine state of a plugin: its memory after configuration, and its globals. The memory is kept in one of two ways:
//
//	Linux      in a file without a name, which instances map privately: the kernel copies a page when it is written, and
//	           forgets the copies when told
//	elsewhere  in a slice, which is copied back into the instance; on Linux too with the build tag weir_heap
type image struct {
	memory  frozen
	size    int // bytes
	globals []uint64
	hot     hotPages
}

// pages is the size in WebAssembly's unit.
func (i *image) pages() uint32 { return uint32(i.size >> 16) }

// osPage is the kernel's unit; WebAssembly's is a multiple of it.
var osPage = os.Getpagesize()

const (
	learnFrom   = 8 // calls
	maxHotPages = 512
	closeBy     = 8 // pages: what lies between two hot ones that are so close is as cheap to copy as to drop
)

// hotPages are the pages that calls write to: the stack, the heap's head, the input. Dropping such a page costs a fault, or two, when the next call touches it; copying it
// back costs a tenth of that. Which pages are hot is learned from the first calls. That is a matter of speed alone: pages that are not among them are dropped.
type hotPages struct {
	known atomic.Pointer[[]pageRange] // nil while learning

	mu    sync.Mutex
	calls int
	dirty map[int]bool // numbers of pages
}

// pageRange is a part of the memory, in bytes.
type pageRange struct{ start, end int }

func (h *hotPages) ranges() []pageRange {
	if h == nil {
		return nil
	}
	if r := h.known.Load(); r != nil {
		return *r
	}
	return nil
}

// learn notes the pages that a call has changed; the last of the calls that it learns from decides.
func (h *hotPages) learn(size int, changed func(from, to int) bool) {
	if h.known.Load() != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.calls == learnFrom {
		return
	}
	if h.dirty == nil {
		h.dirty = map[int]bool{}
	}
	for at := 0; at < size; at += osPage {
		if !h.dirty[at] && changed(at, min(at+osPage, size)) {
			h.dirty[at] = true
		}
	}
	if h.calls++; h.calls < learnFrom {
		return
	}
	var ranges []pageRange
	pages := 0
	for at := 0; at < size; at += osPage {
		if !h.dirty[at] {
			continue
		}
		end := min(at+osPage, size)
		if n := len(ranges); n > 0 && at-ranges[n-1].end <= closeBy*osPage {
			pages += (end - ranges[n-1].end) / osPage
			ranges[n-1].end = end
		} else {
			ranges = append(ranges, pageRange{at, end})
			pages++
		}
	}
	if pages > maxHotPages {
		ranges = nil
	}
	h.dirty = nil
	h.known.Store(&ranges)
}
