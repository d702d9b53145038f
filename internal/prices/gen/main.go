// SPDX-License-Identifier: Apache-2.0

// Command gen writes prices.tsv, the table that package prices embeds, from the list in a release of LiteLLM. It is run by go generate in the folder
// of that package. To take a newer list, change the pin below; the error says the new SHA-256.
//
// It takes the models that chat, complete, embed or respond and have a price for input and output. It leaves out those whose input is listed as free, for
// a list cannot tell what is free from what is not known, those that cost something for each request beside their tokens, and those with a rate above
// $1000 for a million tokens, which so far were mistakes by a factor of 1000.
package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The release that the list is from, the SHA-256 of the list, and the day it was taken.
const (
	release = "1.109.1"
	sum     = "8f8060d8ce7a40c91b995c74d6a27657543d49e3c1c53430dabd556f244392c6"
	date    = "2026-11-22"
	list    = "litellm/model_prices_and_context_window_backup.json"
)

func main() {
	file := flag.String("list", "", "the list, where pip is not to fetch it")
	out := flag.String("out", "prices.tsv", "the table")
	flag.Parse()
	if err := run(*file, *out); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(file, out string) error {
	var text []byte
	var err error
	if file != "" {
		text, err = os.ReadFile(file) //nolint:gosec // whoever runs this says which
	} else {
		text, err = fetch()
	}
	if err != nil {
		return fmt.Errorf("fetch the list: %w", err)
	}
	if got := sha256.Sum256(text); hex.EncodeToString(got[:]) != sum {
		return fmt.Errorf("the list has the SHA-256 %x, not the pinned %s", got, sum)
	}
	var models map[string]map[string]json.RawMessage
	if err := json.Unmarshal(text, &models); err != nil {
		return fmt.Errorf("read the list: %w", err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# version: litellm-%s\n# date: %s\n", release, date)
	fmt.Fprintf(&b, "# source: LiteLLM %s, %s, SHA-256 %s, Copyright (c) 2023 Berri AI, MIT License (LICENSE.litellm)\n", release, filepath.Base(list), sum)
	b.WriteString("# unit: nano-dollars for a million tokens; an empty cell inherits, see parse.go\n")
	b.WriteString("model\tservice\tabove\tmax_input\tmax_output\tinput\tcached_input\tcache_write\toutput\treasoning\taudio_input\taudio_output\timage_input\timage_output\n")
	n := 0
	for _, name := range slices.Sorted(maps.Keys(models)) {
		rows, err := rowsOf(name, models[name])
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if slices.ContainsFunc(rows, absurd) {
			fmt.Fprintf(os.Stderr, "%s: a rate above $1000\n", name)
			continue
		}
		n += min(len(rows), 1)
		for _, r := range rows {
			b.WriteString(strings.Join(r, "\t") + "\n")
		}
	}
	fmt.Fprintf(os.Stderr, "%d of %d models, %d bytes\n", n, len(models), b.Len())
	return os.WriteFile(out, b.Bytes(), 0o644) //nolint:gosec // a source file
}

// fetch has pip download the release, and reads the list in it.
func fetch() (text []byte, err error) {
	dir, err := os.MkdirTemp("", "weir-prices-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	pip := exec.Command("python3", "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet", "--dest", dir, "litellm=="+release)
	pip.Stderr = os.Stderr
	if err := pip.Run(); err != nil {
		return nil, err
	}
	wheels, err := filepath.Glob(filepath.Join(dir, "*.whl"))
	if err != nil || len(wheels) != 1 {
		return nil, errors.Join(errors.New("pip left no wheel"), err)
	}
	z, err := zip.OpenReader(wheels[0])
	if err != nil {
		return nil, err
	}
	defer z.Close() //nolint:errcheck // it was read
	f, err := z.Open(list)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(f)
}

// fields are the names of the rates in the list, in the order of the columns.
var fields = []string{
	"input_cost_per_token", "cache_read_input_token_cost", "cache_creation_input_token_cost", "output_cost_per_token", "output_cost_per_reasoning_token",
	"input_cost_per_audio_token", "output_cost_per_audio_token", "input_cost_per_image_token", "output_cost_per_image_token",
}

// services are the endings of names of rates, and what the table calls them.
var services = []struct{ ending, name string }{{"", ""}, {"_flex", "flex"}, {"_priority", "priority"}}

// tierName finds the limit in the name of a rate.
var tierName = regexp.MustCompile(`_above_(\d+)k_tokens`)

// rowsOf returns the rows of a model; none if it has no place in the table.
func rowsOf(name string, model map[string]json.RawMessage) ([][]string, error) {
	switch mode := string(model["mode"]); mode {
	case `"chat"`, `"completion"`, `"responses"`, `"embedding"`:
	default:
		return nil, nil
	}
	if model["input_cost_per_request"] != nil || strings.ContainsAny(name, "\t\n") {
		return nil, nil
	}
	limits := []string{tokens(model["max_input_tokens"]), tokens(model["max_output_tokens"])}
	if model["tiered_pricing"] != nil && model[fields[0]] == nil {
		return tieredRows(name, limits, model["tiered_pricing"])
	}
	var rows [][]string
	for _, service := range services {
		for _, above := range tiersOf(model) {
			ending := service.ending
			if above > 0 {
				ending = fmt.Sprintf("_above_%dk_tokens%s", above/1000, service.ending)
			}
			rates, err := ratesOf(model, ending)
			if err != nil {
				return nil, err
			}
			if rates[0] == "" || rates[0] == "0" || rates[3] == "" && string(model["mode"]) != `"embedding"` {
				if above == 0 {
					break // tiers without a beginning mean nothing
				}
				continue
			}
			rows = append(rows, slices.Concat([]string{name, service.name, strconv.Itoa(above)}, limits, rates))
		}
		if len(rows) == 0 {
			return nil, nil // other services without a standard one
		}
	}
	return rows, nil
}

// absurd reports whether a row has a rate above $1000 for a million tokens.
func absurd(row []string) bool {
	return slices.ContainsFunc(row[len(row)-len(fields):], func(rate string) bool {
		return len(rate) > len("1000000000000") || len(rate) == len("1000000000000") && rate > "1000000000000"
	})
}

// tiersOf returns the limits above which a model has other rates, zero first.
func tiersOf(model map[string]json.RawMessage) []int {
	tiers := []int{0}
	for field := range model {
		if m := tierName.FindStringSubmatch(field); m != nil && strings.HasPrefix(field, fields[0]) {
			if k, err := strconv.Atoi(m[1]); err == nil && !slices.Contains(tiers, k*1000) {
				tiers = append(tiers, k*1000)
			}
		}
	}
	slices.Sort(tiers)
	return tiers
}

// tieredRows reads the other form that tiers have: a list of ranges with rates.
func tieredRows(name string, limits []string, list json.RawMessage) ([][]string, error) {
	var tiers []map[string]json.RawMessage
	if err := json.Unmarshal(list, &tiers); err != nil {
		return nil, err
	}
	var rows [][]string
	for _, tier := range tiers {
		var bounds []float64
		if err := json.Unmarshal(tier["range"], &bounds); err != nil || len(bounds) != 2 {
			return nil, errors.Join(errors.New("a tier without a range"), err)
		}
		rates, err := ratesOf(tier, "")
		if err != nil {
			return nil, err
		}
		if rates[0] == "" || rates[0] == "0" || rates[3] == "" || len(rows) == 0 && bounds[0] != 0 {
			return nil, nil
		}
		rows = append(rows, slices.Concat([]string{name, "", strconv.Itoa(int(bounds[0]))}, limits, rates))
	}
	return rows, nil
}

// ratesOf returns the rates whose names have an ending; empty where there is none.
func ratesOf(model map[string]json.RawMessage, ending string) ([]string, error) {
	rates := make([]string, len(fields))
	for i, field := range fields {
		value := string(model[field+ending])
		if value == "" || value == "null" {
			continue
		}
		rate, err := nanos(value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field+ending, err)
		}
		rates[i] = rate
	}
	return rates, nil
}

// nanos turns dollars for a token into nano-dollars for a million of them, rounded to the nearest.
func nanos(dollars string) (string, error) {
	r, ok := new(big.Rat).SetString(dollars)
	if !ok || r.Sign() < 0 {
		return "", fmt.Errorf("%q is no price", dollars)
	}
	r.Mul(r, new(big.Rat).SetInt64(1e15))
	return r.FloatString(0), nil
}

// tokens returns a limit of tokens as a number; empty if it is none.
func tokens(value json.RawMessage) string {
	var n float64
	if json.Unmarshal(value, &n) != nil || n <= 0 || n != float64(int64(n)) {
		return ""
	}
	return strconv.FormatInt(int64(n), 10)
}
