// SPDX-License-Identifier: Apache-2.0

package bpe

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/internal/repo"
)

// texts are what benchmarks count: text as it comes, and text that is made to be slow.
func texts(tb testing.TB) map[string][]byte {
	tb.Helper()
	root := repo.Root(tb)
	read := func(names ...string) []byte {
		var all []byte
		for _, name := range names {
			text, err := os.ReadFile(filepath.Join(root, name))
			if err != nil {
				tb.Fatal(err)
			}
			all = append(all, text...)
		}
		return all
	}
	lines := strings.SplitAfter(string(read("internal/tokens/bpe/samples/languages.txt")), "\n")
	with := func(first string) []byte {
		for _, line := range lines {
			if strings.HasPrefix(line, first) {
				return bytes.Repeat([]byte(line), 40)
			}
		}
		tb.Fatalf("no line begins with %q", first)
		return nil
	}
	rng := rand.New(rand.NewPCG(1, 2))
	random := make([]byte, 100_000)
	for i := range random {
		random[i] = 'a' + byte(rng.IntN(26))
	}
	return map[string][]byte{
		"english":   read("LICENSE", "docs/architecture.md", "CONTRIBUTING.md"),
		"code":      read("internal/jsonscan/scan.go", "usage/ship.go", "policy/ticket.go"),
		"yaml":      read("internal/admin/openapi.yaml"),
		"chinese":   with("人人"),
		"japanese":  with("すべ"),
		"russian":   with("Все"),
		"languages": []byte(strings.Join(lines, "")),
		"a":         bytes.Repeat([]byte("a"), 100_000),
		"blanks":    bytes.Repeat([]byte(" "), 100_000),
		"newlines":  bytes.Repeat([]byte("\n"), 100_000),
		"mixed":     []byte(strings.Repeat(" \n", 25_000) + strings.Repeat("\t ", 25_000)),
		"random":    random,
	}
}

func BenchmarkCount(b *testing.B) {
	for name, text := range texts(b) {
		for _, e := range []Encoding{O200k, Cl100k} {
			b.Run(name+"/"+e.String(), func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				b.ReportAllocs()
				e.Load()
				for b.Loop() {
					e.Count(text)
				}
			})
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		load(o200kMerges)
	}
}
