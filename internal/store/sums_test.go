// SPDX-License-Identifier: Apache-2.0

package store

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/usage"
)

// mixed returns rows of a few keys, models and channels over three hours around the epoch, in no order.
func mixed(n int) []usage.Record {
	random := rand.New(rand.NewPCG(3, 4))
	rows := make([]usage.Record, n)
	for i := range rows {
		key := 1 + random.IntN(5)
		rows[i] = usage.Record{
			Time: time.Unix(0, 0).Add(time.Duration(random.Int64N(int64(3*time.Hour))) - 2*time.Hour), Tenant: policy.TenantID(key % 2), Key: policy.KeyID(key),
			Channel: policy.ChannelID(random.IntN(2)), Model: "m" + strconv.Itoa(random.IntN(3)), Estimated: i%3 == 0,
			Tokens: usage.Tokens{Input: int64(i), CachedInput: 1, Output: int64(2 * i), Reasoning: 2}, Billed: usage.Billed{BilledInput: int64(i) / 2, BilledOutput: int64(i)}, RequestBytes: 10, ResponseBytes: 20, Seq: int64(i),
			Cost: usage.Cost{CostNanoUSD: int64(7 * i), PriceVersion: int64(i % 2)},
		}
	}
	return rows
}

// each returns where records are.
func each(records []usage.Record) []*usage.Record {
	rows := make([]*usage.Record, len(records))
	for i := range records {
		rows[i] = &records[i]
	}
	return rows
}

// TestSumsDoNotDependOnTheOrderOfRows: writers that touch the same sums must lock them in one order.
func TestSumsDoNotDependOnTheOrderOfRows(t *testing.T) {
	rows := mixed(500)
	sums := addUp(arrange(each(rows)), nil)
	if !slices.IsSortedFunc(sums, func(a, b contribution) int { return a.compare(&b.hourKey) }) {
		t.Error("the sums are in no order")
	}
	want := make(map[hourKey]total) // by another way
	for _, r := range rows {
		k := hourKey{r.Tenant, r.Key, hourOf(r.Time), r.Channel, r.Model}
		if start := k.time(); r.Time.Before(start) || r.Time.Sub(start) >= time.Hour || start.Minute() != 0 {
			t.Fatalf("%v is in the hour of %v", r.Time, start)
		}
		sum := want[k]
		sum.add(&r)
		want[k] = sum
	}
	got := make(map[hourKey]total, len(sums))
	for _, s := range sums {
		got[s.hourKey] = s.total
	}
	unexported := cmp.AllowUnexported(hourKey{}, total{}, contribution{})
	if diff := cmp.Diff(got, want, unexported); diff != "" || len(sums) != len(want) {
		t.Errorf("%d sums (-got +want):\n%s", len(sums), diff)
	}
	slices.Reverse(rows)
	if diff := cmp.Diff(addUp(arrange(each(rows)), nil), sums, unexported); diff != "" {
		t.Errorf("backwards (-got +want):\n%s", diff)
	}
}

// TestWhatIsTakenBackLeavesTheRest: sums of rows, less some that were added before, are the sums of the others.
func TestWhatIsTakenBackLeavesTheRest(t *testing.T) {
	rows := mixed(200)
	taken := addUp(arrange(each(rows[:50])), nil)
	taken = append(taken, taken[0]) // a second row of the same sum
	got := make(map[hourKey]total)
	for _, s := range addUp(arrange(each(rows)), taken) {
		if _, twice := got[s.hourKey]; twice {
			t.Errorf("%+v twice", s.hourKey)
		}
		if s.total != (total{}) {
			got[s.hourKey] = s.total
		}
	}
	want := make(map[hourKey]total)
	for _, s := range addUp(arrange(each(rows[50:])), nil) {
		want[s.hourKey] = s.total
	}
	first := want[taken[0].hourKey]
	first.plus(&taken[0].total, -1)
	want[taken[0].hourKey] = first
	if diff := cmp.Diff(got, want, cmp.AllowUnexported(hourKey{}, total{}), cmp.Comparer(func(a, b total) bool { return a == b })); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
}
