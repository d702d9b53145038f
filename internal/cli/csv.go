// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/internal/admin"
)

// csvFlag has a list printed for spreadsheets and invoices.
func csvFlag(c *cobra.Command, on *bool) {
	c.Flags().BoolVar(on, "csv", false, "print CSV (RFC 4180), with names and units as the REST API has them and costs in USD")
}

// printCSV prints a header, also over nothing, and a line for each item.
func printCSV[T any](c *cobra.Command, items []T, header []string, row func(T) []string) error {
	if asJSON(c) {
		return wrongUsage("give --csv or --json, not both")
	}
	w := csv.NewWriter(c.OutOrStdout())
	lines := [][]string{header}
	for _, it := range items {
		cells := row(it)
		for i := range cells {
			cells[i] = unformulated(cells[i])
		}
		lines = append(lines, cells)
	}
	if err := w.WriteAll(lines); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// unformulated keeps a text that somebody else chose, such as a model's name, from being a formula where the file is opened.
func unformulated(cell string) string {
	if _, err := strconv.ParseFloat(cell, 64); err != nil && cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
		return "'" + cell
	}
	return cell
}

// csvUSD is what usd is without its sign of dollars; empty stands for unknown.
func csvUSD(nano *int64) string { return strings.Replace(usd(nano), "$", "", 1) }

func optional(n *int64) string {
	if n == nil {
		return ""
	}
	return count(*n)
}

// usageCSVHeader returns the columns of usageCSV.
func usageCSVHeader() []string {
	return strings.Fields(`exchange_id ts tenant key channel model upstream_model operation status http_status attempts stream estimated
		input_tokens cached_input_tokens output_tokens reasoning_tokens billed_input_tokens billed_output_tokens cost_usd price_version
		first_byte_ms duration_ms`)
}

func usageCSV(u admin.UsageRow) []string {
	return []string{
		u.ExchangeID.String(), u.TS.UTC().Format(time.RFC3339Nano), nameOr(u.Tenant, u.TenantID), nameOr(u.Key, u.KeyID), channelOf(u), u.Model, u.UpstreamModel, u.Operation,
		u.Status, strconv.Itoa(u.HTTPStatus), strconv.Itoa(u.Attempts), strconv.FormatBool(u.Stream), strconv.FormatBool(u.Estimated),
		count(u.InputTokens), count(u.CachedInputTokens), count(u.OutputTokens), count(u.ReasoningTokens), count(u.BilledInput), count(u.BilledOutput),
		csvUSD(u.CostNanoUSD), optional(u.PriceVersion), optional(u.FirstByteMS), count(u.DurationMS),
	}
}

// sumCSVHeader returns the columns of sumCSV.
func sumCSVHeader(dimensions []string) []string {
	return append(append([]string{}, dimensions...), strings.Fields(`requests estimated input_tokens cached_input_tokens output_tokens reasoning_tokens
		billed_input_tokens billed_output_tokens cost_usd unpriced`)...)
}

func sumCSV(s admin.UsageSum, dimensions []string) []string {
	cells := []string{}
	for _, d := range dimensions {
		cells = append(cells, s.Group[d])
	}
	return append(cells, count(s.Requests), count(s.Estimated), count(s.InputTokens), count(s.CachedInputTokens), count(s.OutputTokens), count(s.ReasoningTokens),
		count(s.BilledInput), count(s.BilledOutput), csvUSD(s.CostNanoUSD), count(s.Unpriced))
}
