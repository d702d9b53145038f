// SPDX-License-Identifier: Apache-2.0

package tokens

import (
	"strings"

	"github.com/weir-proxy/weir/internal/tokens/bpe"
)

// rules are how a model's provider counts.
type rules struct {
	encoding bpe.Encoding
	known    bool // the encoding is the model's own
	framed   bool // the tokens around messages are published
	tool     int64
	image    image
}

// family is the models whose names begin with a prefix.
type family struct {
	prefix string
	rules
}

// Tokens before each tool, by the cookbook.
const (
	toolGPT4  = 10
	toolGPT4o = 7
)

// families are OpenAI's models: their encodings as tiktoken/model.py in tiktoken 0.14 has them, their images by
// https://platform.openai.com/docs/guides/images-vision. The longest prefix counts.
var families = [...]family{
	{"gpt-3.5", rules{bpe.Cl100k, true, true, toolGPT4, tiles(85, 170)}},
	{"gpt-35", rules{bpe.Cl100k, true, true, toolGPT4, tiles(85, 170)}}, // Azure's spelling
	{"gpt-4", rules{bpe.Cl100k, true, true, toolGPT4, tiles(85, 170)}},
	{"gpt-4o", rules{bpe.O200k, true, true, toolGPT4o, tiles(85, 170)}},
	{"gpt-4o-mini", rules{bpe.O200k, true, true, toolGPT4o, tiles(2833, 5667)}},
	{"chatgpt-4o", rules{bpe.O200k, true, true, toolGPT4o, tiles(85, 170)}},
	{"gpt-4.1", rules{bpe.O200k, true, false, toolGPT4o, tiles(85, 170)}},
	{"gpt-4.1-mini", rules{bpe.O200k, true, false, toolGPT4o, patches(162, 1536)}},
	{"gpt-4.1-nano", rules{bpe.O200k, true, false, toolGPT4o, patches(246, 1536)}},
	{"gpt-4.5", rules{bpe.O200k, true, false, toolGPT4o, tiles(85, 170)}},
	{"gpt-5", rules{bpe.O200k, true, false, toolGPT4o, tiles(70, 140)}},
	{"gpt-5-mini", rules{bpe.O200k, true, false, toolGPT4o, patches(162, 1536)}},
	{"gpt-5-nano", rules{bpe.O200k, true, false, toolGPT4o, patches(246, 1536)}},
	{"gpt-5.", rules{bpe.O200k, true, false, toolGPT4o, patches(120, 10_000)}},
	{"gpt-5.1", rules{bpe.O200k, true, false, toolGPT4o, tiles(70, 140)}},
	{"gpt-oss", rules{bpe.O200k, true, false, toolGPT4o, unknownImage}},
	{"o1", rules{bpe.O200k, true, false, toolGPT4o, tiles(75, 150)}},
	{"o3", rules{bpe.O200k, true, false, toolGPT4o, tiles(75, 150)}},
	{"o4-mini", rules{bpe.O200k, true, false, toolGPT4o, patches(172, 1536)}},
	{"codex-mini", rules{bpe.O200k, true, false, toolGPT4o, unknownImage}},
	{"computer-use", rules{bpe.O200k, true, false, toolGPT4o, tiles(65, 129)}},
	{"text-embedding-ada-002", rules{encoding: bpe.Cl100k, known: true, framed: true}},
	{"text-embedding-3-", rules{encoding: bpe.Cl100k, known: true, framed: true}},
	{"davinci-002", rules{encoding: bpe.Cl100k, known: true, framed: true}},
	{"babbage-002", rules{encoding: bpe.Cl100k, known: true, framed: true}},
}

// rulesOf returns the rules of a model by its name, which may have a provider's before it, as in openai/gpt-4o, and may be a fine-tuned one's, as in ft:gpt-4o:name.
func rulesOf(model string) rules {
	if i := strings.LastIndexByte(model, '/'); i >= 0 {
		model = model[i+1:]
	}
	model = strings.TrimPrefix(model, "ft:")
	found := family{rules: rules{encoding: bpe.O200k, tool: toolGPT4, image: unknownImage}}
	for i := range families {
		if f := &families[i]; len(f.prefix) > len(found.prefix) && strings.HasPrefix(model, f.prefix) {
			found = *f
		}
	}
	return found.rules
}
