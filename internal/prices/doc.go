// SPDX-License-Identifier: Apache-2.0

// Package prices says what tokens cost.
//
// Money is an integer number of nano-dollars, 1e-9 USD, and a rate is nano-dollars for a million tokens: $2.50 for a million is 2_500_000_000.
// There is no floating point anywhere, and nothing wraps: a cost beyond the highest number is the highest number.
//
// The embedded table, prices.tsv, is made by internal/prices/gen from the list that LiteLLM publishes, at the version and of the SHA-256 in its
// first lines. It is a list of what providers ask publicly, by the name of the model or, where another firm serves it, with the firm before it, as in azure/gpt-4o.
// An operator's own prices go on top of it ([Table.With]). A model that is in neither has no price, and that is an error: nothing is free because it is not known.
//
// # Rules
//
//   - Cached and written input, audio and images are parts of the input, reasoning and audio parts of the output. Each part is charged at its own rate,
//     the rest at that of the whole. A rate that the list lacks is that of the whole.
//   - A request whose input is above the limit of a tier is charged at the rates of that tier as a whole. A rate that the tier lacks is that of the lowest tier.
//   - Flex and priority processing have rates of their own where the list has them; a rate that is missing there is that of the whole in the same row.
//   - A cost is rounded up to a whole nano-dollar.
package prices

//go:generate go run ./gen
