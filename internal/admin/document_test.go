// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
)

// document is openapi.yaml as far as the tests look at it.
type document struct {
	root map[string]any
}

func readDocument(t *testing.T) document {
	t.Helper()
	var root map[string]any
	if err := yaml.UnmarshalWithOptions(openAPI, &root, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	return document{root}
}

// at follows keys, and references where there are any.
func (d document) at(from any, keys ...string) map[string]any {
	m, _ := from.(map[string]any)
	for _, key := range keys {
		m, _ = m[key].(map[string]any)
		m = d.deref(m)
	}
	return d.deref(m)
}

func (d document) deref(m map[string]any) map[string]any {
	ref, ok := m["$ref"].(string)
	if !ok {
		return m
	}
	return d.at(d.root, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
}

// operations maps "GET /path" to the operation.
func (d document) operations() map[string]map[string]any {
	all := map[string]map[string]any{}
	for path, item := range d.at(d.root, "paths") {
		for method, op := range d.at(item) {
			if method != "parameters" {
				all[strings.ToUpper(method)+" "+path] = d.at(op)
			}
		}
	}
	return all
}

func TestDocumentHoldsEveryRouteAndNoOther(t *testing.T) {
	var got []string
	for _, r := range (&api{}).routes() {
		got = append(got, r.method+" "+r.path)
	}
	var want []string
	ids := map[any]bool{}
	for op, v := range readDocument(t).operations() {
		want = append(want, op)
		if ids[v["operationId"]] || v["operationId"] == nil || v["summary"] == nil {
			t.Errorf("%s: operationId %v is missing or taken, or there is no summary", op, v["operationId"])
		}
		ids[v["operationId"]] = true
		if open := !strings.HasPrefix(strings.Fields(op)[1], apiPrefix); open != (v["security"] != nil) {
			t.Errorf("%s: the document and the prefix %s do not agree on whether it needs a token", op, apiPrefix)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("routes (-handler +document):\n%s", diff)
	}
}

func TestReferencesOfTheDocumentLeadSomewhere(t *testing.T) {
	d := readDocument(t)
	used := map[string]bool{}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				used[ref] = true
				if len(d.deref(v)) == 0 {
					t.Errorf("%s leads nowhere", ref)
				}
			}
			for _, sub := range v {
				walk(sub)
			}
		case []any:
			for _, sub := range v {
				walk(sub)
			}
		}
	}
	walk(d.root)
	for kind, all := range d.at(d.root, "components") {
		for name := range d.at(all) {
			if kind != "securitySchemes" && !used["#/components/"+kind+"/"+name] {
				t.Errorf("components/%s/%s is used by nothing", kind, name)
			}
		}
	}
}

// checkAnswer returns how an answer differs from what the document has for its operation and status.
func (d document) checkAnswer(op map[string]any, status int, contentType string, body []byte) error {
	response := d.at(op, "responses", fmt.Sprint(status))
	if response == nil && status >= 400 {
		response = d.at(op, "responses", "default")
	}
	if response == nil {
		return fmt.Errorf("status %d is not in the document", status)
	}
	content := d.at(response, "content")
	if len(content) == 0 {
		if len(body) > 0 {
			return fmt.Errorf("a body where there should be none: %s", body)
		}
		return nil
	}
	kind, _, _ := strings.Cut(contentType, ";")
	media, ok := content[kind]
	if !ok {
		return fmt.Errorf("content type %q is not in the document", contentType)
	}
	if !strings.HasSuffix(kind, "json") {
		return nil
	}
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		return err
	}
	return d.check("body", d.at(media, "schema"), v)
}

// check validates v by the part of JSON Schema that the document uses.
func (d document) check(path string, schema map[string]any, v any) error {
	if schema["type"] == nil {
		return nil // anything
	}
	if err := d.checkType(path, schema["type"], v); err != nil {
		return err
	}
	if enum, ok := schema["enum"].([]any); ok && !slices.Contains(enum, v) {
		return fmt.Errorf("%s: %v is none of %v", path, v, enum)
	}
	switch v := v.(type) {
	case map[string]any:
		return d.checkObject(path, schema, v)
	case []any:
		for i, item := range v {
			if err := d.check(fmt.Sprintf("%s[%d]", path, i), d.at(schema, "items"), item); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d document) checkObject(path string, schema, v map[string]any) error {
	properties := d.at(schema, "properties")
	for name, member := range v {
		sub := d.at(properties, name)
		if sub == nil {
			if sub = d.at(schema, "additionalProperties"); sub == nil {
				return fmt.Errorf("%s.%s is not in the document", path, name)
			}
		}
		if err := d.check(path+"."+name, sub, member); err != nil {
			return err
		}
	}
	required, _ := schema["required"].([]any)
	for _, name := range required {
		if _, ok := v[name.(string)]; !ok {
			return fmt.Errorf("%s.%s is required and missing", path, name)
		}
	}
	return nil
}

func (d document) checkType(path string, types, v any) error {
	var got string
	switch v := v.(type) {
	case nil:
		got = "null"
	case bool:
		got = "boolean"
	case string:
		got = "string"
	case float64:
		got = "number"
		if v == math.Trunc(v) {
			got = "integer"
		}
	case []any:
		got = "array"
	case map[string]any:
		got = "object"
	}
	want, ok := types.([]any)
	if !ok {
		want = []any{types}
	}
	if !slices.Contains(want, any(got)) {
		return fmt.Errorf("%s: %s where the document has %v", path, got, want)
	}
	return nil
}

func TestCheckFindsWhatTheDocumentDoesNotHave(t *testing.T) {
	d := readDocument(t)
	op := d.operations()["GET /api/v1/tenants/{ref}"]
	for name, c := range map[string]struct{ body, want string }{
		"good":    {`{"id":1,"name":"a","disabled":false,"groups":[],"created":"2026-01-01T00:00:00Z"}`, ""},
		"missing": {`{"id":1,"name":"a","disabled":false,"groups":[]}`, "body.created is required and missing"},
		"unknown": {`{"id":1,"name":"a","disabled":false,"groups":[],"created":"","x":1}`, "body.x is not in the document"},
		"type":    {`{"id":"1","name":"a","disabled":false,"groups":[],"created":""}`, "body.id: string where the document has [integer]"},
		"null":    {`{"id":null,"name":"a","disabled":false,"groups":[],"created":""}`, "body.id: null where the document has [integer]"},
	} {
		err := d.checkAnswer(op, 200, "application/json", []byte(c.body))
		if got := fmt.Sprint(err); c.want != "" && got != c.want || c.want == "" && err != nil {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}
