// SPDX-License-Identifier: Apache-2.0

// Pii-redactor takes personal data and secrets out of prompts and responses. Of a response it holds back what could still become such data,
// so that no cut of the stream lets any through.
package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	weir "github.com/weir-proxy/weir/plugins/sdk/go"
)

// kinds of the host's scan, by their names here.
var kinds = []struct {
	name  string
	label string
	kind  uint32
}{
	{"email", "EMAIL", 1},
	{"card", "CARD", 2},
	{"iban", "IBAN", 4},
	{"ssn", "SSN", 8},
	{"ip", "IP", 16},
	{"phone", "PHONE", 32},
	{"secret", "SECRET", 64},
}

const (
	kindCard   = 2
	kindSecret = 64
)

var config struct {
	Kinds       []string `json:"kinds"`
	Replacement string   `json:"replacement"`
	Prompts     bool     `json:"prompts"`
	Responses   bool     `json:"responses"`
}

// wanted is the sum of the kinds to look for.
var wanted uint32

//go:wasmexport weir_configure
func configure(at, length uint32) uint64 {
	return weir.Configure(at, length, func(b []byte) error {
		config.Replacement, config.Prompts, config.Responses = "[{kind}]", true, true
		if len(b) > 0 {
			if err := json.Unmarshal(b, &config); err != nil {
				return fmt.Errorf("the configuration is not as schema.json says: %w", err)
			}
		}
		if strings.ContainsAny(config.Replacement, "\"\\\n\r") {
			return fmt.Errorf("the replacement has a quote, a backslash or a line's end, which would break arguments of tools")
		}
		for _, name := range config.Kinds {
			k, ok := kindNamed(name)
			if !ok {
				return fmt.Errorf("there is no kind %q", name)
			}
			wanted |= k
		}
		if wanted == 0 {
			wanted = 127
		}
		return nil
	})
}

func kindNamed(name string) (uint32, bool) {
	for _, k := range kinds {
		if k.name == name {
			return k.kind, true
		}
	}
	return 0, false
}

//go:wasmexport weir_request
func request(at, length uint32) uint64 { return weir.Request(at, length, judge) }

func judge(x *weir.Exchange) *weir.Verdict {
	v, n := weir.GoOn(), 0
	if !config.Prompts {
		return v
	}
	for _, m := range x.Messages() {
		for _, t := range m.Texts() {
			for _, f := range scan(t.Text) {
				v.Edit(t.ID, int(f.Start), int(f.End), mask(t.Text, f, false))
				n++
			}
		}
		for _, c := range m.Calls() {
			for _, f := range scan(c.Arguments.Text) {
				v.Edit(c.Arguments.ID, int(f.Start), int(f.End), mask(c.Arguments.Text, f, true))
				n++
			}
		}
	}
	if n > 0 {
		v.Tag("pii_in_prompt", strconv.Itoa(n))
	}
	return v
}

// scan finds all that there is: nothing that is found has fewer than five bytes.
func scan(text string) []weir.Found { return weir.Scan(wanted, text, len(text)/5+1) }

// mask is what stands in the place of data. In arguments a card may be a bare number, which must stay one.
func mask(text string, f weir.Found, arguments bool) string {
	found := text[f.Start:f.End]
	if arguments && f.Kind == kindCard && strings.Trim(found, "0123456789") == "" {
		return strings.Repeat("9", len(found))
	}
	for _, k := range kinds {
		if k.kind == f.Kind {
			return strings.ReplaceAll(config.Replacement, "{kind}", k.label)
		}
	}
	return strings.ReplaceAll(config.Replacement, "{kind}", "PII")
}

func main() {}
