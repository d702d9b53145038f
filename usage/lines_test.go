// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

func readLines(t *testing.T, r *lineReader) (lines []physicalLine) {
	t.Helper()
	for {
		l, ok, err := r.next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return lines
		}
		l.text = strings.Clone(l.text)
		lines = append(lines, l)
	}
}

func TestLinesAreTheSameHoweverTheFileGrows(t *testing.T) {
	for seed := range uint64(10) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var file bytes.Buffer
		for file.Len() < 2*readChunk {
			length := rng.IntN(300)
			if rng.IntN(100) == 0 {
				length = rng.IntN(maxLine * 2)
			}
			file.WriteString(strings.Repeat(string(rune('a'+rng.IntN(26))), length) + "\n")
		}
		file.WriteString("unfinished")
		src := bytes.NewReader(file.Bytes())
		all := &lineReader{src: src, limit: src.Size()}
		want := readLines(t, all)
		grows := &lineReader{src: src}
		var got []physicalLine
		for grows.limit < src.Size() {
			grows.limit = min(src.Size(), grows.limit+rng.Int64N(200_000))
			got = append(got, readLines(t, grows)...)
		}
		if len(got) != len(want) {
			t.Fatalf("seed %d: got %d lines, want %d", seed, len(got), len(want))
		}
		for i := range want {
			g, w := got[i], want[i]
			if g.text != w.text || g.at != w.at || g.start != w.start || g.end != w.end {
				t.Fatalf("seed %d, line %d: got %d..%d at %d, want %d..%d at %d", seed, i, g.start, g.end, g.at, w.start, w.end, w.at)
			}
			if file.Bytes()[w.end-1] != '\n' || string(file.Bytes()[w.at:w.end-1]) != w.text {
				t.Fatalf("seed %d, line %d: text is not what stands at %d", seed, i, w.at)
			}
		}
		if rest := grows.read() - grows.start; rest != int64(len("unfinished")) {
			t.Fatalf("seed %d: got a rest of %d bytes", seed, rest)
		}
	}
}

// endless is a file of one line that never ends.
type endless struct{}

func (endless) ReadAt(p []byte, _ int64) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func TestEndlessLineIsReadInBoundedMemory(t *testing.T) {
	r := &lineReader{src: endless{}, limit: 64 << 20}
	if l, ok, err := r.next(); ok || err != nil {
		t.Fatalf("got %d bytes, %v, %v", len(l.text), ok, err)
	}
	if r.read() != 64<<20 || r.start != 0 {
		t.Errorf("read %d bytes of a line at %d", r.read(), r.start)
	}
	if cap(r.buf) > 2*maxLine {
		t.Errorf("holds %d bytes", cap(r.buf))
	}
}

type broken struct{}

func (broken) ReadAt([]byte, int64) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestReadErrorIsNotTheEndOfTheFile(t *testing.T) {
	r := &lineReader{src: broken{}, limit: 10}
	if _, ok, err := r.next(); ok || !errors.Is(err, io.ErrUnexpectedEOF) || r.ended {
		t.Errorf("got %v, %v, ended %v", ok, err, r.ended)
	}
}

func TestOnlyLogsAreRead(t *testing.T) {
	for name, want := range map[string]bool{
		"exchanges.jsonl": true, "exchanges.jsonl.1": true, "exchanges.jsonl.2026-01-02": true, "exchanges-20260102.jsonl": true,
		"exchanges.jsonl.1.gz": false, "exchanges.jsonl.zst": false, "exchanges.json": false, "exchanges": false, "other.jsonl": false,
		"exchanges-1.txt": false, "xexchanges.jsonl": false,
	} {
		if got := isLog(name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

func TestWriterIsAVersion8UUIDOfTheFirstLine(t *testing.T) {
	a, b := WriterOf([]byte(`{"ticket":"a"}`)), WriterOf([]byte(`{"ticket":"b"}`))
	if a == b || a != WriterOf([]byte(`{"ticket":"a"}`)) {
		t.Errorf("got %s and %s", a, b)
	}
	if a.Version() != 8 || fmt.Sprint(a.Variant()) != "RFC4122" {
		t.Errorf("got version %d, variant %s", a.Version(), a.Variant())
	}
}
