// SPDX-License-Identifier: Apache-2.0

package tokens

import (
	"slices"
	"strings"
)

// parts are the names of members, at any depth, that are counted by some rule.
var parts = []string{
	"messages", "tools", "functions", "response_format", "tool_choice", "function_call", "prediction", "web_search_options", "input", "instructions",
	"text", "previous_response_id", "conversation", "prompt", "suffix", "max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of",
	"role", "refusal", "arguments", "reasoning_content", "tool_call_id", "call_id", "name", "content", "output", "summary", "tool_calls",
	"encrypted_content", "function", "custom", "image_url", "input_audio", "file", "video_url", "url", "data", "detail", "file_id", "file_url",
	"file_data", "image_data", "filename", "annotations", "json_schema", "schema", "description", "parameters", "properties", "items", "enum",
	"anyOf", "oneOf", "allOf", "$defs", "definitions", "modalities",
}

// settings are the names of members that are never a part of the input.
var settings = []string{
	"model", "stream", "stream_options", "temperature", "top_p", "top_k", "min_p", "stop", "user", "metadata", "seed", "logit_bias", "logprobs",
	"top_logprobs", "presence_penalty", "frequency_penalty", "repetition_penalty", "store", "service_tier", "parallel_tool_calls", "reasoning",
	"reasoning_effort", "verbosity", "audio", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "encoding_format",
	"dimensions", "echo", "background", "include", "truncation", "max_tool_calls", "type", "id", "status", "cache_control", "index", "format", "strict",
}

// longestName is at least the length in bytes of each name, in whatever case: two letters of Unicode take more bytes than the ones that they fold to.
const longestName = 64

// names has all parts and settings, as they are and in lower case. It hands out one string for each, so that reading a key allocates nothing.
var names = func() map[string]string {
	all := make(map[string]string)
	for _, n := range slices.Concat(parts, settings) {
		all[n], all[strings.ToLower(n)] = n, n
	}
	return all
}()

// isSetting reports whether a name is one of settings.
func isSetting(name string) bool { return name != "" && slices.Contains(settings, name) }
