// SPDX-License-Identifier: Apache-2.0

package tokens

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	stdimage "image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"strings"
	"testing"
)

// encoded returns an image of one colour in a format, and the media type.
func encoded(tb testing.TB, format string, w, h int) (kind string, file []byte) {
	tb.Helper()
	var b bytes.Buffer
	var err error
	switch format {
	case "png":
		err = png.Encode(&b, stdimage.NewGray(stdimage.Rect(0, 0, w, h)))
	case "jpeg":
		err = jpeg.Encode(&b, stdimage.NewGray(stdimage.Rect(0, 0, w, h)), nil)
	case "gif":
		err = gif.Encode(&b, stdimage.NewGray(stdimage.Rect(0, 0, w, h)), nil)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return "image/" + format, b.Bytes()
}

func TestImagesTellTheirSize(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"png", "jpeg", "gif"} {
		_, file := encoded(t, format, 321, 123)
		if got := sizeOf(file); got != (pixels{321, 123}) {
			t.Errorf("%s: %v", format, got)
		}
		for n := range min(len(file), 700) { // of less than the header, nothing but zero
			if got := sizeOf(file[:n]); got != (pixels{}) && got != (pixels{321, 123}) {
				t.Errorf("%s, %d bytes: %v", format, n, got)
			}
		}
	}
	// A camera's picture, whose frame comes behind 60 KB of other things.
	_, file := encoded(t, "jpeg", 4032, 3024)
	exif := append([]byte{0xFF, 0xD8, 0xFF, 0xE1, 0xEA, 0x60}, make([]byte, 0xEA60-2)...)
	if got := sizeOf(append(exif, file[2:]...)); got != (pixels{4032, 3024}) {
		t.Errorf("behind EXIF: %v", got)
	}
	// https://developers.google.com/speed/webp/docs/riff_container, made by hand.
	webp := func(chunk string, head ...byte) []byte {
		b := append([]byte("RIFF\x00\x00\x00\x00WEBP"+chunk+"\x00\x00\x00\x00"), head...)
		return append(b, make([]byte, 16)...)
	}
	for name, file := range map[string][]byte{
		"lossy":    webp("VP8 ", 0, 0, 0, 0x9D, 0x01, 0x2A, 0x41, 0x01, 0x7B, 0x00),
		"lossless": webp("VP8L", append([]byte{0x2F}, binary.LittleEndian.AppendUint32(nil, 320|122<<14)...)...),
		"extended": webp("VP8X", 0, 0, 0, 0, 0x40, 0x01, 0, 0x7A, 0, 0),
	} {
		if got := sizeOf(file); got != (pixels{321, 123}) {
			t.Errorf("WebP, %s: %v", name, got)
		}
	}
}

func TestImagesCountByTheirPieces(t *testing.T) {
	t.Parallel()
	tests := []struct {
		model          string
		size           pixels
		detail         string
		probably, most int64
	}{
		// The first two are OpenAI's own examples.
		{"gpt-4o", pixels{1024, 1024}, "high", 765, 765},
		{"gpt-4o", pixels{2048, 4096}, "", 1105, 1105},
		{"gpt-4o", pixels{4096, 8192}, "low", 85, 85},
		{"gpt-4o", pixels{100, 100}, "", 255, 765},
		{"gpt-4o", pixels{}, "auto", 85 + 8*170, 85 + 8*170},
		{"gpt-4o", pixels{1, 1 << 32}, "", 85 + 4*170, 85 + 8*170},
		{"gpt-4o-mini", pixels{1024, 1024}, "", 2833 + 4*5667, 2833 + 4*5667},
		{"gpt-4.1-mini", pixels{1024, 1024}, "", 1659, 1659}, // 1024 patches
		{"gpt-4.1-mini", pixels{10_000, 10_000}, "", 2489, 2489},
		{"o4-mini", pixels{}, "", 2642, 2642},
		{"gpt-5.2", pixels{10_000, 10_000}, "high", 3000, 3000},
		{"gpt-5.2", pixels{10_000, 10_000}, "original", 12_000, 12_000},
		{"gpt-5.2", pixels{10_000, 10_000}, "", 3000, 12_000},
		{"gpt-5.2", pixels{1 << 32, 1 << 32}, "", 3000, 12_000},
		{"claude-sonnet-4-5", pixels{1024, 1024}, "", 765, 16_384},
		{"text-embedding-3-small", pixels{}, "", 0, 0},
	}
	for _, tt := range tests {
		probably, most := rulesOf(tt.model).image.tokens(tt.size, tt.detail)
		if probably != tt.probably || most != tt.most {
			t.Errorf("%s, %v, %q: %d, at most %d; want %d, at most %d", tt.model, tt.size, tt.detail, probably, most, tt.probably, tt.most)
		}
	}
}

// part is a chat of one message with one part.
func part(json string) string { return `{"messages":[{"role":"user","content":[` + json + `]}]}` }

