// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"errors"
	"math"
	"strings"
	"testing"
	"testing/quick"
	"time"
)

func TestAmountsAreReadExactly(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]int64{
		"0": 0, "1": NanoUSD, "1.5": 1_500_000_000, "0.000000001": 1, ".25": 250_000_000, "007": 7 * NanoUSD, "1000000000": MaxAmount, "12.340000000": 12_340_000_000,
	} {
		if got, err := ParseUSD(s); err != nil || got != want {
			t.Errorf("ParseUSD(%q) = %d, %v, want %d", s, got, err, want)
		}
	}
}

func TestWhatIsNoAmountIsRefusedWithTheReason(t *testing.T) {
	t.Parallel()
	for s, says := range map[string]string{
		"-1": "negative", "-0": "negative", "NaN": "write digits", "Inf": "write digits", "": "write digits", ".": "write digits", "1.": "write digits", "1e3": "write digits",
		"+1": "write digits", "1_000": "write digits", "1,000": "write digits", "0x10": "write digits", "٣": "write digits",
		"0.0000000001": "nine digits", "1000000000.000000001": "at most", "1000000001": "at most", "9223372036854775808": "at most", strings.Repeat("9", 400): "at most",
	} {
		if n, err := ParseUSD(s); !errors.Is(err, ErrAmount) || !strings.Contains(err.Error(), says) {
			t.Errorf("ParseUSD(%q) = %d, %v, want an error that says %q", s, n, err, says)
		}
	}
}

func TestAmountsReadAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	if err := quick.Check(func(n uint64) bool {
		amount := int64(n % (MaxAmount + 1)) //nolint:gosec // it fits
		got, err := ParseUSD(FormatUSD(amount))
		return err == nil && got == amount
	}, nil); err != nil {
		t.Error(err)
	}
	for n, want := range map[int64]string{0: "0.00", 1: "0.000000001", -1_500_000_000: "-1.50", math.MinInt64: "-9223372036.854775808", math.MaxInt64: "9223372036.854775807"} {
		if got := FormatUSD(n); got != want {
			t.Errorf("FormatUSD(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestSumsDoNotWrap(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ got, want int64 }{
		{plus(math.MaxInt64, 1), math.MaxInt64},
		{plus(math.MinInt64, -1), math.MinInt64},
		{minus(math.MinInt64, math.MaxInt64), math.MinInt64},
		{minus(0, math.MinInt64), math.MaxInt64},
		{minus(-1, math.MinInt64), math.MaxInt64},
		{minus(math.MaxInt64, -1), math.MaxInt64},
		{plus(-5, 3), -2},
	} {
		if c.got != c.want {
			t.Errorf("got %d, want %d", c.got, c.want)
		}
	}
}

func FuzzParseUSD(f *testing.F) {
	for _, s := range []string{"1.5", "-1", "NaN", "1e9", "0.000000001"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseUSD(s)
		if err != nil {
			if n != 0 || !errors.Is(err, ErrAmount) {
				t.Fatalf("%q: %d, %v", s, n, err)
			}
			return
		}
		if again, err := ParseUSD(FormatUSD(n)); n < 0 || n > MaxAmount || err != nil || again != n {
			t.Fatalf("%q: %d reads as %d, %v when it is written", s, n, again, err)
		}
	})
}

func TestPeriodsBeginAtMidnightOfTheirZone(t *testing.T) {
	t.Parallel()
	berlin, err := ParseZone("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 3, 29, 12, 0, 0, 0, berlin) // a Sunday of 23 hours
	for p, want := range map[Period][2]string{
		Day:   {"2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"},
		Week:  {"2026-03-23T00:00:00+01:00", "2026-03-30T00:00:00+02:00"},
		Month: {"2026-03-01T00:00:00+01:00", "2026-04-01T00:00:00+02:00"},
	} {
		start, end := p.Around(at, berlin)
		if got := [2]string{start.Format(time.RFC3339), end.Format(time.RFC3339)}; got != want {
			t.Errorf("%s: %v, want %v", p, got, want)
		}
	}
	if start, end := Never.Around(at, berlin); !start.IsZero() || !end.IsZero() {
		t.Errorf("never: %v, %v", start, end)
	}
}

func TestPeriodsFollowOneAnotherWithoutAGap(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Apia", "Australia/Lord_Howe", "America/Sao_Paulo", "Africa/Cairo"} {
		zone, err := ParseZone(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []Period{Day, Week, Month} {
			at := time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC)
			_, end := p.Around(at, zone)
			for range 800 {
				start, next := p.Around(end, zone)
				if !start.Equal(end) || !next.After(start) {
					t.Fatalf("%s in %s: after %v comes %v to %v", p, name, end, start, next)
				}
				if s, e := p.Around(next.Add(-time.Second), zone); !s.Equal(start) || !e.Equal(next) {
					t.Fatalf("%s in %s: the last second of %v to %v is in %v to %v", p, name, start, next, s, e)
				}
				end = next
			}
		}
	}
}

func TestZonesThatDifferBetweenMachinesAreRefused(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Local", "Mars/Olympus", "../etc/passwd", strings.Repeat("x", 300)} {
		if _, err := ParseZone(name); err == nil {
			t.Errorf("the zone %q is taken", name)
		}
	}
	if _, err := ParsePeriod("hour"); err == nil || !strings.Contains(err.Error(), "day, week, month, never") {
		t.Errorf("period: %v", err)
	}
}
