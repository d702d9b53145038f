// SPDX-License-Identifier: Apache-2.0

package host

// image is the pristine state of a plugin: its memory after configuration, and its globals. The memory is kept in one of two ways:
//
//	Linux      in a file without a name, which instances map privately: the kernel copies a page when it is written, and
//	           forgets the copies when told
//	elsewhere  in a slice, which is copied back into the instance
type image struct {
	memory  frozen
	size    int // bytes
	globals []uint64
}

// pages is the size in WebAssembly's unit.
func (i *image) pages() uint32 { return uint32(i.size >> 16) }