func TestImagesInABodyAreNotText(t *testing.T) {
	t.Parallel()
	_, file := encoded(t, "png", 1024, 1024)
	kind, _ := encoded(t, "png", 1, 1)
	url := "data:" + kind + ";base64," + base64.StdEncoding.EncodeToString(append(file, make([]byte, 2<<20)...))
	escaped := strings.ReplaceAll(url, "/", `\/`) // as PHP writes it
	for name, body := range map[string]string{
		"chat":        part(`{"type":"image_url","image_url":{"url":"` + url + `","detail":"high"}}`),
		"escaped":     part(`{"type":"image_url","image_url":{"detail":"high","url":"` + escaped + `"}}`),
		"of Response": part(`{"type":"input_image","detail":"high","image_url":"` + url + `"}`),
	} {
		got := chatOf("gpt-4o", body)
		if got.Input != 7+765 || got.Images != 765 || got.Most > 1000 || got.Open {
			t.Errorf("%s: %+v, want %d", name, got, 7+765)
		}
		if bound := (Request{Chat, "gpt-4o", []byte(body)}).Bound(); bound.Most < got.Most || bound.Most > 2000 {
			t.Errorf("%s: bound %+v", name, bound)
		}
	}
}

func TestAudioCountsByItsLength(t *testing.T) {
	t.Parallel()
	wav := []byte("RIFF\x00\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00")
	wav = binary.LittleEndian.AppendUint32(wav, 24_000) // frames a second
	wav = binary.LittleEndian.AppendUint32(wav, 48_000) // bytes a second
	wav = append(wav, make([]byte, 480_000)...)         // 10 s
	for name, tt := range map[string]struct {
		data           []byte
		probably, most int64
	}{
		"WAV":             {wav, 110, 12 * 32},
		"something":       {make([]byte, 79_998), 100, 81*32 + 32},
		"nothing":         {nil, 0, 32},
		"a rate of zeros": {append([]byte("RIFF\x00\x00\x00\x00WAVEfmt "), make([]byte, 80_000)...), 110, 82*32 + 32},
	} {
		body := part(`{"type":"input_audio","input_audio":{"data":"` + base64.StdEncoding.EncodeToString(tt.data) + `","format":"wav"}}`)
		got := chatOf("gpt-4o-audio-preview", body)
		if got.Audio < tt.most-32 || got.Audio > tt.most || got.Images != 0 {
			t.Errorf("%s: %d tokens of audio, want %d", name, got.Audio, tt.most)
		}
		if got.Input-7 != tt.probably || got.Most > tt.most+200 || got.Most < tt.probably {
			t.Errorf("%s: %+v, want %d, at most %d", name, got, tt.probably+7, tt.most)
		}
	}
}

func TestAnswersMayHaveAudio(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]bool{`{"modalities":["text","audio"]}`: true, `{"modalities":["\u0061udio"]}`: true, `{"modalities":["text"]}`: false, `{"modalities":null}`: false, `{}`: false} {
		if got := chatOf("gpt-4o-audio-preview", body).Speaks; got != want {
			t.Errorf("%s: %t", body, got)
		}
	}
}

func TestFilesAreOpenUnlessTheyAreText(t *testing.T) {
	t.Parallel()
	pdf := base64.StdEncoding.EncodeToString(make([]byte, 120_000))
	for name, tt := range map[string]struct {
		body  string
		input int64
		open  bool
	}{
		"PDF":    {part(`{"type":"file","file":{"filename":"a.pdf","file_data":"data:application/pdf;base64,` + pdf + `"}}`), 7 + 2 + 3*1500, true},
		"bare":   {part(`{"type":"input_file","file_data":"` + pdf + `"}`), 7 + 3*1500, true},
		"by URL": {part(`{"type":"input_file","file_url":"https://example.org/a.pdf"}`), 7, true},
		"video":  {part(`{"type":"video_url","video_url":{"url":"https://example.org/a.mp4"}}`), 7, true},
		"text":   {part(`{"type":"input_file","file_data":"data:text/plain;base64,` + pdf + `"}`), 7 + 30_000, false},
	} {
		if got := chatOf("gpt-4o", tt.body); got.Input != tt.input || got.Open != tt.open {
			t.Errorf("%s: %+v, want input %d, open %t", name, got, tt.input, tt.open)
		}
	}
}

func FuzzSizeOf(f *testing.F) {
	for _, format := range []string{"png", "jpeg", "gif"} {
		_, file := encoded(f, format, 40, 30)
		f.Add(file)
	}
	f.Add([]byte("RIFF\x00\x00\x00\x00WEBPVP8X\x00\x00\x00\x00\x00\x00\x00\x00\x40\x01\x00\x7a\x00\x00"))
	f.Fuzz(func(t *testing.T, file []byte) {
		p := sizeOf(file)
		if p.width < 0 || p.height < 0 || p.width > 1<<32 || p.height > 1<<32 {
			t.Errorf("%v", p)
		}
		for _, m := range families {
			for _, detail := range []string{"", "low", "high", "original"} {
				probably, most := m.image.tokens(p, detail)
				if probably < 0 || most < probably || most > 100_000 {
					t.Errorf("%s, %v: %d, at most %d", m.prefix, p, probably, most)
				}
			}
		}
	})
}
