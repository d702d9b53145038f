// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/google/uuid"
)

const (
	segmentMagic  = "WEIRJRNL"
	formatVersion = 1
	headerSize    = 48

	frameMagic0, frameMagic1 = 0xF7, 0x5A
	frameHeader              = 12
	maxPayload               = 1 << 16
	maxTicket                = 1 << 14 // 16 channels with the longest names come to 12 KB
	maxSettled               = maxPayload / 16
)

// Kinds of frames.
const (
	kindIntent  = 1
	kindSettled = 2
	kindEnd     = 3
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Intent is an exchange that was admitted.
type Intent struct {
	Exchange uuid.UUID
	Ticket   string // policy.Ticket, encoded; to this package it is opaque
	Bytes    int64  // of the request's body
}

func (in *Intent) check() error {
	if len(in.Ticket) == 0 || len(in.Ticket) > maxTicket || in.Bytes < 0 {
		return fmt.Errorf("intent of exchange %s: ticket of %d bytes, body of %d bytes", in.Exchange, len(in.Ticket), in.Bytes)
	}
	return nil
}

// segmentID is what a segment's name and its header both say.
type segmentID struct {
	number uint64 // grows with each segment; some are left out
	nonce  uint64 // random
}

const segmentSuffix = ".seg"

func (id segmentID) name() string {
	return fmt.Sprintf("%012d-%016x%s", id.number, id.nonce, segmentSuffix)
}

// parseName reads what name wrote.
func parseName(name string) (id segmentID, ok bool) {
	stem, ok := strings.CutSuffix(name, segmentSuffix)
	number, nonce, found := strings.Cut(stem, "-")
	if !ok || !found {
		return segmentID{}, false
	}
	var err, err2 error
	id.number, err = strconv.ParseUint(number, 10, 31) // whoever made a higher one was not us
	id.nonce, err2 = strconv.ParseUint(nonce, 16, 64)
	return id, err == nil && err2 == nil && id.name() == name
}

// seed is what the checksums of the segment's frames begin with.
func (id segmentID) seed() uint32 {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[0:], id.nonce)
	binary.LittleEndian.PutUint64(b[8:], id.number)
	return crc32.Checksum(b[:], castagnoli)
}

