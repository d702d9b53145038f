// SPDX-License-Identifier: Apache-2.0

package weir_test

import (
	"fmt"
	"testing"

	"github.com/weir-proxy/weir/plugins/abi"
	weir "github.com/weir-proxy/weir/plugins/sdk/go"
)

// FuzzGiven looks for bytes that a plugin cannot read without a panic, and for a request that it reads differently from how the host wrote it.
func FuzzGiven(f *testing.F) {
	sent := abi.Exchange{ID: "id", Messages: []abi.Message{{Role: "user", Texts: []abi.Text{{ID: 1, Text: "hi"}}}}, Body: []byte("{}")}
	f.Add(sent.Append(nil), "m", "a text", int64(7))
	f.Add([]byte{1, 0, 0, 0, 255, 255, 255, 255}, "", "", int64(-1))
	f.Fuzz(func(t *testing.T, raw []byte, name, text string, n int64) {
		all(weir.NewExchange(raw))
		x := abi.Exchange{
			ID: name, Caller: abi.Caller{Tenant: n, TenantName: text, Key: n, KeyName: name, Address: text},
			Asked:   abi.Asked{Operation: name, Model: text, Stream: n%2 == 0, MaxOutput: n, Choices: n},
			Budget:  &n,
			Headers: []abi.Header{{Name: name, Value: text}}, Channels: []string{name, text}, Body: raw, State: raw,
			Messages: []abi.Message{{
				Role: name, Texts: []abi.Text{{ID: n, Text: text}}, Calls: []abi.ToolCall{{ID: name, Name: text, Arguments: abi.Text{ID: n, Text: text}}},
			}},
			Tools: []abi.Tool{{Name: name, Description: text, Parameters: text}},
		}
		got := weir.NewExchange(x.Append(nil))
		all(got)
		m := got.Messages()
		if got.ID() != name || got.TenantName() != text || got.Tenant() != n || got.Model() != text || got.Stream() != (n%2 == 0) ||
			string(got.Body()) != string(raw) || string(got.State()) != string(raw) || len(m) != 1 || m[0].Role() != name ||
			len(m[0].Texts()) != 1 || m[0].Texts()[0] != (weir.Text{ID: n, Text: text}) || m[0].Calls()[0].Arguments.Text != text || got.Tools()[0].Parameters != text {
			t.Errorf("%+v is read as %s", x, all(got))
		}
	})
}

// all reads everything that there is in a request.
func all(x *weir.Exchange) string {
	most, asked := x.MaxOutputTokens()
	left, limited := x.BudgetLeft()
	s := fmt.Sprint(x.ID(), x.Tenant(), x.TenantName(), x.Key(), x.KeyName(), x.Address(), x.Operation(), x.Model(), x.Stream(), x.Choices(), most, asked,
		left, limited, x.Headers(), x.Texts(), x.Tools(), x.Channels(), string(x.Body()), string(x.State()))
	for _, m := range x.Messages() {
		s += fmt.Sprint(m.Role(), m.Texts(), m.Calls())
	}
	return s
}
