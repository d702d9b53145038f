// SPDX-License-Identifier: Apache-2.0

// System-prompt adds a message to chats and responses, such as what an assistant may speak about.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	weir "github.com/weir-proxy/weir/plugins/sdk/go"
)

var config struct {
	Text     string `json:"text"`
	Role     string `json:"role"`
	Position string `json:"position"`
}

//go:wasmexport weir_configure
func configure(at, length uint32) uint64 {
	return weir.Configure(at, length, func(b []byte) error {
		config.Role, config.Position = "system", "first"
		if err := json.Unmarshal(b, &config); err != nil {
			return fmt.Errorf("the configuration is not as schema.json says: %w", err)
		}
		switch {
		case strings.TrimSpace(config.Text) == "":
			return errors.New("text is empty")
		case config.Role != "system" && config.Role != "developer":
			return fmt.Errorf("role is %q, and neither system nor developer", config.Role)
		case config.Position != "first" && config.Position != "after-system" && config.Position != "last":
			return fmt.Errorf("position is %q, and not first, after-system or last", config.Position)
		}
		return nil
	})
}

//go:wasmexport weir_request
func request(at, length uint32) uint64 { return weir.Request(at, length, judge) }

func judge(x *weir.Exchange) *weir.Verdict {
	if op := x.Operation(); op != "chat" && op != "responses" {
		return weir.GoOn() // nothing that a message could be added to
	}
	text := strings.NewReplacer("{tenant}", x.TenantName(), "{key}", x.KeyName(), "{model}", x.Model()).Replace(config.Text)
	return weir.GoOn().Insert(place(x.Messages()), config.Role, text)
}

func place(messages []weir.Message) int {
	switch config.Position {
	case "last":
		return len(messages)
	case "after-system":
		for n, m := range messages {
			if role := m.Role(); role != "system" && role != "developer" {
				return n
			}
		}
		return len(messages)
	}
	return 0
}

func main() {}
