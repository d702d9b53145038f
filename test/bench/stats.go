// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"math"
	"slices"
)

// quantile returns the smallest of the values that q of all are not above, as in 0.99. It sorts them. Without values it is zero.
func quantile[T cmp.Ordered](values []T, q float64) T {
	var zero T
	if len(values) == 0 {
		return zero
	}
	slices.Sort(values)
	return values[max(0, min(len(values), int(math.Ceil(q*float64(len(values)))))-1)]
}

// spreadOf is the median, the least and the most of a figure over the rounds.
type spreadOf struct{ median, least, most float64 }

// over sums up the rounds. Rounds that have no such figure are NaN, and left out; without any, all is NaN.
func over(rounds []float64) spreadOf {
	known := slices.DeleteFunc(slices.Clone(rounds), math.IsNaN)
	if len(known) == 0 {
		return spreadOf{math.NaN(), math.NaN(), math.NaN()}
	}
	slices.Sort(known)
	n := len(known)
	return spreadOf{median: (known[(n-1)/2] + known[n/2]) / 2, least: known[0], most: known[n-1]}
}
