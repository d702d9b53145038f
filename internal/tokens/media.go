// SPDX-License-Identifier: Apache-2.0

package tokens

import (
	"bytes"
	"encoding/binary"

	"github.com/weir-proxy/weir/internal/jsonscan"
)

// media is what a part of a message says of an image, a sound or a file. Values are JSON strings; nil if they are not there.
type media struct {
	pictured bool   // the part is of the kind input_image
	image    []byte // its URL
	detail   []byte
	audio    []byte // in base64
	data     []byte // of a file: a data URL, or base64
	away     bool   // a file that is elsewhere
}

// enclosed reads the object that a part of a chat has for it; parts of a response's input have the same members themselves.
func (m *meter) enclosed(c *jsonscan.Cursor, p *media, key string) {
	if c.Kind() != '{' {
		if value := c.Value(); key == "image_url" && len(value) > 1 && value[0] == '"' {
			p.image = value
		}
		return
	}
	m.members(c, func(inner string) {
		switch {
		case key == "image_url" && inner == "url":
			p.image = c.Value()
		case key == "input_audio" && inner == "data":
			p.audio = c.Value()
		case inner == "filename":
			m.estimate()
			m.str(c)
		default:
			p.member(c, inner)
		}
	})
}

// member reads what both kinds of parts have.
func (p *media) member(c *jsonscan.Cursor, key string) {
	present := c.Kind() != 'n'
	value := c.Value()
	switch key {
	case "detail":
		p.detail = value
	case "file_id", "file_url":
		p.away = p.away || present
	case "file_data", "image_data":
		p.data = value
	case "data":
		p.audio = value
	}
}

// weigh adds the tokens of an image, a sound or a file.
func (m *meter) weigh(p *media) {
	if p.image != nil {
		m.picture(p)
	}
	if p.audio != nil {
		m.sound(inside(p.audio))
	}
	if p.data != nil {
		m.file(inside(p.data))
	}
	if p.away {
		if p.pictured {
			m.drawn(pixels{}, string(inside(p.detail)))
		} else {
			m.open()
		}
	}
}

// picture adds an image by its URL.
func (m *meter) picture(p *media) {
	var size pixels
	if _, data, ok := m.inline(inside(p.image)); ok {
		m.line = decodeHead(m.line[:0], data)
		size = sizeOf(m.line)
	} else {
		m.add(0, min(int64(len(p.image)), 2048)) // should a model without eyes be shown the URL
	}
	m.drawn(size, string(inside(p.detail)))
}

func (m *meter) drawn(size pixels, detail string) {
	m.estimate()
	probably, most := m.image.tokens(size, detail)
	m.size.Images += most
	m.add(probably, most)
}

// inline takes a data URL apart. Of one with escapes, it is the beginning alone.
func (m *meter) inline(raw []byte) (kind, data []byte, ok bool) {
	head := raw[:min(len(raw), 2*imageHead)]
	if bytes.IndexByte(head, '\\') >= 0 {
		for i := len(head); len(head) < len(raw) && i > len(head)-12; i-- {
			if head[i-1] == '\\' { // do not cut an escape apart
				head = head[:i-1]
				break
			}
		}
		m.text = jsonscan.AppendUnquoted(m.text[:0], head)
		raw = m.text
	}
	return dataURL(raw)
}

// Audio: tokens for a second, and bytes for one where the header does not say: of what is usual, and of the least that speech is sent in.
const (
	audioTokens     = 10
	mostAudioTokens = 32
	audioBytes      = 8000
	leastAudioBytes = 1000
)

// sound adds audio in base64. A WAV file says how many bytes a second has.
func (m *meter) sound(data []byte) {
	m.estimate()
	n := int64(len(data)) / 4 * 3
	usual, least := int64(audioBytes), int64(leastAudioBytes)
	m.line = decodeHead(m.line[:0], data[:min(len(data), 64)])
	if h := m.line; len(h) >= 32 && string(h[:4]) == "RIFF" && string(h[8:16]) == "WAVEfmt " {
		if rate := int64(binary.LittleEndian.Uint32(h[28:])); rate >= leastAudioBytes {
			usual, least = rate, rate
		}
	}
	most := (ceil(n, least) + 1) * mostAudioTokens
	m.size.Audio += most
	m.add(ceil(n, usual)*audioTokens, most)
}

// Files: what a page takes, in bytes and tokens, on average.
const (
	pageBytes  = 50_000
	pageTokens = 1_500
)

// file adds a file that is in the request. A text has at most as many tokens as bytes. Others, such as PDF, are compressed, and become text and images: nothing bounds that.
func (m *meter) file(data []byte) {
	m.estimate()
	kind, _, ok := m.inline(data)
	n := ceil(int64(len(data)-bytes.IndexByte(data, ',')-1), 4) * 3
	if ok && bytes.HasPrefix(kind, []byte("text/")) {
		m.add(ceil(n, 4), n)
		return
	}
	m.open()
	pages := ceil(n, pageBytes)
	m.add(pages*pageTokens, pages*pageTokens)
}
