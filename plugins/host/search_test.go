// SPDX-License-Identifier: Apache-2.0

package host

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/plugins/abi"
)

// TestRustPluginsFindTheWordsThatAreThere holds the search of the SDK, which looks at 64 bytes at a time, to Go's: at each place of a short text and of a long one, around
// the edges of what it looks at together, with words that almost fit, and with characters of several bytes.
func TestRustPluginsFindTheWordsThatAreThere(t *testing.T) {
	t.Parallel()
	h := newHost(t, Options{})
	wasm := rustGuard(t)
	r := rand.New(rand.NewPCG(1, 2))
	for _, alphabet := range []string{"ab", "aaaaaaaaab", "aé", "é→𝄞", "abcdefghijklmnop"} {
		letters := []rune(alphabet)
		random := func(n int) string {
			var b strings.Builder
			for range n {
				b.WriteRune(letters[r.IntN(len(letters))])
			}
			return b.String()
		}
		for _, length := range []int{1, 2, 3, 5, 8, 15, 16, 17, 40, 90} {
			word := random(length)
			p := load(t, h, wasm, func(s *Source) { s.Config = []byte(word) })
			for n := range 60 {
				text := random(r.IntN(400))
				switch n % 3 {
				case 0:
					text = text[:len(text)/2&^7] + word + text
				case 1: // it almost stands there, at many places
					last := len(word) - len(string([]rune(word)[length-1]))
					text = strings.Repeat(word[:last]+random(1), 1+r.IntN(20)) + text
				}
				text = strings.ToValidUTF8(text, "")
				want := abi.Continue
				if strings.Contains(text, word) {
					want = abi.Deny
				}
				x := request()
				x.Messages[0].Texts[0].Text = text
				got := p.Request(t.Context(), x, Closed)
				if got.Failure != nil || got.Verdict.Action != want {
					t.Fatalf("%q in %q: action %d, %v; want %d", word, text, got.Verdict.Action, got.Failure, want)
				}
			}
		}
	}
}

// TestSearchesOfRustPluginsTakeLinearFuel: no text makes a word dear to look for.
func TestSearchesOfRustPluginsTakeLinearFuel(t *testing.T) {
	t.Parallel()
	const length = 64 << 10
	word := strings.Repeat("a", 500) + "b" + strings.Repeat("a", 500)
	p := load(t, newHost(t, Options{}), rustGuard(t), func(s *Source) { s.Config = []byte(word) })
	r := p.Request(t.Context(), prompt(strings.Repeat("a", length)), Closed)
	if r.Failure != nil || r.Verdict.Action != abi.Continue {
		t.Fatalf("action %d, %v", r.Verdict.Action, r.Failure)
	}
	if most := int64(100 * length); r.Fuel > most {
		t.Errorf("it used %d fuel for %d bytes, and %d would be too much", r.Fuel, length, most)
	}
}
