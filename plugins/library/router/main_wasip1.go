// SPDX-License-Identifier: Apache-2.0

// Router sends requests to a model, or to channels, by what is in them: their length, words, images, tools.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	weir "github.com/weir-proxy/weir/plugins/sdk/go"
)

// A rule applies if all of its conditions hold. The first that does is followed, and the rest are not looked at.
type rule struct {
	Name string `json:"name"`

	Models      []string `json:"models"` // asked for; a name that ends in * stands for all that begin so
	MinBytes    int      `json:"min_bytes"`
	MaxBytes    int      `json:"max_bytes"`
	MinMessages int      `json:"min_messages"`
	Matches     string   `json:"matches"` // a regular expression, in any text
	Media       string   `json:"media"`
	Tools       *bool    `json:"tools"`

	Model    string   `json:"model"`
	Channels []string `json:"channels"`
}

var config struct {
	Rules []rule `json:"rules"`
}

//go:wasmexport weir_configure
func configure(at, length uint32) uint64 {
	return weir.Configure(at, length, func(b []byte) error {
		if err := json.Unmarshal(b, &config); err != nil {
			return fmt.Errorf("the configuration is not as schema.json says: %w", err)
		}
		if len(config.Rules) == 0 {
			return errors.New("it has no rules: it would do nothing")
		}
		for i := range config.Rules {
			if err := config.Rules[i].check(); err != nil {
				return fmt.Errorf("rule %d: %w", i+1, err)
			}
		}
		return nil
	})
}

func (r *rule) check() error {
	switch {
	case r.Name == "" || len(r.Name) > 100:
		return errors.New("it has no name, of up to 100 bytes, for the tag route")
	case (r.Model == "") == (len(r.Channels) == 0):
		return errors.New("it names neither a model nor channels, or both")
	case r.MinBytes < 0 || r.MaxBytes < 0 || r.MinMessages < 0:
		return errors.New("a limit is below zero")
	case r.MaxBytes > 0 && r.MaxBytes < r.MinBytes:
		return errors.New("max_bytes is less than min_bytes")
	}
	if r.Matches != "" {
		if _, err := weir.Find(r.Matches, "", 1); err != nil {
			return fmt.Errorf("matches: %w", err)
		}
	}
	return nil
}

//go:wasmexport weir_request
func request(at, length uint32) uint64 { return weir.Request(at, length, judge) }

func judge(x *weir.Exchange) *weir.Verdict {
	p := prompt{x: x, messages: x.Messages(), bytes: -1}
	for i := range config.Rules {
		r := &config.Rules[i]
		if !r.applies(&p) {
			continue
		}
		if r.Model != "" {
			if r.Model == x.Model() {
				return weir.GoOn()
			}
			return weir.GoOn().Model(r.Model).Tag("route", r.Name)
		}
		v, found := weir.GoOn(), false
		for _, c := range r.Channels {
			if slices.Contains(x.Channels(), c) {
				v, found = v.Channel(c), true
			}
		}
		if found { // else none of them serves this model to this key
			return v.Tag("route", r.Name)
		}
	}
	return weir.GoOn()
}

// prompt is a request of which only that is looked at which some rule asks for.
type prompt struct {
	x        *weir.Exchange
	messages []weir.Message
	bytes    int // of texts, earlier arguments and tools; below zero: not counted yet
}

func (r *rule) applies(p *prompt) bool {
	if len(r.Models) > 0 && !slices.ContainsFunc(r.Models, func(pattern string) bool { return fits(pattern, p.x.Model()) }) {
		return false
	}
	if len(p.messages) < r.MinMessages {
		return false
	}
	if r.MinBytes > 0 && p.size() < r.MinBytes || r.MaxBytes > 0 && p.size() > r.MaxBytes {
		return false
	}
	if r.Tools != nil && *r.Tools != (len(p.x.Tools()) > 0) {
		return false
	}
	if r.Media != "" && !slices.ContainsFunc(p.messages, func(m weir.Message) bool { return slices.Contains(m.Media(), r.Media) }) {
		return false
	}
	return r.Matches == "" || p.matches(r.Matches)
}

func fits(pattern, model string) bool {
	prefix, open := strings.CutSuffix(pattern, "*")
	return pattern == model || open && strings.HasPrefix(model, prefix)
}

func (p *prompt) size() int {
	if p.bytes >= 0 {
		return p.bytes
	}
	p.bytes = 0
	for _, m := range p.messages {
		for _, t := range m.Texts() {
			p.bytes += len(t.Text)
		}
		for _, c := range m.Calls() {
			p.bytes += len(c.Arguments.Text)
		}
	}
	for _, t := range p.x.Tools() {
		p.bytes += len(t.Name) + len(t.Description) + len(t.Parameters)
	}
	return p.bytes
}

func (p *prompt) matches(pattern string) bool {
	for _, m := range p.messages {
		for _, t := range m.Texts() {
			if found, err := weir.Find(pattern, t.Text, 1); err == nil && len(found) > 0 {
				return true
			}
		}
	}
	return false
}

func main() {}
