// SPDX-License-Identifier: Apache-2.0

package bpe

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/weir-proxy/weir/internal/tokens/bpe/samples"
)

var encodings = []Encoding{O200k, Cl100k}

// fixture is a text with its counts by both encodings.
type fixture struct {
	text string
	want [2]int
}

// fixtures reads what internal/tokens/bpe/oracle wrote.
func fixtures(tb testing.TB) []fixture {
	tb.Helper()
	file, err := os.ReadFile("testdata/tiktoken.gz")
	if err != nil {
		tb.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(file))
	if err != nil {
		tb.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		tb.Fatal(err)
	}
	number := func() int {
		n, size := binary.Uvarint(data)
		if size <= 0 {
			tb.Fatal("testdata/tiktoken.gz is damaged")
		}
		data = data[size:]
		return int(n)
	}
	var all []fixture
	for len(data) > 0 {
		n := number()
		f := fixture{text: string(data[:n])}
		data = data[n:]
		f.want = [2]int{number(), number()}
		all = append(all, f)
	}
	for n := range samples.Blocks {
		all[len(all)-samples.Blocks+n].text = samples.Block(n)
	}
	return all
}

func TestCountsAreThoseOfTiktoken(t *testing.T) {
	t.Parallel()
	all := fixtures(t)
	if len(all) < 3000+samples.Blocks {
		t.Fatalf("there are only %d fixtures", len(all))
	}
	wrong := 0
	for _, f := range all {
		got := [2]int{O200k.Count([]byte(f.text)), Cl100k.Count([]byte(f.text))}
		if got == f.want {
			continue
		}
		if wrong++; wrong <= 5 {
			t.Errorf("%.300q: %v tokens, want %v", f.text, got, f.want)
		}
	}
	t.Logf("%d texts, %d mismatches", len(all), wrong)
}

func TestVocabulariesAreOpenAIs(t *testing.T) {
	t.Parallel()
	// The SHA-256 of tiktoken_ext/openai_public.py in tiktoken.
	want := map[Encoding]string{
		O200k:  "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
		Cl100k: "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
	}
	for e, sum := range want {
		hash := sha256.New()
		for rank, token := range e.Tokens() {
			fmt.Fprintf(hash, "%s %d\n", base64.StdEncoding.EncodeToString(token), rank)
		}
		if got := hex.EncodeToString(hash.Sum(nil)); got != sum {
			t.Errorf("%s: the file has the SHA-256 %s, want %s", e, got, sum)
		}
	}
}

func TestEveryTokenIsOneToken(t *testing.T) {
	t.Parallel()
	var q queue
	for _, e := range encodings {
		e.Load()
		v := map[Encoding]func() *vocabulary{O200k: o200k, Cl100k: cl100k}[e]()
		for rank, token := range e.Tokens() {
			if len(token) > 1 && len(token) <= maxShort && v.merge(token) != 1 {
				t.Fatalf("%s: merge makes %d tokens of token %d", e, v.merge(token), rank)
			}
			if got := q.count(v, token); got != 1 {
				t.Fatalf("%s: the queue makes %d tokens of token %d", e, got, rank)
			}
		}
	}
}

// TestShortAndLongPiecesAreJoinedAlike compares the two ways on pieces that either can take.
func TestShortAndLongPiecesAreJoinedAlike(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	var q queue
	for range 10_000 {
		alphabet := "abcdefghijklmnopqrstuvwxyz \n=-AT\xe4\xb8\xad\xe2\x80"[:1+rng.IntN(36)]
		piece := make([]byte, 2+rng.IntN(maxShort-1))
		for i := range piece {
			piece[i] = alphabet[rng.IntN(len(alphabet))]
		}
		for _, v := range []*vocabulary{o200k(), cl100k()} {
			if short, long := v.merge(piece), q.count(v, piece); short != long {
				t.Fatalf("%q: %d tokens on the stack, %d in the queue", piece, short, long)
			}
		}
	}
	for i, b := range q.buckets {
		if b != 0 {
			t.Fatalf("the bucket %d is not empty", i)
		}
	}
	if q.lowest(0) != none {
		t.Fatal("the bitmap is not empty")
	}
}

func TestLongPieces(t *testing.T) {
	t.Parallel()
	// By tiktoken 0.14.
	tests := []struct {
		text string
		n    int
		want [2]int
	}{
		{"a", 100_000, [2]int{12500, 12500}},
		{" ", 100_000, [2]int{782, 782}},
		{"\n", 100_000, [2]int{6250, 3125}},
		{"=", 100_000, [2]int{1562, 1563}},
		{"中", 30_000, [2]int{30000, 30000}},
		{" \n", 50_000, [2]int{25000, 25000}},
		{"ab", 200_000, [2]int{100000, 200000}},
	}
	for _, tt := range tests {
		text := []byte(strings.Repeat(tt.text, tt.n))
		if got := [2]int{O200k.Count(text), Cl100k.Count(text)}; got != tt.want {
			t.Errorf("%q × %d: %v tokens, want %v", tt.text, tt.n, got, tt.want)
		}
	}
}

func TestCountAllocatesNothing(t *testing.T) {
	for _, e := range encodings {
		for name, text := range texts(t) {
			if got := testing.AllocsPerRun(5, func() { e.Count(text) }); got != 0 {
				t.Errorf("%s, %s: %v allocations", e, name, got)
			}
		}
	}
}

func TestManyCountAtOnce(t *testing.T) {
	t.Parallel()
	text := []byte(strings.Repeat("x", maxPooled+1) + " " + strings.Repeat("y", 500))
	want := O200k.Count(text)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 3 {
				if got := O200k.Count(text); got != want {
					t.Errorf("got %d, want %d", got, want)
				}
			}
		})
	}
	wg.Wait()
}

func TestUnknownEncodingIsTheNewest(t *testing.T) {
	t.Parallel()
	if got := Encoding(9).String(); got != "o200k_base" {
		t.Errorf("got %s", got)
	}
}

// TestClassesAgreeWithAnOlderUnicode compares with the tables of the standard library, which are of Unicode 15: newer characters are the only
// difference there may be.
func TestClassesAgreeWithAnOlderUnicode(t *testing.T) {
	t.Parallel()
	table := loadClasses()
	for r := range rune(utf8.MaxRune + 1) {
		want := other
		switch {
		case r == '\r' || r == '\n':
			want = newline
		case unicode.In(r, unicode.White_Space):
			want = space
		case unicode.In(r, unicode.Lu, unicode.Lt):
			want = upper
		case unicode.Is(unicode.Ll, r):
			want = lower
		case unicode.In(r, unicode.Lm, unicode.Lo):
			want = letter
		case unicode.Is(unicode.M, r):
			want = mark
		case unicode.Is(unicode.N, r):
			want = number
		case unicode.In(r, unicode.P, unicode.S, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs):
		default:
			continue // not assigned then
		}
		if got := table.pages[table.page[r>>8]][r&255]; got != want {
			t.Errorf("%U: class %d, want %d", r, got, want)
		}
	}
}

func FuzzCountIsBetweenOneAndTheBytes(f *testing.F) {
	for _, fixture := range fixtures(f)[:200] {
		f.Add([]byte(fixture.text))
	}
	f.Add([]byte("\xff\xfe '\xc5"))
	f.Add([]byte(strings.Repeat("ab", 70)))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, e := range encodings {
			n := e.Count(text)
			if n > len(text) || (n == 0) != (len(text) == 0) {
				t.Errorf("%s: %d tokens of %d bytes", e, n, len(text))
			}
		}
	})
}
