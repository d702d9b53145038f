// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/plugins/wasmtest"
)

const hours = `{"type":"object","properties":{"max":{"type":"integer","minimum":0},
	"hours":{"type":"object","properties":{"from":{"pattern":"^[0-9]{2}:[0-9]{2}$"},"days":{"items":{"enum":["mon","tue"]}}},"required":["from"]}},"additionalProperties":false}`

func TestConfigurationIsHeldAgainstTheSchema(t *testing.T) {
	l, _ := started(t)
	wasm := wasmtest.Guest{Request: []byte{}, Schema: hours}.Wasm()
	for config, want := range map[string]string{
		"":                                   "",
		`{"max":5,"hours":{"from":"08:00"}}`: "",
		`{"max":-1}`:                         "/max: minimum: got -1, want 0",
		`{"hours":{"from":"8"}}`:             "/hours/from: '8' does not match pattern",
		`{"hours":{"from":"08:00","days":["mon","sun"]}}`: "/hours/days/1: value must be one of 'mon', 'tue'",
		`{"hours":{}}`: "/hours: missing property 'from'",
		`{"mix":1}`:    "the outermost value: additional properties 'mix' not allowed",
		`{"max":"a","mix":1,"hours":{"from":"8","days":[1,2]}}`: "and 2 more",
		`{"max":`:      "the configuration is not JSON",
		`{"max":1} {}`: "the configuration is not JSON",
		`[]`:           "the outermost value: got array, want object",
	} {
		err := l.TryPlugin(t.Context(), store.Attachment{Plugin: "p", PluginSettings: store.PluginSettings{Config: config}}, wasm)
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", config, err)
			}
			continue
		}
		r, ok := errors.AsType[*Refusal](err)
		if !ok || !strings.Contains(r.Reason, want) || r.Hint() == "" {
			t.Errorf("%s: %v, want %q", config, err, want)
		}
	}
}

func TestSchemaThatCannotBeUsedIsNotPushed(t *testing.T) {
	l, _ := started(t)
	secret := t.TempDir() + "/secret.json"
	if err := os.WriteFile(secret, []byte(`{"type":"string"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for schema, want := range map[string]string{
		`{"type":"objekt"}`:                     "is no JSON Schema",
		`{"$ref":"file://` + secret + `"}`:      "it may not refer to other documents",
		`{"$schema":"http://127.0.0.1:1/meta"}`: "it may not refer to other documents",
		`{"pattern":"(?=a)"}`:                   "is no JSON Schema",
		`{"$ref":"#"}`:                          "",
		`{"$defs":{"a":{}},"allOf":[{"$ref":"#/$defs/a"}` + strings.Repeat(`,{"$ref":"#/$defs/a"}`, 16) + `]}`: "it has 17 references",
	} {
		_, _, err := l.InspectPlugin(t.Context(), "p", wasmtest.Guest{Request: []byte{}, Schema: schema}.Wasm())
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", schema, err)
			}
			continue
		}
		if r, ok := errors.AsType[*Refusal](err); !ok || !strings.Contains(r.Reason, want) {
			t.Errorf("%s: %v, want %q", schema, err, want)
		}
	}
	// A schema that only calls itself ends all the same.
	wasm := wasmtest.Guest{Request: []byte{}, Schema: `{"allOf":[{"$ref":"#"},{"$ref":"#"}]}`}.Wasm()
	err := l.TryPlugin(t.Context(), store.Attachment{Plugin: "p", PluginSettings: store.PluginSettings{Config: "{}"}}, wasm)
	if err == nil || !strings.Contains(err.Error(), "reference cycle") {
		t.Errorf("without an end: %v", err)
	}
}
