// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
)

// extreme returns a number as nobody should use it.
func extreme(random *rand.Rand) int64 {
	edges := [...]int64{0, 1, MaxAmount, math.MaxInt64, math.MinInt64, math.MaxInt64 / 2, math.MaxInt32, 1 << 53}
	n := edges[random.IntN(len(edges))]
	switch random.IntN(4) {
	case 0:
		return n
	case 1:
		return plus(n, random.Int64N(3)-1)
	case 2:
		return minus(0, n)
	}
	return random.Int64N(MaxAmount)
}

func TestAmountsAreAddedWithoutWrapping(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	cut := func(n *big.Int) int64 {
		switch {
		case n.IsInt64():
			return n.Int64()
		case n.Sign() > 0:
			return math.MaxInt64
		}
		return math.MinInt64
	}
	for range 200_000 {
		a, b := extreme(random), extreme(random)
		if got, want := Add(a, b), cut(new(big.Int).Add(big.NewInt(a), big.NewInt(b))); got != want {
			t.Fatalf("%d + %d = %d, want %d", a, b, got, want)
		}
		if got, want := minus(a, b), cut(new(big.Int).Sub(big.NewInt(a), big.NewInt(b))); got != want {
			t.Fatalf("%d - %d = %d, want %d", a, b, got, want)
		}
	}
}

// Whatever requests are said to cost, and whatever they do cost, no sum wraps: nothing that is held becomes negative, nothing is admitted that the credit has no room for, and
// the bank never has more out than there is.
func TestNoAmountMakesABudgetWrap(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 5))
		amount := min(max(extreme(random), 0), MaxAmount)
		d := newDesk(t, amount, Never)
		d.join()
		var open []uuid.UUID
		for range 200 {
			switch random.IntN(6) {
			case 0, 1:
				cost := extreme(random)
				m, denial := d.reserve(cost)
				if denial != nil {
					if denial.RetryAfter < 0 || denial.RetryAfter > 400*24*time.Hour {
						t.Fatalf("seed %d: retry after %s", seed, denial.RetryAfter)
					}
					continue
				}
				if r := m.Charged().Reserved; r < 0 || r > MaxAmount || r < min(max(cost, 0), MaxAmount) {
					t.Fatalf("seed %d: %d is reserved for a request that costs %d", seed, r, cost)
				}
				open = append(open, m.Exchange)
			case 2:
				if len(open) > 0 {
					d.finish(random, open[0])
					open = open[1:]
				}
			case 3: // paid in, or taken back
				d.bank.credit[1] = min(max(plus(d.bank.credit[1], extreme(random)), 0), MaxAmount)
			default:
				d.sync(time.Second)
			}
			s := d.book.Stats()
			if s.Granted < 0 || s.Used < 0 || s.Reserved < 0 {
				t.Fatalf("seed %d: %+v", seed, s)
			}
			for key, l := range d.bank.leases {
				if l.granted < 0 || l.granted > MaxAmount {
					t.Fatalf("seed %d: the lease of %+v has %d", seed, key, l.granted)
				}
			}
		}
	}
}

// finish ends an exchange with a cost that makes no sense. Its row is in the bank before that is told.
func (d *desk) finish(random *rand.Rand, exchange uuid.UUID) {
	switch random.IntN(3) {
	case 0:
		d.book.Cancel(exchange)
	case 1:
		d.book.SettleAny(exchange)
	default:
		d.book.Settle(exchange, extreme(random))
	}
}
