// SPDX-License-Identifier: Apache-2.0

package usage

import "testing"

// Wherever an Envoy dies in a line, also behind the backslash of an escape, the next Envoy's line glued to the piece is found.
func TestALineGluedToAnyPieceOfAnotherIsFound(t *testing.T) {
	_, torn := exchangeLine(99)
	id, whole := exchangeLine(101)
	for cut := range len(torn) - 1 {
		found := 0
		splitLine(torn[:cut]+whole[:len(whole)-1], new(Line), func(l *Line, _ int) {
			if l.Ticket != "" {
				found++
			}
		}, func(int, int, error) {})
		if found != 1 {
			t.Errorf("cut behind %q: found %d lines, want the one of %s", torn[max(0, cut-12):cut], found, id)
		}
	}
}

// The same when the next Envoy dies too, before the newline, and no other comes.
func TestALineGluedToAPieceNeedsNoNewline(t *testing.T) {
	h := newHarness(t)
	_, torn := exchangeLine(99)
	id, whole := exchangeLine(101)
	_, first := exchangeLine(1)
	h.write(ActiveLog, first+torn[:89]+whole[:len(whole)-1])
	h.restart()
	h.settle()
	if got := h.book.exchanges(); got[id] != 1 || len(got) != 2 {
		t.Errorf("got %v, want exchange %s and the one before it", got, id)
	}
}
