// SPDX-License-Identifier: Apache-2.0

// Prompt-guard looks for secrets and for attempts to turn a model against its instructions, in what users and tools say. It denies such requests, or tags
// their rows.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	weir "github.com/weir-proxy/weir/plugins/sdk/go"
)

var config struct {
	Action    string   `json:"action"`
	Secrets   bool     `json:"secrets"`
	Injection bool     `json:"injection"`
	Patterns  []string `json:"patterns"`
}

// injection is how people and web pages usually try. It is a net, not a wall.
const injection = `(?i)\b(ignore|disregard|forget|override) (all |any |every )?(of )?(the |your |my |these |those )?(previous|prior|above|earlier|preceding|system|original) (instructions?|prompts?|rules|messages?|directions)` +
	`|\b(reveal|print|show|repeat|output|leak) (me )?(your|the) (full |entire |hidden |initial )?(system|developer) (prompt|message|instructions)` +
	`|\byou are now (in )?(dan\b|developer mode|jailbroken|unrestricted)` +
	`|<\|im_(start|end)\|>|\[/?INST\]|<</?SYS>>`

const secret = 64 // the kind of scan

//go:wasmexport weir_configure
func configure(at, length uint32) uint64 {
	return weir.Configure(at, length, func(b []byte) error {
		config.Action, config.Secrets, config.Injection = "deny", true, true
		if len(b) > 0 {
			if err := json.Unmarshal(b, &config); err != nil {
				return fmt.Errorf("the configuration is not as schema.json says: %w", err)
			}
		}
		if config.Action != "deny" && config.Action != "tag" {
			return fmt.Errorf("action is %q, and neither deny nor tag", config.Action)
		}
		if !config.Secrets && !config.Injection && len(config.Patterns) == 0 {
			return errors.New("it looks for nothing")
		}
		for _, p := range config.Patterns {
			if _, err := weir.Find(p, "", 1); err != nil {
				return fmt.Errorf("the pattern %q: %w", p, err)
			}
		}
		return nil
	})
}

//go:wasmexport weir_request
func request(at, length uint32) uint64 { return weir.Request(at, length, judge) }

func judge(x *weir.Exchange) *weir.Verdict {
	var found []string
	for _, m := range x.Messages() {
		if role := m.Role(); role != "user" && role != "tool" {
			continue // the operator's own words, and the model's
		}
		for _, t := range m.Texts() {
			found = look(t.Text, found)
		}
	}
	switch {
	case len(found) == 0:
		return weir.GoOn()
	case config.Action == "tag":
		return weir.GoOn().Tag("prompt_guard", strings.Join(found, ","))
	case found[0] == "secret":
		return weir.Deny(403, "secret_in_prompt", "The prompt has a key, a token or another secret in it. Take it out, and consider it known to others.")
	}
	return weir.Deny(403, "prompt_refused", "The prompt is not allowed by a policy of this gateway: "+found[0]+".")
}

// look adds what it finds in a text.
func look(text string, found []string) []string {
	if config.Secrets && len(weir.Scan(secret, text, 1)) > 0 {
		found = add(found, "secret")
	}
	if config.Injection && has(injection, text) {
		found = add(found, "injection")
	}
	for _, p := range config.Patterns {
		if has(p, text) {
			found = add(found, "pattern")
		}
	}
	return found
}

func has(pattern, text string) bool {
	m, err := weir.Find(pattern, text, 1)
	return err == nil && len(m) > 0
}

func add(found []string, what string) []string {
	for _, f := range found {
		if f == what {
			return found
		}
	}
	return append(found, what)
}

func main() {}
