// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"slices"
	"strings"
)

// diff returns the lines that differ: "-" before what was wanted, "+" before what came, with the line before a change. It is empty for equal texts.
func diff(want, got string) string {
	if want == got {
		return ""
	}
	a, b := slices.Collect(strings.Lines(want)), slices.Collect(strings.Lines(got))
	var out strings.Builder
	line := func(sign, s string) {
		out.WriteString(sign + strings.TrimRight(strings.ToValidUTF8(s, "\uFFFD"), "\r\n") + "\n")
	}
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	if head > 0 {
		line("  ", a[head-1])
	}
	a, b = a[head:len(a)-tail], b[head:len(b)-tail]
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(a) > 0 && (len(b) == 0 || a[0] != b[0] && !slices.Contains(b, a[0])):
			line("- ", a[0])
			a = a[1:]
		case len(a) == 0 || a[0] != b[0]:
			line("+ ", b[0])
			b = b[1:]
		default:
			line("  ", a[0])
			a, b = a[1:], b[1:]
		}
	}
	return out.String()
}
