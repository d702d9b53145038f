// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"net/http"
	"strings"
)

// embedding is a vector of an answer: a list of numbers, or the base64 of its little-endian float32s.
type embedding struct {
	Object    string `json:"object"`
	Index     int    `json:"index"`
	Embedding any    `json:"embedding"`
}

// embeddingUsage is the usage of embeddings: https://platform.openai.com/docs/api-reference/embeddings/object.
type embeddingUsage struct {
	PromptTokens int `json:"prompt_tokens"`
	TotalTokens  int `json:"total_tokens"`
}

// embedding answers https://platform.openai.com/docs/api-reference/embeddings/create.
func (q *request) embedding() (*answer, *refusal) {
	counts, f := q.texts("input")
	if f != nil {
		return nil, f
	}
	size := 1536
	if strings.HasSuffix(q.model, "-large") {
		size = 3072
	}
	if size, f = q.whole("dimensions", size, size); f != nil {
		return nil, f
	}
	format := "float"
	if f := q.field("encoding_format", &format); f != nil {
		return nil, f
	}
	if format != "float" && format != "base64" {
		return nil, badRequest("encoding_format", "invalid_value", "Invalid value: '%s'. Supported values are: 'float' and 'base64'.", format)
	}
	body := struct {
		Object string          `json:"object"`
		Data   []embedding     `json:"data"`
		Model  string          `json:"model"`
		Usage  *embeddingUsage `json:"usage,omitempty"`
	}{Object: "list", Model: q.model}
	input := 0
	for i, n := range counts {
		if n == 0 {
			return nil, badRequest("input", "invalid_value", "Invalid 'input': input cannot be an empty string.")
		}
		input += n
		body.Data = append(body.Data, embedding{"embedding", i, encodeVector(vector(q.seed+uint64(i), size), format)})
	}
	if !q.recipe.noUsage {
		body.Usage = &embeddingUsage{input, input}
	}
	a := &answer{status: http.StatusOK, retryAfter: -1, reports: true, usage: usage{input: input}}
	a.event(encode(body), 0)
	return a, nil
}

// vector makes a unit vector.
func vector(seed uint64, size int) []float32 {
	v := make([]float32, size)
	var sum float64
	for i := range v {
		seed = seed*6_364_136_223_846_793_005 + 1_442_695_040_888_963_407 // Knuth's MMIX generator
		v[i] = float32(int32(seed>>32)) / math.MaxInt32
		sum += float64(float64(v[i]) * float64(v[i])) // the conversion keeps every processor to the same rounding
	}
	norm := float32(math.Sqrt(sum))
	for i := range v {
		v[i] /= norm
	}
	return v
}

// encodeVector puts a vector into the form that the client asked for.
func encodeVector(v []float32, format string) any {
	if format == "float" {
		return v
	}
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return base64.StdEncoding.EncodeToString(b)
}
