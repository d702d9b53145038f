// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/internal/admin"
)

// prices uses all of the API for prices.
func prices(t *testing.T, c *admin.Client) {
	t.Helper()
	ctx := t.Context()
	one := func(p admin.Price, err error) admin.Price {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	many := func(p []admin.Price, err error) []admin.Price {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	listed := one(c.Price(ctx, "gpt-4o", 0))
	if listed.From == "own" || listed.Version == 0 || *listed.Rates[0].Input <= 0 || listed.MaxOutput == 0 {
		t.Errorf("of the list: %+v", listed)
	}
	all := many(c.Prices(ctx, "", false))
	if len(all) < 3000 {
		t.Errorf("%d prices in all", len(all))
	}
	if some := many(c.Prices(ctx, "azure/gpt-4o", false)); len(some) == 0 || len(some) > 100 {
		t.Errorf("%d prices with a text", len(some))
	}
	if own := many(c.Prices(ctx, "", true)); len(own) != 0 {
		t.Errorf("own prices: %+v", own)
	}
	set := one(c.SetPrice(ctx, "mine/llama*", admin.NewPrice{MaxOutput: 4096, Rates: []admin.PriceRates{
		{Service: "flex", Input: new(int64(1)), Output: new(int64(2))},
		{Input: new(int64(10)), Output: new(int64(20)), CachedInput: new(int64(0))},
	}}))
	ten, twenty, none, low, high := int64(10), int64(20), int64(0), int64(1), int64(2)
	want := admin.Price{Model: "mine/llama*", From: "own", Version: set.Version, MaxOutput: 4096, Rates: []admin.PriceRates{
		{
			Input: &ten, CachedInput: &none, CacheWrite: &ten, AudioInput: &ten, ImageInput: &ten,
			Output: &twenty, Reasoning: &twenty, AudioOutput: &twenty, ImageOutput: &twenty,
		},
		{
			Service: "flex", Input: &low, CachedInput: &low, CacheWrite: &low, AudioInput: &low, ImageInput: &low,
			Output: &high, Reasoning: &high, AudioOutput: &high, ImageOutput: &high,
		},
	}}
	if diff := cmp.Diff(set, want); diff != "" || set.Version <= listed.Version {
		t.Errorf("version %d after %d (-got +want):\n%s", set.Version, listed.Version, diff)
	}
	if by := one(c.Price(ctx, "mine/llama-3", 0)); by.Model != "mine/llama*" {
		t.Errorf("a model of the pattern: %+v", by)
	}
	if _, err := c.Price(ctx, "mine/llama-3", listed.Version); !isProblem(err, http.StatusNotFound, "mine/llama-3") {
		t.Errorf("before it was set: %v", err)
	}
	if own := many(c.Prices(ctx, "", true)); len(own) != 1 || !cmp.Equal(own[0], want) {
		t.Errorf("own prices: %+v", own)
	}
	if err := c.DeletePrice(ctx, "mine/llama*"); err != nil {
		t.Error(err)
	}
	if err := c.DeletePrice(ctx, "mine/llama*"); !isProblem(err, http.StatusNotFound, "mine/llama*") {
		t.Errorf("deleted again: %v", err)
	}
	if old := one(c.Price(ctx, "mine/llama-3", set.Version)); !cmp.Equal(old, want) {
		t.Errorf("by the version of before (-got +want):\n%s", cmp.Diff(old, want))
	}
	if _, err := c.SetPrice(ctx, "m", admin.NewPrice{Rates: []admin.PriceRates{{Input: new(int64(-1)), Output: new(int64(1))}}}); err == nil {
		t.Error("a negative rate was taken")
	}
}
