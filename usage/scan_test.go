// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"math/rand/v2"
	"testing"
)

// TestPlainStopsAtTheFirstByteThatIsNot compares the eight bytes at a time with one at a time.
func TestPlainStopsAtTheFirstByteThatIsNot(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		b := make([]byte, random.IntN(40))
		for i := range b {
			switch random.IntN(12) {
			case 0:
				b[i] = byte(random.IntN(256))
			case 1:
				b[i] = "\"\\\x00\x1f\x20\x21\x23\x5b\x5d\x7f\x80\xa2\xdc\xff"[random.IntN(14)]
			default:
				b[i] = 'a' + byte(random.IntN(26))
			}
		}
		want := 0
		for want < len(b) && b[want] != '"' && b[want] != '\\' && b[want] >= ' ' {
			want++
		}
		if got := plain(string(b)); got != want {
			t.Fatalf("plain(%q) = %d, want %d", b, got, want)
		}
	}
}
