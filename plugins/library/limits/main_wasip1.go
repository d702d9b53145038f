// SPDX-License-Identifier: Apache-2.0

// Limits bounds requests: their size, the length of the answer that they may ask for, and the hours in which they may come.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	weir "github.com/weir-proxy/weir/plugins/sdk/go"
)

var config struct {
	MaxPromptBytes  int64  `json:"max_prompt_bytes"`
	MaxInputTokens  int64  `json:"max_input_tokens"`
	MaxMessages     int64  `json:"max_messages"`
	MaxOutputTokens int64  `json:"max_output_tokens"`
	MaxChoices      int64  `json:"max_choices"`
	Hours           *hours `json:"hours"`
}

type hours struct {
	From   string   `json:"from"`
	To     string   `json:"to"`
	Days   []string `json:"days"`
	Offset int      `json:"utc_offset_minutes"`

	from, to int // minutes of the day
}

//go:wasmexport weir_configure
func configure(at, length uint32) uint64 {
	return weir.Configure(at, length, func(b []byte) error {
		if err := json.Unmarshal(b, &config); err != nil {
			return fmt.Errorf("the configuration is not as schema.json says: %w", err)
		}
		c := &config
		if c.MaxPromptBytes < 0 || c.MaxInputTokens < 0 || c.MaxMessages < 0 || c.MaxOutputTokens < 0 || c.MaxChoices < 0 {
			return errors.New("a limit is below zero")
		}
		if c.MaxPromptBytes+c.MaxInputTokens+c.MaxMessages+c.MaxOutputTokens+c.MaxChoices == 0 && c.Hours == nil {
			return errors.New("it has no limit: it would do nothing")
		}
		if c.Hours != nil {
			return c.Hours.read()
		}
		return nil
	})
}

var days = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

func (h *hours) read() (err error) {
	if h.from, err = minute(h.From); err != nil {
		return err
	}
	if h.to, err = minute(h.To); err != nil {
		return err
	}
	if h.from == h.to {
		return errors.New("hours: from and to are the same")
	}
	for _, d := range h.Days {
		if !slices.Contains(days, d) {
			return fmt.Errorf("hours: there is no day %q, but: %s", d, strings.Join(days, ", "))
		}
	}
	if h.Offset < -14*60 || h.Offset > 14*60 {
		return errors.New("hours: utc_offset_minutes is not within 14 hours")
	}
	return nil
}

func minute(s string) (int, error) {
	hour, min, ok := strings.Cut(s, ":")
	h, err := strconv.Atoi(hour)
	m, wrong := strconv.Atoi(min)
	if !ok || len(s) != 5 || err != nil || wrong != nil || h < 0 || m < 0 || m > 59 || h > 24 || h == 24 && m > 0 {
		return 0, fmt.Errorf("hours: %q is no time such as 08:30", s)
	}
	return h*60 + m, nil
}

//go:wasmexport weir_request
func request(at, length uint32) uint64 { return weir.Request(at, length, judge) }

func judge(x *weir.Exchange) *weir.Verdict {
	c := &config
	if c.Hours != nil && !c.Hours.open(weir.Now()) {
		return weir.Deny(403, "out_of_hours", "This key may be used from "+c.Hours.From+" to "+c.Hours.To+" only.")
	}
	if most := c.MaxMessages; most > 0 {
		if n := int64(len(x.Messages())); n > most {
			return tooLarge("messages", n, most)
		}
	}
	if most := c.MaxPromptBytes; most > 0 {
		if n := size(x); n > most {
			return tooLarge("bytes of text", n, most)
		}
	}
	if most := c.MaxInputTokens; most > 0 {
		if n := weir.InputTokens(); n > most {
			return tooLarge("tokens, as estimated,", n, most)
		}
	}
	if most := c.MaxChoices; most > 0 && x.Choices() > most {
		return weir.Deny(400, "too_many_choices", "The request asks for "+strconv.FormatInt(x.Choices(), 10)+" answers and may ask for "+strconv.FormatInt(most, 10)+".")
	}
	if op := x.Operation(); c.MaxOutputTokens > 0 && op != "embeddings" {
		return weir.GoOn().MaxOutputTokens(c.MaxOutputTokens)
	}
	return weir.GoOn()
}

// size counts what the model is given: messages, the arguments of earlier calls, and tools.
func size(x *weir.Exchange) (n int64) {
	for _, m := range x.Messages() {
		for _, t := range m.Texts() {
			n += int64(len(t.Text))
		}
		for _, c := range m.Calls() {
			n += int64(len(c.Arguments.Text))
		}
	}
	for _, t := range x.Tools() {
		n += int64(len(t.Name) + len(t.Description) + len(t.Parameters))
	}
	return n
}

func tooLarge(what string, n, most int64) *weir.Verdict {
	return weir.Deny(413, "request_too_large", "The request has "+strconv.FormatInt(n, 10)+" "+what+" and may have "+strconv.FormatInt(most, 10)+".")
}

// open reports whether it is a time to work. Hours that end before they begin go over midnight, and belong to the day on which they begin.
func (h *hours) open(now time.Time) bool {
	now = now.UTC().Add(time.Duration(h.Offset) * time.Minute)
	at, day := now.Hour()*60+now.Minute(), int(now.Weekday())
	within := at >= h.from && at < h.to
	if h.to < h.from {
		within = at >= h.from || at < h.to
		if at < h.to {
			day = (day + 6) % 7
		}
	}
	return within && (len(h.Days) == 0 || slices.Contains(h.Days, days[day]))
}

func main() {}
