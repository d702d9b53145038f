// SPDX-License-Identifier: Apache-2.0

// Command gen writes the vocabularies that package bpe embeds. It takes them from a module that carries OpenAI's files, checks their SHA-256, and
// checks what package bpe rests on: see its documentation. It is run by go generate in the folder of that package.
package main

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// loader is the module with the files; it is only read, never built.
const loader = "github.com/pkoukk/tiktoken-go-loader@v0.0.2"

// sums are the SHA-256 of the files, as tiktoken_ext/openai_public.py has them.
var sums = map[string]string{
	"cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
	"o200k_base":  "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run() error {
	dir, err := download()
	if err != nil {
		return fmt.Errorf("download %s: %w", loader, err)
	}
	for name, sum := range sums {
		text, err := os.ReadFile(filepath.Join(dir, "assets", name+".tiktoken")) //nolint:gosec // a name of ours
		if err != nil {
			return err
		}
		if got := sha256.Sum256(text); hex.EncodeToString(got[:]) != sum {
			return fmt.Errorf("%s is not OpenAI's file: its SHA-256 is %x", name, got)
		}
		packed, err := pack(text)
		if err != nil {
			return fmt.Errorf("pack %s: %w", name, err)
		}
		if err := os.WriteFile(name+".merges", packed, 0o644); err != nil { //nolint:gosec // a source file
			return err
		}
	}
	return nil
}

// download returns the folder of the module.
func download() (string, error) {
	cmd := exec.Command("go", "mod", "download", "-json", loader)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", err
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return "", err
	}
	return module.Dir, nil
}

// pack turns a file of tiktoken, a token in base64 and its rank on each line, into the form that package bpe reads: see decode there.
func pack(text []byte) ([]byte, error) {
	var tokens [][]byte
	ranks := make(map[string]int)
	for line := range bytes.Lines(text) {
		code, rank, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		token, err := base64.StdEncoding.AppendDecode(nil, code)
		if err != nil {
			return nil, err
		}
		if n, err := strconv.Atoi(string(rank)); err != nil || n != len(tokens) {
			return nil, fmt.Errorf("the ranks are not in order at %d", len(tokens))
		}
		ranks[string(token)] = len(tokens)
		tokens = append(tokens, token)
	}
	var data, left, right []byte
	for id, token := range tokens {
		if (len(token) == 1) != (id < 256) {
			return nil, fmt.Errorf("the first 256 tokens are not those of one byte: %d is %q", id, token)
		}
		if id < 256 {
			data = append(data, token...)
			continue
		}
		cut, err := lastJoin(ranks, token)
		if err != nil {
			return nil, fmt.Errorf("token %d: %w", id, err)
		}
		left = appendRank(left, ranks[string(token[:cut])])
		right = appendRank(right, ranks[string(token[cut:])])
	}
	data = appendPlanes(appendPlanes(data, left), right)
	return compress(data)
}

func appendRank(b []byte, rank int) []byte {
	return append(b, byte(rank), byte(rank>>8), byte(rank>>16))
}

// appendPlanes appends all first bytes of groups of three, then all second and all third ones: what is alike stands together, and compresses better.
func appendPlanes(b, triples []byte) []byte {
	for plane := range 3 {
		for i := plane; i < len(triples); i += 3 {
			b = append(b, triples[i])
		}
	}
	return b
}

// lastJoin makes tokens of the bytes of a token by the rules of BPE, and returns where the last two that it joins meet. The result must be the token.
func lastJoin(ranks map[string]int, token []byte) (cut int, err error) {
	ends := make([]int, len(token)+1) // of the parts; the first is where they begin
	for i := range ends {
		ends[i] = i
	}
	for len(ends) > 2 {
		lowest, at := len(ranks), 0
		for i := 2; i < len(ends); i++ {
			if r, ok := ranks[string(token[ends[i-2]:ends[i]])]; ok && r < lowest {
				lowest, at = r, i
			}
		}
		if at == 0 {
			return 0, fmt.Errorf("%q is not what its own bytes are joined to", token)
		}
		cut = ends[at-1]
		ends = append(ends[:at-1], ends[at:]...)
	}
	return cut, nil
}

func compress(data []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
