// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"regexp"
	"strings"
	"testing"
)

func TestAllowListMatches(t *testing.T) {
	t.Parallel()
	tests := []struct {
		patterns string // separated by spaces
		model    string
		want     bool
	}{
		{"", "anything", true},
		{"gpt-4o", "gpt-4o", true},
		{"gpt-4o", "gpt-4o-mini", false},
		{"gpt-4o", "GPT-4O", false},
		{"a b c", "c", true},
		{"gpt-*", "gpt-", true},
		{"gpt-*", "gpt-4o", true},
		{"gpt-*", "xgpt-4o", false},
		{"*-mini", "gpt-4o-mini", true},
		{"*-mini", "-min", false},
		{"*", "x", true},
		{"a*a", "a", false},
		{"a*a", "aa", true},
		{"*ab*ab", "ab", false},
		{"*ab*ab", "abab", true},
		{"*ab*abc", "ababcabc", true},
		{"a**b", "ab", true},
		{"gpt-*-mini*", "gpt-4o-mini-2024", true},
		{"gpt-*-mini*", "gpt-mini", false},
		{"gpt.4*", "gpt-4o", false},
		{"x gpt-?", "gpt-4", false},
		{"x *4", "gpt-4", true},
	}
	for _, tt := range tests {
		a := newAllowList(strings.Fields(tt.patterns))
		if got := a.allows(tt.model); got != tt.want {
			t.Errorf("%q allows %q = %v, want %v", tt.patterns, tt.model, got, tt.want)
		}
	}
}

func TestGlobIsQuickOnHostilePatterns(t *testing.T) {
	t.Parallel()
	// A matcher that goes back takes longer than the age of the universe for these.
	g := newGlob(strings.Repeat("*a", 200) + "*b")
	if g.match(strings.Repeat("a", maxTicketString)) {
		t.Error("matches without a b")
	}
	if !g.match(strings.Repeat("a", maxTicketString-1) + "b") {
		t.Error("does not match with a b")
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("gpt-*-mini*", "gpt-4o-mini")
	f.Add("*a*ab", "aab")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if len(pattern) > 100 || len(s) > 1000 {
			t.Skip("slow for the other side only")
		}
		want, err := regexp.Compile(`(?s)\A` + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `.*`) + `\z`)
		if err != nil || strings.ToValidUTF8(s, "") != s || strings.ToValidUTF8(pattern, "") != pattern {
			return
		}
		if got := newGlob(pattern).match(s); got != want.MatchString(s) {
			t.Errorf("glob %q matches %q = %v, want %v", pattern, s, got, !got)
		}
	})
}
