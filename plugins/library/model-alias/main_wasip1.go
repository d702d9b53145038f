// SPDX-License-Identifier: Apache-2.0

// Model-alias gives models other names, and lets those alone through that its configuration names.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	weir "github.com/weir-proxy/weir/plugins/sdk/go"
)

var config struct {
	Aliases map[string]string `json:"aliases"`
	Allow   []string          `json:"allow"` // a name that ends in * stands for all that begin so; none: all
}

//go:wasmexport weir_configure
func configure(at, length uint32) uint64 {
	return weir.Configure(at, length, func(b []byte) error {
		if err := json.Unmarshal(b, &config); err != nil {
			return fmt.Errorf("the configuration is not as schema.json says: %w", err)
		}
		if len(config.Aliases)+len(config.Allow) == 0 {
			return errors.New("it has neither aliases nor allow: it would do nothing")
		}
		for alias, model := range config.Aliases {
			if alias == "" || model == "" {
				return errors.New("an alias, or the model it stands for, is empty")
			}
			if _, again := config.Aliases[model]; again && model != alias {
				return fmt.Errorf("the alias %q stands for the alias %q: name the model itself", alias, model)
			}
		}
		return nil
	})
}

//go:wasmexport weir_request
func request(at, length uint32) uint64 { return weir.Request(at, length, judge) }

func judge(x *weir.Exchange) *weir.Verdict {
	asked := x.Model()
	model, aliased := config.Aliases[asked]
	if !aliased {
		model = asked
	}
	if !allowed(model) {
		return weir.Deny(403, "model_not_allowed", "The model "+short(asked)+" is not available here.")
	}
	if model == asked {
		return weir.GoOn()
	}
	return weir.GoOn().Model(model).Tag("model_alias", short(asked))
}

func allowed(model string) bool {
	for _, pattern := range config.Allow {
		if prefix, open := strings.CutSuffix(pattern, "*"); pattern == model || open && strings.HasPrefix(model, prefix) {
			return true
		}
	}
	return len(config.Allow) == 0
}

// short keeps a name within what a tag and a message may have, without control characters.
func short(name string) string {
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, name)
	if len(name) > 100 {
		name = strings.ToValidUTF8(name[:100], "")
	}
	return name
}

func main() {}
