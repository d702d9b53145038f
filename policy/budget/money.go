// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/weir-proxy/weir/policy"
)

// MaxAmount is the largest budget, in nano-dollars: a thousand million dollars. Sums of a few such amounts fit into an int64; sums of many are saturated.
const MaxAmount = policy.MaxReserved

// NanoUSD is how many nano-dollars a dollar has.
const NanoUSD = 1_000_000_000

// ErrAmount is wrapped by the errors of [ParseUSD].
var ErrAmount = errors.New("not an amount of dollars")

// ParseUSD reads an amount of dollars, such as 12.50, exactly: up to nine digits behind the point, no sign, no exponent.
func ParseUSD(s string) (int64, error) {
	fail := func(why string) (int64, error) {
		return 0, fmt.Errorf("%q is %w: %s", shorten(s), ErrAmount, why)
	}
	whole, part, _ := strings.Cut(s, ".")
	switch {
	case strings.HasPrefix(s, "-"):
		return fail("it is negative")
	case whole == "" && part == "" || !digits(whole) || !digits(part) || strings.HasSuffix(s, "."):
		return fail("write digits, and a point if need be, as in 12.50")
	case len(part) > 9:
		return fail("a thousand-millionth of a dollar is the least; that is nine digits behind the point")
	}
	whole = strings.TrimLeft(whole, "0")
	if len(whole) > 10 {
		return fail("at most " + FormatUSD(MaxAmount) + " dollars")
	}
	n, err := strconv.ParseInt(whole+part+strings.Repeat("0", 9-len(part)), 10, 64)
	if err != nil || n > MaxAmount {
		return fail("at most " + FormatUSD(MaxAmount) + " dollars")
	}
	return n, nil
}

func shorten(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// FormatUSD writes nano-dollars as dollars with at least two digits behind the point: 1.00, 0.000025.
func FormatUSD(nano int64) string {
	sign, u := "", uint64(nano) //nolint:gosec // the sign is taken care of
	if nano < 0 {
		sign, u = "-", -u
	}
	part := strings.TrimRight(fmt.Sprintf("%09d", u%NanoUSD), "0")
	for len(part) < 2 {
		part += "0"
	}
	return sign + strconv.FormatUint(u/NanoUSD, 10) + "." + part
}

// Add adds amounts without wrapping: a sum that does not fit is the largest, or the least, that does.
func Add(a, b int64) int64 { return plus(a, b) }

// plus adds without wrapping: a sum that does not fit is the largest, or the least, that does.
func plus(a, b int64) int64 {
	switch s := a + b; {
	case a > 0 && b > 0 && s < 0:
		return math.MaxInt64
	case a < 0 && b < 0 && s >= 0:
		return math.MinInt64
	default:
		return s
	}
}

// minus subtracts without wrapping.
func minus(a, b int64) int64 {
	if b == math.MinInt64 {
		return plus(plus(a, math.MaxInt64), 1)
	}
	return plus(a, -b)
}

// bounded returns a cost as it can be reckoned with.
func bounded(cost int64) int64 { return min(max(cost, 0), MaxAmount) }
