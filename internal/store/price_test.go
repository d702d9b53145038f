// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/internal/prices"
	"github.com/weir-proxy/weir/policy"
)

const dollars = 1_000_000_000 // nano-dollars for a million tokens

func rates(input, output int64) prices.Row {
	return prices.Row{Quote: prices.Quote{Input: new(input * dollars), Output: new(output * dollars)}}
}

// inForce returns the prices that a processor would go by.
func inForce(t *testing.T, s *Store) prices.Version {
	t.Helper()
	c, err := s.Configuration(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c.Prices
}

func mustRegister(t *testing.T, s *Store, list string) {
	t.Helper()
	if err := s.RegisterPrices(t.Context(), list); err != nil {
		t.Fatal(err)
	}
}

func mustSetPrice(t *testing.T, s *Store, model string, rows ...prices.Row) []prices.Row {
	t.Helper()
	set, err := s.SetPrice(t.Context(), model, rows)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// priceList is a list of prices of a date.
func priceList(name, date string) string {
	return "# version: " + name + "\n# date: " + date + "\n# source: a test\nm\t\t0\t1000\t100\t5000000000\t\t\t7000000000\t\t\t\t\t\n"
}

func TestEachChangeOfPricesMakesAVersionThatStays(t *testing.T) {
	s := migrated(t)
	if v := inForce(t, s); v.ID != 0 {
		t.Fatalf("version %d before there is any list", v.ID)
	}
	mustSetPrice(t, s, "early", rates(1, 2)) // before a processor was there
	began := time.Now().Add(-time.Minute).UnixMilli()
	mustRegister(t, s, prices.EmbeddedList())
	first := inForce(t, s)
	if first.ID < began || first.List != prices.HashList(prices.EmbeddedList()) || len(first.Own) != 1 {
		t.Errorf("first version = %+v", first)
	}
	mustRegister(t, s, prices.EmbeddedList()) // each start of each processor
	if again := inForce(t, s); again.ID != first.ID {
		t.Errorf("a list that was known made version %d", again.ID)
	}
	revisionBefore, err := revision(t.Context(), s.pool)
	if err != nil {
		t.Fatal(err)
	}
	flex := rates(1, 1)
	flex.Service = "flex"
	standard := rates(3, 6)
	standard.CachedInput, standard.MaxOutput = new(int64(0)), 4096
	set := mustSetPrice(t, s, "m", flex, standard)
	second := inForce(t, s)
	if second.ID <= first.ID || len(second.Own) != 3 {
		t.Errorf("second version = %+v", second)
	}
	if diff := cmp.Diff(second.Own[1:], set); diff != "" {
		t.Errorf("the version has (-), SetPrice returned (+):\n%s", diff)
	}
	standard.Model, flex.Model = "m", "m"
	if diff := cmp.Diff(set, []prices.Row{standard, flex}); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
	if now, err := revision(t.Context(), s.pool); err != nil || now <= revisionBefore {
		t.Errorf("revision %d after %d, %v: nobody would hear of the change", now, revisionBefore, err)
	}
	mustSetPrice(t, s, "m", standard, flex)
	if again := inForce(t, s); again.ID != second.ID {
		t.Errorf("the same prices made version %d of %d", again.ID, second.ID)
	}
	mustSetPrice(t, s, "m", rates(4, 8))
	if third := inForce(t, s); third.ID <= second.ID || len(third.Own) != 2 || *third.Own[1].Input != 4*dollars {
		t.Errorf("third version = %+v", third)
	}
	if err := s.DeletePrice(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if last := inForce(t, s); len(last.Own) != 1 {
		t.Errorf("after the price was deleted: %+v", last.Own)
	}
	if err := s.DeletePrice(t.Context(), "m"); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleting it again: %v", err)
	}
	old, err := s.PriceVersion(t.Context(), second.ID)
	if diff := cmp.Diff(old, second); diff != "" || err != nil {
		t.Errorf("%v; a version of the past (-got +want):\n%s", err, diff)
	}
	if n := query[int64](t, s, `select count(*) from weir.price_version`); n != 4 {
		t.Errorf("%d versions", n)
	}
}

func TestTheListOfTheLatestDateIsInForce(t *testing.T) {
	s := migrated(t)
	early, late, later := priceList("early", "2026-01-01"), priceList("late", "2026-06-01"), priceList("later", "2026-06-01")
	for _, step := range []struct{ register, want string }{
		{late, late}, {early, late}, {later, later}, {late, later}, // a release of before, one of the same day, and back
	} {
		mustRegister(t, s, step.register)
		if got := inForce(t, s).List; got != prices.HashList(step.want) {
			t.Errorf("after %.40q the list in force is %x", step.register, got[:4])
		}
	}
	for _, l := range []string{early, late, later} {
		if got, err := s.PriceList(t.Context(), prices.HashList(l)); got != l || err != nil {
			t.Errorf("list = %q, %v", got, err)
		}
	}
	if _, err := s.PriceList(t.Context(), prices.Hash{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("a list that is not there: %v", err)
	}
	if _, err := s.PriceVersion(t.Context(), 1); !errors.Is(err, ErrNotFound) || !errors.Is(err, prices.ErrUnknownVersion) {
		t.Errorf("a version that is not there: %v", err)
	}
	wantError(t, s.RegisterPrices(t.Context(), "gibberish"), ErrInvalid, "list of prices")
}

// TestVersionsGoOnAfterTheDatabaseWasSetBack: rows that it forgot and that are shipped again must not find other prices under their number.
func TestVersionsGoOnAfterTheDatabaseWasSetBack(t *testing.T) {
	s := migrated(t)
	mustRegister(t, s, priceList("a", "2026-01-01"))
	mustSetPrice(t, s, "m", rates(1, 1))
	forgotten := inForce(t, s).ID
	exec(t, s, `delete from weir.price_version where id = $1`, forgotten)
	exec(t, s, `select pg_sleep(0.002)`) // a set-back takes longer than a tick of the clock
	mustSetPrice(t, s, "m", rates(2, 2))
	if got := inForce(t, s).ID; got <= forgotten {
		t.Errorf("version %d, and %d was forgotten", got, forgotten)
	}
}

func TestPricesAreCheckedBeforeTheyAreTaken(t *testing.T) {
	s := migrated(t)
	with := func(change func(*prices.Row)) []prices.Row {
		r := rates(1, 1)
		change(&r)
		return []prices.Row{r}
	}
	tier := rates(1, 1)
	tier.Above = 1000
	for says, tt := range map[string]struct {
		model string
		rows  []prices.Row
	}{
		"1 to 256 bytes":          {"", []prices.Row{rates(1, 1)}},
		"unprintable":             {"a\nb", []prices.Row{rates(1, 1)}},
		"no rates":                {"m", nil},
		"must be given":           {"m", with(func(r *prices.Row) { r.Output = nil })},
		"from 0 to":               {"m", with(func(r *prices.Row) { r.Input = new(int64(-1)) })},
		"1000000000000001 nano":   {"m", with(func(r *prices.Row) { r.Reasoning = new(int64(prices.MaxRate + 1)) })},
		"is negative":             {"m", with(func(r *prices.Row) { r.MaxOutput = -1 })},
		"two rates":               {"m", []prices.Row{rates(1, 1), rates(2, 2)}},
		"unknown service":         {"m", []prices.Row{rates(1, 1), with(func(r *prices.Row) { r.Service = "scale" })[0]}},
		"begin with its standard": {"m", []prices.Row{tier}},
	} {
		_, err := s.SetPrice(t.Context(), tt.model, tt.rows)
		wantError(t, err, ErrInvalid, says)
	}
	// What comes in by hand meets the same limits.
	for _, sql := range []string{
		`insert into weir.price (model, input, output) values ('m', -1, 0)`,
		`insert into weir.price (model, input, output) values ('m', 0, 1000000000000001)`,
		`insert into weir.price (model, input) values ('m', 1)`,
		`insert into weir.price (model, service, input, output) values ('m', 'scale', 1, 1)`,
	} {
		if _, err := s.pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s: taken", sql)
		}
	}
	if own, err := s.Prices(t.Context()); len(own) != 0 || err != nil {
		t.Errorf("prices = %+v, %v", own, err)
	}
}

func TestPricesSetAtOnceAreAllInTheLastVersion(t *testing.T) {
	s := migrated(t)
	mustRegister(t, s, priceList("a", "2026-01-01"))
	var wg sync.WaitGroup
	const setters = 8
	for i := range setters {
		wg.Go(func() {
			if _, err := s.SetPrice(t.Context(), "m"+strings.Repeat("x", i), []prices.Row{rates(1, 2)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if v := inForce(t, s); len(v.Own) != setters {
		t.Errorf("the last version has %d prices", len(v.Own))
	}
}

func TestWatchersHearOfPrices(t *testing.T) {
	s := migrated(t)
	mustRegister(t, s, priceList("a", "2026-01-01"))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	heard := make(chan prices.Version, 16)
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = s.Watch(ctx, Following{Keys: &policy.Keyring{}, Apply: func(c Configuration) error { heard <- c.Prices; return nil }}) // ends with ctx
	})
	defer wg.Wait()
	defer cancel()
	first := <-heard
	mustSetPrice(t, s, "m", rates(1, 2))
	select {
	case v := <-heard:
		if v.ID <= first.ID || len(v.Own) != 1 {
			t.Errorf("heard of %+v after %+v", v, first)
		}
	case <-ctx.Done():
		t.Error("nobody heard of the change")
	}
}
