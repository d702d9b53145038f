// SPDX-License-Identifier: Apache-2.0

// Guard refuses prompts with words of its configuration (one a line), and tags the others with their length.
package main

import (
	"strconv"
	"strings"

	weir "github.com/weir-proxy/weir/plugins/sdk/go"
)

var words []string

//go:wasmexport weir_configure
func configure(at, length uint32) uint64 {
	return weir.Configure(at, length, func(config []byte) error {
		words = strings.Fields(string(config))
		return nil
	})
}

//go:wasmexport weir_request
func request(at, length uint32) uint64 { return weir.Request(at, length, judge) }

func judge(x *weir.Exchange) *weir.Verdict {
	n := 0
	for _, t := range x.Texts() {
		n += len(t.Text)
		for _, w := range words {
			if strings.Contains(t.Text, w) {
				return weir.Deny(403, "forbidden_word", "This prompt has a word that is not allowed here.")
			}
		}
	}
	return weir.GoOn().Tag("prompt_bytes", strconv.Itoa(n))
}

func main() {}
