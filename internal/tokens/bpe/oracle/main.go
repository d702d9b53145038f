// SPDX-License-Identifier: Apache-2.0

// Command oracle compares package bpe with the real tiktoken, which must be installed for the Python it is given:
//
//	go run ./internal/tokens/bpe/oracle -python .venv/bin/python -samples 100000 -files /usr/share/doc
//
// It prints the first differences, and how many there are; any is a failure. With -write it keeps samples and their counts, by
// tiktoken, in a file for the tests of package bpe, which need no Python. tiktoken reads the vocabularies that package bpe embeds, and checks that they are OpenAI's
// by their SHA-256.
package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	_ "embed" // oracle.py
	"encoding/base64"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"unicode/utf8"

	"github.com/weir-proxy/weir/internal/tokens/bpe"
	"github.com/weir-proxy/weir/internal/tokens/bpe/samples"
)

//go:embed oracle.py
var program string

// cacheNames are what tiktoken calls the files in its cache: the SHA-1 of the addresses that it would fetch them from.
var cacheNames = map[bpe.Encoding]string{
	bpe.O200k:  "fb374d419588a4632f3f557e76b4b70aebbca790",
	bpe.Cl100k: "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
}

type options struct {
	python, files, write string
	samples, limit       int
	seed                 uint64
}

func main() {
	var o options
	flag.StringVar(&o.python, "python", "python3", "a Python with tiktoken")
	flag.IntVar(&o.samples, "samples", 100_000, "how many texts to compare, besides one for each 256 code points")
	flag.IntVar(&o.limit, "limit", 800, "length in bytes of the longest")
	flag.Uint64Var(&o.seed, "seed", 1, "of all that is random")
	flag.StringVar(&o.files, "files", "", "a folder whose text files are cut into samples too")
	flag.StringVar(&o.write, "write", "", "a file to keep samples and counts in")
	flag.Parse()
	if err := run(context.Background(), o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "oracle:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) error {
	texts, err := makeTexts(o)
	if err != nil {
		return err
	}
	version, counts, err := ask(ctx, o.python, texts)
	if err != nil {
		return fmt.Errorf("ask tiktoken: %w", err)
	}
	size, wrong := 0, 0
	for i, text := range texts {
		got := [2]int{bpe.O200k.Count([]byte(text)), bpe.Cl100k.Count([]byte(text))}
		size += len(text)
		if got != counts[i] {
			if wrong++; wrong <= 10 {
				fmt.Fprintf(out, "%q: got %v, want %v\n", text, got, counts[i])
			}
		}
	}
	fmt.Fprintf(out, "tiktoken %s: %d texts of %d bytes in all, %d mismatches\n", version, len(texts), size, wrong)
	if wrong > 0 {
		return errors.New("the counts differ")
	}
	if o.write != "" {
		return writeFixtures(o.write, texts, counts)
	}
	return nil
}

// makeTexts returns the samples and, behind them, the blocks of code points.
func makeTexts(o options) ([]string, error) {
	var words, files []string
	for _, token := range bpe.O200k.Tokens() {
		if utf8.Valid(token) {
			words = append(words, string(token))
		}
	}
	if o.files != "" {
		err := filepath.WalkDir(o.files, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path) //nolint:gosec // whoever runs this says which
			if err == nil && len(text) > 100 && len(text) < 4<<20 && utf8.Valid(text) && len(files) < 20_000 {
				files = append(files, string(text))
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	m := samples.New(o.seed, words, files)
	texts := make([]string, 0, o.samples+samples.Blocks)
	for range o.samples {
		texts = append(texts, m.Text(o.limit))
	}
	for n := range samples.Blocks {
		texts = append(texts, samples.Block(n))
	}
	return texts, nil
}

// ask has tiktoken count, and returns its version and the counts by both encodings.
func ask(ctx context.Context, python string, texts []string) (version string, counts [][2]int, err error) {
	cache, err := os.MkdirTemp("", "weir-oracle-")
	if err != nil {
		return "", nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(cache)) }()
	for e, name := range cacheNames {
		var b bytes.Buffer
		for rank, token := range e.Tokens() {
			fmt.Fprintf(&b, "%s %d\n", base64.StdEncoding.EncodeToString(token), rank)
		}
		if err := os.WriteFile(filepath.Join(cache, name), b.Bytes(), 0o600); err != nil {
			return "", nil, err
		}
	}
	var in bytes.Buffer
	for _, text := range texts {
		in.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(text)))) //nolint:gosec // at most some megabytes
		in.WriteString(text)
	}
	cmd := exec.CommandContext(ctx, python, "-c", program) //nolint:gosec // whoever runs this says which
	cmd.Env = append(os.Environ(), "TIKTOKEN_CACHE_DIR="+cache)
	cmd.Stdin, cmd.Stderr = &in, os.Stderr
	answer, err := cmd.Output()
	if err != nil {
		return "", nil, err
	}
	r := bufio.NewReader(bytes.NewReader(answer))
	if _, err := fmt.Fscanln(r, &version); err != nil {
		return "", nil, err
	}
	counts = make([][2]int, len(texts))
	for i := range counts {
		if _, err := fmt.Fscanln(r, &counts[i][0], &counts[i][1]); err != nil {
			return "", nil, err
		}
	}
	return version, counts, nil
}

// writeFixtures keeps counts, and the texts of the samples: compressed by gzip, for each text the length and the bytes of it, which a block of code points lacks, and
// both counts. All numbers are unsigned varints.
func writeFixtures(path string, texts []string, counts [][2]int) error {
	var data []byte
	for i, text := range texts {
		if i < len(texts)-samples.Blocks {
			data = binary.AppendUvarint(data, uint64(len(text)))
			data = append(data, text...)
		} else {
			data = binary.AppendUvarint(data, 0)
		}
		for _, n := range counts[i] {
			data = binary.AppendUvarint(data, uint64(n)) //nolint:gosec // a count
		}
	}
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(path, out.Bytes(), 0o644) //nolint:gosec // a source file
}
