// SPDX-License-Identifier: Apache-2.0

package tokens

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
)

// imageHead is how much of an image is looked at for its size. In PNG, GIF and WebP it stands in the first 30 bytes; in JPEG behind what
// cameras and editors put there, of up to 64 KiB each.
const imageHead = 96 << 10

// dataURL splits a URL such as data:image/png;base64,iVBOR… into its media type and what follows the comma. ok is false for every other one.
func dataURL(url []byte) (media, data []byte, ok bool) {
	if len(url) < 5 || !bytes.EqualFold(url[:5], []byte("data:")) {
		return nil, nil, false
	}
	head, data, ok := bytes.Cut(url[5:], []byte(","))
	media, _, _ = bytes.Cut(head, []byte(";"))
	return media, data, ok
}

// decodeHead appends the first bytes that base64 stands for, as far as it is valid.
func decodeHead(dst, data []byte) []byte {
	n := len(data) / 4 * 4
	if n = min(n, imageHead/3*4); n == 0 {
		return dst
	}
	at := len(dst)
	dst = append(dst, make([]byte, n/4*3)...)
	// A head that ends early is read as far as it goes: the number of bytes before the fault comes with the error.
	got, _ := base64.StdEncoding.Decode(dst[at:], data[:n])
	return dst[:at+got]
}

// sizeOf reads the size of an image from its first bytes: PNG, JPEG, GIF or WebP. It is zero if they do not tell.
func sizeOf(b []byte) pixels {
	switch {
	case len(b) >= 24 && string(b[:8]) == "\x89PNG\r\n\x1a\n":
		return pixels{int64(binary.BigEndian.Uint32(b[16:])), int64(binary.BigEndian.Uint32(b[20:]))}
	case len(b) >= 10 && string(b[:4]) == "GIF8":
		return pixels{int64(binary.LittleEndian.Uint16(b[6:])), int64(binary.LittleEndian.Uint16(b[8:]))}
	case len(b) >= 30 && string(b[:4]) == "RIFF" && string(b[8:12]) == "WEBP":
		return sizeOfWebP(b)
	case len(b) >= 4 && b[0] == 0xFF && b[1] == 0xD8:
		return sizeOfJPEG(b[2:])
	}
	return pixels{}
}

// sizeOfWebP reads the first chunk: https://developers.google.com/speed/webp/docs/riff_container.
func sizeOfWebP(b []byte) pixels {
	switch string(b[12:16]) {
	case "VP8 ": // a key frame: https://www.rfc-editor.org/rfc/rfc6386#section-9.1
		return pixels{int64(binary.LittleEndian.Uint16(b[26:]) & 0x3FFF), int64(binary.LittleEndian.Uint16(b[28:]) & 0x3FFF)}
	case "VP8L":
		v := binary.LittleEndian.Uint32(b[21:])
		return pixels{int64(v&0x3FFF) + 1, int64(v>>14&0x3FFF) + 1}
	case "VP8X":
		w := int64(b[24]) | int64(b[25])<<8 | int64(b[26])<<16
		h := int64(b[27]) | int64(b[28])<<8 | int64(b[29])<<16
		return pixels{w + 1, h + 1}
	}
	return pixels{}
}

// sizeOfJPEG looks for the start of the frame among the segments: https://www.w3.org/Graphics/JPEG/itu-t81.pdf, B.1.1.
func sizeOfJPEG(b []byte) pixels {
	for len(b) >= 4 && b[0] == 0xFF {
		marker := b[1]
		if marker == 0xFF { // padding
			b = b[1:]
			continue
		}
		if marker == 0x01 || marker >= 0xD0 && marker <= 0xD7 { // without a length
			b = b[2:]
			continue
		}
		// C4, C8 and CC are other things than frames.
		if marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC {
			if len(b) < 9 {
				return pixels{}
			}
			return pixels{int64(binary.BigEndian.Uint16(b[7:])), int64(binary.BigEndian.Uint16(b[5:]))}
		}
		n := 2 + int(binary.BigEndian.Uint16(b[2:]))
		if n < 4 || n > len(b) || marker == 0xD9 || marker == 0xDA {
			return pixels{}
		}
		b = b[n:]
	}
	return pixels{}
}
