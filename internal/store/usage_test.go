// SPDX-License-Identifier: Apache-2.0

package store

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/usage"
)

// posted returns a store with rows, oldest first: keys 1 to 3 and channels 0 to 1 in turns, one row each quarter of an hour from
// noon, the last two at one instant.
func posted(t *testing.T) (*Store, []usage.Record) {
	t.Helper()
	s := migrated(t)
	var records []usage.Record
	for i := range 12 {
		r := record(t, noon().Add(time.Duration(min(i, 10))*15*time.Minute))
		r.Tenant, r.Key, r.Channel = policy.TenantID(1+i%2), policy.KeyID(1+i%3), policy.ChannelID(i%2)
		r.Model = fmt.Sprintf("m%d", i%4)
		if i%5 == 0 {
			r.Status, r.Estimated = usage.StatusTimeout, true
		}
		r.Tokens = usage.Tokens{Input: int64(i), Output: 1}
		copy(r.Exchange[6:], []byte{0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, byte(i)}) // orders the last two
		records = append(records, r)
	}
	mustPost(t, s, batch(uuid.New(), 0, records...))
	return s, records
}

// listed returns which of the records a filter lists.
func listed(t *testing.T, s *Store, records []usage.Record, f UsageFilter) []int {
	t.Helper()
	rows, err := s.Usage(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, row := range rows {
		for i, r := range records {
			if r.Exchange == row.Exchange {
				got = append(got, i)
			}
		}
	}
	return got
}

func TestUsageFilters(t *testing.T) {
	s, records := posted(t)
	absent := exchangeAt(t, noon())
	for name, tt := range map[string]struct {
		f    UsageFilter
		want []int
	}{
		"all, newest first": {UsageFilter{}, []int{11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0}},
		"limit":             {UsageFilter{Limit: 3}, []int{11, 10, 9}},
		"too large a limit": {UsageFilter{Limit: 1 << 40}, []int{11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0}},
		"key":               {UsageFilter{Key: 2}, []int{10, 7, 4, 1}},
		"tenant":            {UsageFilter{Tenant: 2, Limit: 2}, []int{11, 9}},
		"all of a tenant":   {UsageFilter{Tenant: 1}, []int{10, 8, 6, 4, 2, 0}},
		"tenant, before":    {UsageFilter{Tenant: 1, Before: records[8].Exchange}, []int{6, 4, 2, 0}},
		"tenant, since":     {UsageFilter{Tenant: 2, Since: records[6].Time, Until: records[9].Time}, []int{7}},
		"tenant's timeouts": {UsageFilter{Tenant: 1, Status: "timeout"}, []int{10, 0}},
		"no such tenant":    {UsageFilter{Tenant: 9}, nil},
		"channel":           {UsageFilter{Channel: 1, Limit: 2}, []int{11, 9}},
		"model":             {UsageFilter{Model: "m3"}, []int{11, 7, 3}},
		"status":            {UsageFilter{Status: "timeout"}, []int{10, 5, 0}},
		"several":           {UsageFilter{Key: 1, Tenant: 1, Status: "timeout"}, []int{0}},
		"since":             {UsageFilter{Since: records[9].Time}, []int{11, 10, 9}},
		"until":             {UsageFilter{Until: records[2].Time}, []int{1, 0}},
		"nothing":           {UsageFilter{Since: records[11].Time.Add(time.Second)}, nil},
		"exchange":          {UsageFilter{Exchange: records[4].Exchange}, []int{4}},
		"exchange of a key": {UsageFilter{Exchange: records[4].Exchange, Key: 1}, nil},
		"absent exchange":   {UsageFilter{Exchange: absent}, nil},
		"before":            {UsageFilter{Before: records[3].Exchange}, []int{2, 1, 0}},
		"before a twin":     {UsageFilter{Before: records[11].Exchange, Limit: 2}, []int{10, 9}},
		"before, of a key":  {UsageFilter{Before: records[10].Exchange, Key: 2}, []int{7, 4, 1}},
		"odd model":         {UsageFilter{Model: "m\x003"}, nil},
	} {
		if diff := cmp.Diff(listed(t, s, records, tt.f), tt.want); diff != "" {
			t.Errorf("%s (-got +want):\n%s", name, diff)
		}
	}
	_, err := s.Usage(t.Context(), UsageFilter{Limit: -1})
	wantError(t, err, ErrInvalid, "-1")
	_, err = s.Usage(t.Context(), UsageFilter{Before: uuid.New()})
	wantError(t, err, ErrNotFound, "exchange")
}

func TestUsagePagesToTheEnd(t *testing.T) {
	s, records := posted(t)
	var got []int
	f := UsageFilter{Limit: 5}
	for {
		page := listed(t, s, records, f)
		got = append(got, page...)
		if len(page) < f.Limit {
			break
		}
		f.Before = records[page[len(page)-1]].Exchange
	}
	if diff := cmp.Diff(got, []int{11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0}); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
}

func TestExchangeIsFoundWhoseTimeIsFromAnotherClock(t *testing.T) {
	s := migrated(t)
	r := record(t, noon())
	r.Time = r.Time.Add(3 * time.Second)
	mustPost(t, s, batch(uuid.New(), 0, r))
	for _, f := range []UsageFilter{{Exchange: r.Exchange}, {Exchange: r.Exchange, Tenant: 1}} {
		if rows, err := s.Usage(t.Context(), f); err != nil || len(rows) != 1 {
			t.Errorf("%d rows, %v", len(rows), err)
		}
	}
	if rows, err := s.Usage(t.Context(), UsageFilter{Before: r.Exchange}); err != nil || len(rows) != 0 {
		t.Errorf("before itself: %d rows, %v", len(rows), err)
	}
	r.Exchange = uuid.New() // carries no time at all
	mustPost(t, s, batch(uuid.New(), 0, r))
	if rows, err := s.Usage(t.Context(), UsageFilter{Exchange: r.Exchange}); err != nil || len(rows) != 1 {
		t.Errorf("version 4: %d rows, %v", len(rows), err)
	}
}

// TestSumUsageIsTheSameFromRowsAndSums: whatever is asked, the hourly sums and the rows must give one answer.
func TestSumUsageIsTheSameFromRowsAndSums(t *testing.T) {
	s, records := posted(t)
	h := records[0].Time
	ranges := []UsageFilter{
		{},
		{Since: h},
		{Since: h.Add(time.Hour)},
		{Until: h.Add(2 * time.Hour)},
		{Since: h, Until: h.Add(time.Hour)},
		{Since: h.Add(time.Hour), Until: h},
		{Since: h.Add(10 * time.Minute)},
		{Until: h.Add(100 * time.Minute)},
		{Since: h.Add(10 * time.Minute), Until: h.Add(100 * time.Minute)},
		{Since: h.Add(10 * time.Minute), Until: h.Add(40 * time.Minute)},
		{Since: h.Add(40 * time.Minute), Until: h.Add(70 * time.Minute)},
		{Since: h.Add(time.Hour), Until: h.Add(time.Hour)},
		{Since: h.Add(15 * time.Minute), Until: h.Add(15*time.Minute + 1000)},
		{Since: h.In(time.FixedZone("half", 1800)).Add(30 * time.Minute)},
	}
	others := []UsageFilter{{}, {Key: 2}, {Tenant: 1}, {Channel: 1}, {Model: "m1"}, {Key: 3, Model: "m2"}}
	for i, within := range ranges {
		for j, f := range others {
			f.Since, f.Until = within.Since, within.Until
			sums, err := s.SumUsage(t.Context(), f, []string{"key", "tenant"})
			if err != nil {
				t.Fatal(err)
			}
			want := make(map[string]UsageSum)
			for _, r := range records {
				if !f.Since.IsZero() && r.Time.Before(f.Since) || !f.Until.IsZero() && !r.Time.Before(f.Until) || f.Key != 0 && r.Key != f.Key ||
					f.Tenant != 0 && r.Tenant != f.Tenant || f.Channel != 0 && r.Channel != f.Channel || f.Model != "" && r.Model != f.Model {
					continue
				}
				group := map[string]string{"key": strconv.Itoa(int(r.Key)), "tenant": map[policy.TenantID]string{1: "default", 2: "2"}[r.Tenant]}
				w := want[fmt.Sprint(group)]
				w.Group = group
				w.Requests++
				w.Unpriced++
				w.Input += r.Input
				w.Output += r.Output
				w.BilledInput += r.BilledInput
				w.BilledOutput += r.BilledOutput
				if r.Estimated {
					w.Estimated++
				}
				want[fmt.Sprint(group)] = w
			}
			got := make(map[string]UsageSum)
			for _, u := range sums {
				got[fmt.Sprint(u.Group)] = u
			}
			if diff := cmp.Diff(got, want); diff != "" || len(sums) != len(want) {
				t.Errorf("range %d, filter %d (-got +want):\n%s", i, j, diff)
			}
		}
	}
}

func TestSumUsageGroups(t *testing.T) {
	s, records := posted(t)
	hour := func(n int) string { return records[0].Time.Add(time.Duration(n) * time.Hour).Format(time.RFC3339) }
	day := records[0].Time.Format(time.DateOnly)
	for by, want := range map[string][]string{
		"":           {":12"},
		"hour":       {hour(0) + ":4", hour(1) + ":4", hour(2) + ":4"},
		"day":        {day + ":12"},
		"month":      {day[:7] + ":12"},
		"channel":    {":6", "1:6"},
		"model":      {"m0:3", "m1:3", "m2:3", "m3:3"},
		"tenant,day": {"default " + day + ":6", "2 " + day + ":6"},
	} {
		var dimensions []string
		if by != "" {
			dimensions = strings.Split(by, ",")
		}
		for name, f := range map[string]UsageFilter{"sums": {}, "rows": {Since: records[0].Time.Add(-time.Minute), Until: records[11].Time.Add(time.Minute)}} {
			sums, err := s.SumUsage(t.Context(), f, dimensions)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, u := range sums {
				var group []string
				for _, d := range dimensions {
					group = append(group, u.Group[d])
				}
				got = append(got, strings.Join(group, " ")+":"+strconv.FormatInt(u.Requests, 10))
			}
			if diff := cmp.Diff(got, want); diff != "" {
				t.Errorf("by %q from %s (-got +want):\n%s", by, name, diff)
			}
		}
	}
	if sums, err := s.SumUsage(t.Context(), UsageFilter{Limit: 2}, []string{"model"}); err != nil || len(sums) != 2 {
		t.Errorf("limited: %d, %v", len(sums), err)
	}
	if sums, err := s.SumUsage(t.Context(), UsageFilter{Status: "timeout"}, nil); err != nil || len(sums) != 1 || sums[0].Requests != 3 || sums[0].Estimated != 3 {
		t.Errorf("by status: %+v, %v", sums, err)
	}
	if sums, err := s.SumUsage(t.Context(), UsageFilter{Exchange: records[7].Exchange}, nil); err != nil || sums[0].Requests != 1 || sums[0].Input != 7 {
		t.Errorf("of one exchange: %+v, %v", sums, err)
	}
	if sums, err := s.SumUsage(t.Context(), UsageFilter{Since: time.Now().AddDate(1, 0, 0)}, nil); err != nil || len(sums) != 1 || sums[0].Requests != 0 {
		t.Errorf("of nothing: %+v, %v", sums, err)
	}
	for _, by := range [][]string{{"colour"}, {"key", "key"}, {""}} {
		_, err := s.SumUsage(t.Context(), UsageFilter{}, by)
		wantError(t, err, ErrInvalid, "dimension")
	}
}

func TestSumUsageHasTheDaysOfAZone(t *testing.T) {
	s, records := posted(t)
	const place = "Pacific/Kiritimati" // 14 hours ahead of UTC, so that days differ wherever the hours of the rows are
	zone, err := time.LoadLocation(place)
	if err != nil {
		t.Fatal(err)
	}
	for by, layout := range map[string]string{"day": time.DateOnly, "month": "2006-01"} {
		want := make(map[string]int64)
		for _, r := range records {
			want[r.Time.In(zone).Format(layout)]++
		}
		sums, err := s.SumUsage(t.Context(), UsageFilter{Zone: place}, []string{by})
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[string]int64)
		for _, u := range sums {
			got[u.Group[by]] = u.Requests
		}
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("by %s (-got +want):\n%s", by, diff)
		}
	}
	for zone, word := range map[string]string{"Mars": "not known", "Asia/Kathmandu": "by the hour"} {
		_, err := s.SumUsage(t.Context(), UsageFilter{Zone: zone}, []string{"day"})
		wantError(t, err, ErrInvalid, word)
	}
}

func TestSumUsageTellsKeysOfOneNameApart(t *testing.T) {
	s := migrated(t)
	if _, err := s.CreateTenant(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	revoked, _ := mustKey(t, s, NewKey{Name: "ci"})
	if _, err := s.RevokeKey(t.Context(), "ci"); err != nil {
		t.Fatal(err)
	}
	keys := []Key{revoked}
	for _, n := range []NewKey{{Name: "ci"}, {Name: "ci", Tenant: "acme"}, {Name: "only"}} {
		k, _ := mustKey(t, s, n)
		keys = append(keys, k)
	}
	var records []usage.Record
	for _, k := range keys {
		r := record(t, noon())
		r.Tenant, r.Key = k.Tenant, k.ID
		records = append(records, r)
	}
	mustPost(t, s, batch(uuid.New(), 0, records...))
	sums, err := s.SumUsage(t.Context(), UsageFilter{}, []string{"key"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, u := range sums {
		got = append(got, u.Group["key"])
	}
	if diff := cmp.Diff(got, []string{fmt.Sprintf("default/ci#%d", revoked.ID), "default/ci", "acme/ci", "only"}); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
}
