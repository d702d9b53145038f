// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// schemaName is what a schema is called by itself, and in errors.
const schemaName = "https://plugin.invalid/schema"

// A schema comes with a module, and so from whoever wrote that. References are what makes checking against one take long, so there may be few of them, and none leads
// out of it.
const (
	maxReferences = 16
	maxComplaints = 3 // about one configuration
)

// errForeign is the error of a schema that names another document.
var errForeign = errors.New("it may not refer to other documents")

// nowhere loads no documents.
type nowhere struct{}

// Load implements [jsonschema.URLLoader].
func (nowhere) Load(string) (any, error) { return nil, errForeign }

// readSchema reads the JSON Schema of a module.
func readSchema(text []byte) (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("it is not JSON: %w", err)
	}
	if n := references(doc); n > maxReferences {
		return nil, fmt.Errorf("it has %d references ($ref), at most %d", n, maxReferences)
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(nowhere{})
	if err := c.AddResource(schemaName, doc); err != nil {
		return nil, err
	}
	s, err := c.Compile(schemaName)
	if err != nil {
		if errors.Is(err, errForeign) {
			return nil, errForeign
		}
		return nil, err
	}
	return s, nil
}

// references counts the references in a schema.
func references(doc any) (n int) {
	switch v := doc.(type) {
	case map[string]any:
		for name, value := range v {
			if name == "$ref" || name == "$dynamicRef" || name == "$recursiveRef" {
				n++
			}
			n += references(value)
		}
	case []any:
		for _, value := range v {
			n += references(value)
		}
	}
	return n
}

// checkSchema refuses a module whose schema nobody could check a configuration against.
func checkSchema(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	if _, err := readSchema(text); err != nil {
		return &Refusal{
			"its custom section weir.schema is no JSON Schema: " + oneLine(err.Error()), "mend the schema, which is of draft 2020-12, or leave the section out",
		}
	}
	return nil
}

// checkConfig holds a configuration against the schema of its module. An empty one, and one whose schema cannot be read, is left to the plugin.
func checkConfig(schema []byte, config string) error {
	if len(schema) == 0 || strings.TrimSpace(config) == "" {
		return nil
	}
	s, err := readSchema(schema)
	if err != nil {
		return nil //nolint:nilerr // it was pushed when schemas were not read
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(config))
	if err != nil {
		why := err.Error()
		if e, ok := errors.AsType[*json.SyntaxError](err); ok {
			why = fmt.Sprintf("%s at byte %d", e, e.Offset)
		}
		return &Refusal{"the configuration is not JSON: " + why, schemaHint}
	}
	invalid, ok := errors.AsType[*jsonschema.ValidationError](s.Validate(doc))
	if !ok {
		return nil
	}
	complaints := complaintsOf(invalid, nil)
	slices.Sort(complaints)
	complaints = slices.Compact(complaints)
	if more := len(complaints) - maxComplaints; more > 0 {
		complaints = append(complaints[:maxComplaints], fmt.Sprintf("and %d more", more))
	}
	return &Refusal{"the configuration is not as the plugin's schema has it: " + strings.Join(complaints, "; "), schemaHint}
}

// complaintsOf says what is wrong, and where: what has no other cause.
func complaintsOf(e *jsonschema.ValidationError, to []string) []string {
	if len(e.Causes) == 0 {
		out := e.BasicOutput()
		where := out.InstanceLocation
		if where == "" {
			where = "the outermost value"
		}
		return append(to, where+": "+oneLine(out.Error.String()))
	}
	for _, cause := range e.Causes {
		to = complaintsOf(cause, to)
	}
	return to
}

const schemaHint = "weir plugin show NAME shows the schema"

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
