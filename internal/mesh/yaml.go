// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"github.com/goccy/go-yaml"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/weir-proxy/weir/envoy"
)

// object is an object of Kubernetes, or a part of one.
type object = map[string]any

// plain makes of a message what YAML and JSON are made of.
func plain(m proto.Message) (object, error) {
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var out object
	if err := d.Decode(&out); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	return integers(out).(object), nil
}

// integers gives numbers their own type. Envoy's JSON has no fractions but in durations, which are strings.
func integers(v any) any {
	switch v := v.(type) {
	case object:
		for k := range v {
			v[k] = integers(v[k])
		}
	case []any:
		for i := range v {
			v[i] = integers(v[i])
		}
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64() // it was just read as a number
		return f
	}
	return v
}

// document writes objects as one YAML file, under a comment.
func document(comment string, objects []object) ([]byte, error) {
	var out bytes.Buffer
	for line := range strings.Lines(comment) {
		out.WriteString("# " + line)
	}
	for i, o := range objects {
		b, err := yaml.MarshalWithOptions(o, yaml.UseLiteralStyleIfMultiline(true), yaml.IndentSequence(true))
		if err != nil {
			return nil, fmt.Errorf("write YAML: %w", err)
		}
		if i > 0 {
			out.WriteString("---\n")
		}
		out.Write(b)
	}
	return out.Bytes(), nil
}

// indented writes JSON for people.
func indented(o object) (string, error) {
	b, err := json.MarshalIndent(o, "", "  ")
	return string(b) + "\n", err
}

// bootstrapOf reads what package envoy makes for its own Envoy.
func bootstrapOf(o envoy.BootstrapOptions) (*bootstrapv3.Bootstrap, error) {
	b, err := envoy.Bootstrap(o)
	if err != nil {
		return nil, err
	}
	var whole bootstrapv3.Bootstrap
	if err := protojson.Unmarshal(b, &whole); err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	return &whole, nil
}
