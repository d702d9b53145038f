// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"path/filepath"
)

// head says which segments there must be. It is written in place: 28 bytes, within one sector.
//
//	magic (8) | oldest (8) | newest (8) | CRC32C (4)
type head struct {
	file           file
	oldest, newest uint64 // every segment before oldest may go; newest was there
}

const (
	headName  = "head"
	headMagic = "WEIRHEAD"
	headSize  = 28
)

// open reads the head. An empty one is that of a new journal; damage is not an error, but known is false.
func (h *head) open(disk fileSystem, dir string) (known bool, size int, err error) {
	if h.file, err = disk.Open(filepath.Join(dir, headName), forWriting); err != nil {
		return false, 0, err
	}
	var b [headSize]byte
	size, _ = h.file.ReadAt(b[:], 0) // what cannot be read is damaged
	return h.parse(b[:size]), size, nil
}

func (h *head) parse(b []byte) bool {
	le := binary.LittleEndian
	if len(b) != headSize || string(b[:8]) != headMagic || crc32.Checksum(b[:headSize-4], castagnoli) != le.Uint32(b[headSize-4:]) {
		return false
	}
	h.oldest, h.newest = le.Uint64(b[8:]), le.Uint64(b[16:])
	return true
}

func (h *head) write(oldest, newest uint64, durable bool) error {
	b := binary.LittleEndian.AppendUint64([]byte(headMagic), oldest)
	b = binary.LittleEndian.AppendUint64(b, newest)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	_, err := h.file.WriteAt(b, 0)
	if err == nil && durable {
		err = h.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("write journal head: %w", err)
	}
	h.oldest, h.newest = oldest, newest
	return nil
}

func (h *head) close() error {
	if h.file == nil {
		return nil
	}
	return h.file.Close()
}
