// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestUsageObjectsOfProvidersAreCounted(t *testing.T) {
	want := map[string]*Tokens{ // nil: no usage
		"openai-chat":                   {Input: 19, CachedInput: 4, Output: 10, Reasoning: 6},
		"openai-chat-null-details":      {Input: 19, Output: 10},
		"openai-chat-trailing":          {Input: 19, Output: 10},
		"openai-chat-truncated":         nil,
		"openai-responses":              {Input: 36, CachedInput: 12, Output: 87, Reasoning: 64},
		"openai-audio":                  {Input: 120, CachedInput: 20, Output: 90, Details: Details{AudioInput: 60, AudioOutput: 70}},
		"openai-image":                  {Input: 900, Output: 300, Details: Details{ImageInput: 850, ImageOutput: 300}},
		"openrouter-cache-write":        {Input: 500, CachedInput: 100, Output: 7, Details: Details{CacheWrite: 300}},
		"openai-embeddings":             {Input: 8},
		"openai-transcription-duration": nil,
		"voyage-embeddings":             {Input: 10},
		"deepseek":                      {Input: 100, CachedInput: 64, Output: 20},
		"anthropic":                     {Input: 5146, CachedInput: 1000, Output: 503, Details: Details{CacheWrite: 2051}},
		"anthropic-delta":               nil,
		"openrouter":                    {Input: 14, Output: 163},
		"groq":                          {Input: 18, Output: 556},
		"gemini-thoughts-apart":         {Input: 10, Output: 120, Reasoning: 100},
		"xai-reasoning-apart":           {Input: 32, CachedInput: 6, Output: 103, Reasoning: 94},
		"litellm-anthropic":             {Input: 3100, CachedInput: 3000, Output: 50},
		"cached-above-input":            {Input: 10, CachedInput: 10, Output: 1},
		"zeros":                         {},
		"negative":                      nil,
		"fraction":                      nil,
		"exponent":                      nil,
		"string":                        nil,
		"absurd":                        nil,
		"above-limit":                   nil,
		"null":                          nil,
		"empty-object":                  nil,
		"output-only":                   nil,
	}
	files, err := filepath.Glob("testdata/usage/*.json")
	if err != nil || len(files) != len(want) {
		t.Fatalf("got %d files, %v, want %d", len(files), err, len(want))
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			w, listed := want[name]
			if !listed {
				t.Fatal("no expectation")
			}
			got, ok := ParseCounts(string(b))
			if ok != (w != nil) {
				t.Fatalf("got %+v, %v", got, ok)
			}
			if w != nil {
				if d := cmp.Diff(*w, got); d != "" {
					t.Errorf("(-want +got):\n%s", d)
				}
			}
		})
	}
}

func TestEveryTruncationOfAUsageObjectIsNoUsage(t *testing.T) {
	s := `{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":4}}`
	for n := range len(s) {
		if got, ok := ParseCounts(s[:n]); ok {
			t.Errorf("%s: got %+v", s[:n], got)
		}
	}
}

// FuzzParseCounts compares with a plain reading by encoding/json, and checks that parts are never more than the whole.
func FuzzParseCounts(f *testing.F) {
	files, err := filepath.Glob("testdata/usage/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := ParseCounts(s)
		if !ok {
			return
		}
		if got.Input < 0 || got.Output < 0 || got.CachedInput < 0 || got.Reasoning < 0 ||
			got.CachedInput > got.Input || got.Reasoning > got.Output || got.Input > 3*maxCount || got.Output > 2*maxCount {
			t.Fatalf("%s: got %+v", s, got)
		}
		d := got.Details
		if min(d.CacheWrite, d.AudioInput, d.ImageInput, d.AudioOutput, d.ImageOutput) < 0 ||
			max(d.CacheWrite, d.AudioInput, d.ImageInput) > got.Input || max(d.AudioOutput, d.ImageOutput) > got.Output {
			t.Fatalf("%s: parts are more than the whole: %+v", s, got)
		}
		var m map[string]json.RawMessage
		if err := json.NewDecoder(strings.NewReader(s)).Decode(&m); err != nil {
			t.Fatalf("%s: accepted what encoding/json refuses: %v", s, err)
		}
		for _, beside := range []string{"cache_read_input_tokens", "cache_creation_input_tokens", "input_tokens"} {
			if _, is := m[beside]; is {
				return
			}
		}
		if want, err := strconv.ParseInt(string(m["prompt_tokens"]), 10, 64); err == nil && got.Input != want {
			t.Fatalf("%s: got input %d, want %d", s, got.Input, want)
		}
	})
}
