// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"testing"
	"time"
)

// coolsFor returns how long from now a channel cools, to the millisecond.
func coolsFor(c *Cooldowns, id ChannelID, now time.Time) time.Duration {
	low, high := time.Duration(0), 24*time.Hour
	for high-low > time.Millisecond/2 {
		if mid := (low + high) / 2; c.Cooling(id, now.Add(mid)) {
			low = mid
		} else {
			high = mid
		}
	}
	return high.Round(time.Millisecond)
}

func TestCooldownsLastAsLongAsTheFailureSays(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		failure Failure
		want    time.Duration
	}{
		"throttled":             {Failure{Status: 429}, 5 * time.Second},
		"throttled, seconds":    {Failure{Status: 429, RetryAfter: 17 * time.Second}, 17 * time.Second},
		"throttled, moments":    {Failure{Status: 429, RetryAfter: time.Millisecond}, time.Second},
		"throttled, for ever":   {Failure{Status: 429, RetryAfter: 100 * time.Hour}, 10 * time.Minute},
		"credential refused":    {Failure{Status: 401}, time.Minute},
		"forbidden":             {Failure{Status: 403}, time.Minute},
		"broken":                {Failure{Status: 500}, 2 * time.Second},
		"overloaded":            {Failure{Status: 529}, 2 * time.Second},
		"no connection":         {Failure{Status: 503, Connect: true}, 2 * time.Second},
		"no answer":             {Failure{}, 2 * time.Second},
		"the client's mistake":  {Failure{Status: 400}, 0},
		"model not there":       {Failure{Status: 404}, 0},
		"retry-after elsewhere": {Failure{Status: 413, RetryAfter: 10 * time.Second}, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var c Cooldowns
			tt.failure.Channel = 7
			c.Failed(tt.failure, noon)
			if got := coolsFor(&c, 7, noon); got.Round(10*time.Millisecond) != tt.want {
				t.Errorf("cools for %v, want %v", got, tt.want)
			}
			if c.Cooling(8, noon) {
				t.Error("another channel cools")
			}
		})
	}
}

func TestCooldownsGrowWithFailuresInARow(t *testing.T) {
	t.Parallel()
	var c Cooldowns
	now := noon
	for i, want := range []time.Duration{2, 4, 8, 16, 32, 60, 60} {
		want *= time.Second //nolint:durationcheck // the table is in seconds
		for range 100 {     // the failures of requests that were on their way together count once
			c.Failed(Failure{Channel: 1, Status: 502}, now)
		}
		if got := coolsFor(&c, 1, now); got != want {
			t.Fatalf("failure %d cools for %v, want %v", i+1, got, want)
		}
		now = now.Add(want)
		if c.Cooling(1, now) {
			t.Fatalf("failure %d still cools after %v", i+1, want)
		}
	}
	now = now.Add(time.Minute) // well for as long as it last cooled
	c.Failed(Failure{Channel: 1, Status: 502}, now)
	if got := coolsFor(&c, 1, now); got != 2*time.Second {
		t.Errorf("cools for %v after a good time, want 2s", got)
	}
}

func TestCooldownsAreNeverShortened(t *testing.T) {
	t.Parallel()
	var c Cooldowns
	c.Failed(Failure{Channel: 1, Status: 401}, noon)
	c.Failed(Failure{Channel: 1, Status: 429, RetryAfter: time.Second}, noon)
	c.Failed(Failure{Channel: 1, Status: 500}, noon)
	if got := coolsFor(&c, 1, noon); got != time.Minute {
		t.Errorf("cools for %v, want a minute", got)
	}
	c.Failed(Failure{Channel: 1, Status: 429, RetryAfter: 2 * time.Minute}, noon)
	if got := coolsFor(&c, 1, noon); got != 2*time.Minute {
		t.Errorf("cools for %v, want two minutes", got)
	}
}

func TestCooldownsForgetChannels(t *testing.T) {
	t.Parallel()
	var c Cooldowns
	for i := range 100_000 {
		c.Failed(Failure{Channel: ChannelID(i + 1), Status: 500}, noon.Add(time.Duration(i)*time.Second))
	}
	if n := len(c.channels); n > 2000 {
		t.Errorf("%d channels are remembered", n)
	}
}

func TestEngineTriesCoolingChannelsLast(t *testing.T) {
	t.Parallel()
	var c Cooldowns
	e := newEngine(t, func(o *Options) { o.Health = &c })
	c.Failed(Failure{Channel: 11, Status: 429}, noon)
	a, denial := admit(t, e, post("/v1/chat/completions"), `{"model":"gpt-4o"}`)
	if denial != nil || a.Choices[0].Channel != 10 || a.Choices[1].Channel != 11 {
		t.Errorf("choices %v, %v, want 10 before 11", a.Choices, denial)
	}
}