func segmentHeader(id segmentID, created time.Time) []byte {
	b := append(make([]byte, 0, headerSize), segmentMagic...)
	b = binary.LittleEndian.AppendUint32(b, formatVersion)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint64(b, id.number)
	b = binary.LittleEndian.AppendUint64(b, id.nonce)
	b = binary.LittleEndian.AppendUint64(b, uint64(created.UnixNano()))
	b = binary.LittleEndian.AppendUint32(b, 0)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

var (
	errHeader = errors.New("the header is damaged")
	// ErrVersion says that a newer version of Weir wrote the journal.
	ErrVersion = errors.New("journal of a newer version of Weir")
)

func parseHeader(b []byte) (id segmentID, created time.Time, err error) {
	le := binary.LittleEndian
	if len(b) < headerSize || string(b[:8]) != segmentMagic || crc32.Checksum(b[:headerSize-4], castagnoli) != le.Uint32(b[headerSize-4:]) {
		return segmentID{}, time.Time{}, errHeader
	}
	if v := le.Uint32(b[8:]); v != formatVersion {
		return segmentID{}, time.Time{}, fmt.Errorf("%w: format %d, known is %d", ErrVersion, v, formatVersion)
	}
	return segmentID{number: le.Uint64(b[16:]), nonce: le.Uint64(b[24:])}, time.Unix(0, int64(le.Uint64(b[32:]))), nil
}

// beginFrame appends the header of a frame whose payload, of the given length, is to follow; endFrame then completes it.
func beginFrame(b []byte, kind byte, length int) []byte {
	b = append(b, frameMagic0, frameMagic1, kind, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(length))
	return append(b, 0, 0, 0, 0)
}

// endFrame sets the checksum of the frame that begins at start and ends with b.
func endFrame(b []byte, start int, seed uint32) []byte {
	binary.LittleEndian.PutUint32(b[start+8:], frameSum(b[start:], seed))
	return b
}

func frameSum(frame []byte, seed uint32) uint32 {
	return crc32.Update(crc32.Update(seed, castagnoli, frame[:8]), castagnoli, frame[frameHeader:])
}

func uvarintSize(v uint64) (n int) {
	for n = 1; v >= 0x80; n++ {
		v >>= 7
	}
	return n
}

// size returns how long the frame of the intent is.
func (in *Intent) size() int {
	return frameHeader + 16 + uvarintSize(uint64(in.Bytes)) + len(in.Ticket)
}

func appendIntent(b []byte, in *Intent, seed uint32) []byte {
	start := len(b)
	b = beginFrame(b, kindIntent, in.size()-frameHeader)
	b = append(b, in.Exchange[:]...)
	b = binary.AppendUvarint(b, uint64(in.Bytes))
	b = append(b, in.Ticket...)
	return endFrame(b, start, seed)
}

func parseIntent(payload []byte) (Intent, error) {
	in, err := peekIntent(payload)
	in.Ticket = strings.Clone(in.Ticket)
	return in, err
}

// peekIntent is parseIntent, but for the ticket, which shares memory with the payload.
func peekIntent(payload []byte) (Intent, error) {
	var in Intent
	if len(payload) < len(in.Exchange) {
		return Intent{}, errors.New("an intent without an exchange")
	}
	n := copy(in.Exchange[:], payload)
	v, m := binary.Uvarint(payload[n:])
	if m <= 0 || v > 1<<62 {
		return Intent{}, errors.New("an intent without a length")
	}
	ticket := payload[n+m:]
	in.Bytes, in.Ticket = int64(v), unsafe.String(unsafe.SliceData(ticket), len(ticket))
	return in, in.check()
}

// appendSettled appends as many frames as the ids need.
func appendSettled(b []byte, ids []uuid.UUID, seed uint32) []byte {
	for len(ids) > 0 {
		n := min(len(ids), maxSettled)
		start := len(b)
		b = beginFrame(b, kindSettled, n*16)
		for _, id := range ids[:n] {
			b = append(b, id[:]...)
		}
		b = endFrame(b, start, seed)
		ids = ids[n:]
	}
	return b
}

// end says how much of an older segment counts.
type end struct {
	number uint64
	length int64
}

func appendEnd(b []byte, e end, seed uint32) []byte {
	start := len(b)
	b = beginFrame(b, kindEnd, 16)
	b = binary.LittleEndian.AppendUint64(b, e.number)
	b = binary.LittleEndian.AppendUint64(b, uint64(e.length))
	return endFrame(b, start, seed)
}

func parseEnd(payload []byte) (e end, ok bool) {
	if len(payload) != 16 {
		return end{}, false
	}
	e = end{binary.LittleEndian.Uint64(payload), int64(binary.LittleEndian.Uint64(payload[8:]))}
	return e, e.length >= 0
}

// frame is a valid frame, at some offset of its segment.
type frame struct {
	kind    byte
	at      int64
	payload []byte
}

func (f *frame) size() int64 { return int64(frameHeader + len(f.payload)) }

// parseFrame returns the frame that b begins with.
func parseFrame(b []byte, seed uint32) (f frame, ok bool) {
	if len(b) < frameHeader || b[0] != frameMagic0 || b[1] != frameMagic1 || b[3] != 0 {
		return frame{}, false
	}
	n := binary.LittleEndian.Uint32(b[4:])
	if n > maxPayload || int(n) > len(b)-frameHeader {
		return frame{}, false
	}
	b = b[:frameHeader+int(n)]
	if frameSum(b, seed) != binary.LittleEndian.Uint32(b[8:]) {
		return frame{}, false
	}
	return frame{kind: b[2], payload: b[frameHeader:]}, true
}

// scan hands every valid frame of b to good and every run of bytes that belongs to none to bad, in order. The first frame is looked for
// behind the header. Behind bad bytes it goes on with the next valid frame, wherever that begins.
func scan(b []byte, seed uint32, good func(frame), bad func(from, to int64)) {
	at := min(headerSize, len(b))
	for at < len(b) {
		if f, ok := parseFrame(b[at:], seed); ok {
			f.at = int64(at)
			good(f)
			at += int(f.size())
			continue
		}
		start := at
		for at++; at < len(b); at++ {
			next := bytes.Index(b[at:], []byte{frameMagic0, frameMagic1})
			if next < 0 {
				at = len(b)
				break
			}
			at += next
			if _, ok := parseFrame(b[at:], seed); ok {
				break
			}
		}
		bad(int64(start), int64(at))
	}
}

// maxFrame is the size of the longest frame.
const maxFrame = frameHeader + maxPayload

// scanChunk is how much of a segment is in memory while it is scanned.
const scanChunk = 4 * maxFrame

// scanFile hands every valid frame of a segment to each, in order; what belongs to none is passed over. A frame's payload is valid during the
// call. Buf may be used again if it is the one that was returned before.
func scanFile(fs fileSystem, s *segment, buf []byte, each func(frame)) (_ []byte, err error) {
	f, err := fs.Open(s.path, forReading)
	if err != nil {
		return buf, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if cap(buf) < scanChunk {
		buf = make([]byte, 0, scanChunk)
	}
	buf = buf[:0]
	from, size := int64(headerSize), s.size // from: offset of buf[0]
	for {
		behind := from + int64(len(buf))
		n, err := f.ReadAt(buf[len(buf):len(buf)+int(max(min(int64(cap(buf)-len(buf)), size-behind), 0))], behind)
		buf = buf[:len(buf)+n]
		if err != nil && !errors.Is(err, io.EOF) {
			return buf, err
		}
		last := n == 0 || behind+int64(n) >= size
		used := scanChunkOf(buf, from, s.sum, last, each)
		if last {
			return buf, nil
		}
		buf, from = buf[:copy(buf, buf[used:])], from+int64(used)
	}
}

// scanChunkOf hands out the frames of a part of a segment, which begins at an offset, and returns how much of it is done with: all of the last part.
func scanChunkOf(b []byte, from int64, seed uint32, last bool, each func(frame)) (at int) {
	for at < len(b) && (last || len(b)-at >= maxFrame) {
		if f, ok := parseFrame(b[at:], seed); ok {
			f.at = from + int64(at)
			each(f)
			at += int(f.size())
			continue
		}
		next := bytes.Index(b[at+1:], []byte{frameMagic0, frameMagic1})
		if next < 0 {
			return max(len(b)-1, at+1) // the magic may be divided
		}
		at += 1 + next
	}
	return at
}
