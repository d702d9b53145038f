// SPDX-License-Identifier: Apache-2.0

package cli

// The rules of what is printed:
//
//   - What was asked for goes to standard output, and nothing else does. With --json it is one JSON value: an array for a list, else an object.
//   - Remarks (what to do next, that a list is empty) go to standard error, and are left out with --json.
//   - Errors go to standard error, "weir: " before each line; then "hint: " and what to do about it. They have no capital and no full stop.
//   - Lists are tables with a header. An empty list has none. Times are in the zone of the reader, ages in one unit, costs in USD.
//   - Names that came from clients may hold anything: what could steer a terminal is shown as an escape.
//   - A secret is printed when it is made, and at no other time.

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"
)

func withHint(err error, format string, args ...any) error {
	return &hinted{err, fmt.Sprintf(format, args...)}
}

func printError(w io.Writer, err error) {
	for line := range strings.Lines(err.Error()) {
		line = strings.TrimSuffix(line, "\n")
		text := strings.TrimLeft(line, "\t") // pgx lists the addresses that it tried in this way
		fmt.Fprintf(w, "weir: %s%s\n", strings.Repeat("  ", len(line)-len(text)), printable(text))
	}
	if h := hintOf(err); h != "" {
		fmt.Fprintf(w, "hint: %s\n", printable(h))
	}
}

func asJSON(c *cobra.Command) bool {
	v, err := c.Flags().GetBool("json")
	return err == nil && v
}

func printJSON(c *cobra.Command, v any) error {
	e := json.NewEncoder(c.OutOrStdout())
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// remark tells people something that programs do not want to hear.
func remark(c *cobra.Command, format string, args ...any) {
	if !asJSON(c) {
		fmt.Fprintf(c.ErrOrStderr(), format+"\n", args...)
	}
}

// table is a list for people. Cells are made printable.
type table struct {
	header []string
	rows   [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) print(c *cobra.Command) error {
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
	if len(t.header) > 0 {
		fmt.Fprintln(w, strings.Join(t.header, "\t"))
	}
	for _, row := range t.rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			if cells[i] = printable(cell); cell == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// printList prints JSON, a table, or what to do when there is nothing to list.
func printList[T any](c *cobra.Command, items []T, empty string, header []string, row func(T) []string) error {
	if asJSON(c) {
		if items == nil {
			items = []T{}
		}
		return printJSON(c, items)
	}
	if len(items) == 0 {
		remark(c, "%s", empty)
		return nil
	}
	t := table{header: header}
	for _, it := range items {
		t.add(row(it)...)
	}
	return t.print(c)
}

// fact is a line of a thing that is shown on its own.
type fact struct{ name, value string }

// printThing prints JSON, or the facts.
func printThing(c *cobra.Command, v any, facts []fact) error {
	if asJSON(c) {
		return printJSON(c, v)
	}
	t := table{}
	for _, f := range facts {
		t.add(f.name, f.value)
	}
	return t.print(c)
}

// printable escapes what could steer a terminal or break a table.
func printable(s string) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	if !strings.ContainsFunc(s, unprintable) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unprintable(r) {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

func localTime(t time.Time) string { return t.Local().Format(time.RFC3339) }

// age is the time since t in its largest unit.
func age(t time.Time) string { return span(time.Since(t)) + " ago" }

func span(d time.Duration) string {
	const day = 24 * time.Hour
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{day, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if d >= u.unit {
			return strconv.FormatInt(int64(d/u.unit), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(max(d, 0)/time.Second), 10) + "s"
}

func timeAndAge(t time.Time) string { return localTime(t) + " (" + age(t) + ")" }

func expiry(t *time.Time) string {
	switch {
	case t == nil:
		return "never"
	case t.Before(time.Now()):
		return localTime(*t) + " (expired)"
	}
	return localTime(*t)
}

// usd prints nano-dollars exactly, with at least two decimals.
func usd(nano *int64) string {
	if nano == nil {
		return ""
	}
	const perUSD = 1_000_000_000
	n, sign := uint64(*nano), ""
	if *nano < 0 {
		n, sign = -n, "-"
	}
	whole, decimals := n/perUSD, fmt.Sprintf("%09d", n%perUSD)
	decimals = decimals[:2] + strings.TrimRight(decimals[2:], "0")
	return sign + "$" + strconv.FormatUint(whole, 10) + "." + decimals
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// listed joins names, or says what none of them means.
func listed(names []string, none string) string {
	if len(names) == 0 {
		return none
	}
	return strings.Join(names, ",")
}

// few keeps the first names of many, for tables: what is shown on its own, or as JSON, has them all.
func few(names []string) []string {
	const most = 3
	if len(names) <= most+1 {
		return names
	}
	return append(slices.Clone(names[:most]), fmt.Sprintf("… %d more", len(names)-most))
}

func count(n int64) string { return strconv.FormatInt(n, 10) }
