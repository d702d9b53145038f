// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"
)

// table is a table in Markdown whose columns are aligned, so that it reads as well in a terminal. All columns but the first are numbers.
type table struct{ rows [][]string }

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(w io.Writer) {
	var width []int
	for _, r := range t.rows {
		for i, c := range r {
			if i == len(width) {
				width = append(width, 3)
			}
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	for n, r := range t.rows {
		for i, c := range r {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c))
			if i == 0 {
				fmt.Fprintf(w, "| %s%s ", c, pad)
			} else {
				fmt.Fprintf(w, "| %s%s ", pad, c)
			}
		}
		fmt.Fprintln(w, "|")
		if n > 0 {
			continue
		}
		for i := range r {
			line := strings.Repeat("-", width[i]+1)
			if i == 0 {
				fmt.Fprintf(w, "|%s-", line)
			} else {
				fmt.Fprintf(w, "|%s:", line)
			}
		}
		fmt.Fprintln(w, "|")
	}
}

// figure prints a number with three digits that mean something; what is not known is a dash.
func figure(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "–"
	case a >= 100 || a == 0:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// ranged prints the median, and from where to where it went if there were several rounds.
func (s spreadOf) ranged() string {
	if s.least == s.most || math.IsNaN(s.median) {
		return figure(s.median)
	}
	return fmt.Sprintf("%s (%s–%s)", figure(s.median), figure(s.least), figure(s.most))
}
