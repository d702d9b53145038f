// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Load reads the file at path over [Default], resolves what secrets refer to and validates the rest. Relative paths in the file are
// relative to the file. The error wraps fs.ErrNotExist when there is no file, and is an [*Error] when there are mistakes in it.
func Load(path string) (Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read the configuration: %w", err)
	}
	c, lines, err := parse(b)
	if err == nil {
		c, err = c.locate(filepath.Dir(path))
	}
	if err == nil {
		err = c.Validate()
	}
	if err == nil {
		c, err = c.resolveSecrets()
	}
	if e, ok := errors.AsType[*Error](err); ok {
		e.File = path
		for i, p := range e.Problems {
			if p.Line == 0 {
				e.Problems[i].Line = lines[p.Key]
			}
		}
		slices.SortStableFunc(e.Problems, func(a, b Problem) int { return a.Line - b.Line })
	}
	if err != nil {
		return Config{}, err
	}
	return c, nil
}

// locate makes every path absolute and fills in those that follow from others.
func (c Config) locate(dir string) (Config, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Config{}, fmt.Errorf("find the folder of the configuration: %w", err)
	}
	for _, p := range []*string{
		&c.StateDir, &c.Processor.Socket, &c.Envoy.LogDir, &c.Envoy.Path, &c.Envoy.CAFile, &c.Plugins.CacheDir,
		&c.Gateway.TLS.Cert, &c.Gateway.TLS.Key, &c.Processor.TLS.Cert, &c.Processor.TLS.Key, &c.Processor.TLS.ClientCA,
		&c.Envoy.ProcessorTLS.CA, &c.Envoy.ProcessorTLS.Cert, &c.Envoy.ProcessorTLS.Key,
	} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	if c.StateDir == "" {
		return c, nil // Validate reports it.
	}
	return c.Complete(), nil
}

func (c Config) resolveSecrets() (Config, error) {
	var v validator
	for _, s := range []struct {
		key   string
		value *Secret
	}{
		{"database.url", &c.Database.URL},
		{"secret_key", &c.SecretKey},
		{"admin.token", &c.Admin.Token},
		{"limits.budgets.webhook", &c.Limits.Budgets.Webhook},
		{"limits.budgets.webhook_token", &c.Limits.Budgets.WebhookToken},
		{"telemetry.headers", &c.Telemetry.Headers},
	} {
		got, err := s.value.resolve()
		if err != nil {
			v.add(s.key, "%s", err)
		}
		*s.value = got
	}
	return c, v.err()
}

// parse reads YAML over the defaults, and returns the line of each key that it holds. The library's own decoder would name types of Go
// in its errors and stop at the first; this one walks the same tree.
func parse(b []byte) (Config, map[string]int, error) {
	c := Default()
	f, err := parser.ParseBytes(b, 0)
	if err != nil {
		return Config{}, nil, &Error{Problems: []Problem{syntaxProblem(err)}}
	}
	d := decoder{lines: map[string]int{}}
	seen := false
	for _, doc := range f.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType {
			continue
		}
		if seen {
			d.at(doc.Body, "", "the file must be a single YAML document")
			break
		}
		seen = true
		d.section(doc.Body, "", reflect.ValueOf(&c).Elem())
	}
	return c, d.lines, d.err()
}

func syntaxProblem(err error) Problem {
	var e yaml.Error
	if errors.As(err, &e) && e.GetToken() != nil {
		return Problem{Line: e.GetToken().Position.Line, Text: "not YAML: " + e.GetMessage()}
	}
	return Problem{Text: "not YAML: " + err.Error()}
}

// decoder sets the fields of a Config from a YAML tree and remembers where each key was.
type decoder struct {
	validator
	lines map[string]int
}

func line(n ast.Node) int {
	if t := n.GetToken(); t != nil {
		return t.Position.Line
	}
	return 0
}

func (d *decoder) at(n ast.Node, key, format string, args ...any) {
	d.problems = append(d.problems, Problem{Line: line(n), Key: key, Text: fmt.Sprintf(format, args...)})
}

// complain notes what is wrong with a value, if anything is.
func (d *decoder) complain(n ast.Node, key, text string) {
	if text != "" {
		d.at(n, key, "%s", text)
	}
}

// oneOf sets a field to one of the words, or says that it must be one.
func oneOf[T ~string](text string, to *T, words ...T) string {
	if slices.Contains(words, T(text)) {
		*to = T(text)
		return ""
	}
	var list strings.Builder
	for i, w := range words {
		switch {
		case i == len(words)-1 && i > 0:
			list.WriteString(" or ")
		case i > 0:
			list.WriteString(", ")
		}
		list.WriteString(string(w))
	}
	return "must be " + list.String()
}

// section decodes a mapping into a struct.
func (d *decoder) section(n ast.Node, path string, into reflect.Value) {
	var pairs []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	case *ast.NullNode:
		return // A section whose keys are all commented out.
	default:
		d.at(n, path, "must hold keys and values")
		return
	}
	for _, p := range pairs {
		key := p.Key.String()
		if t := p.Key.GetToken(); t != nil {
			key = t.Value
		}
		full := strings.TrimPrefix(path+"."+key, ".")
		field, known := fieldOf(into, key)
		if !known {
			d.at(p.Key, "", "unknown key %q%s", full, suggestion(into, key))
			continue
		}
		d.lines[full] = line(p.Key)
		if field.Kind() == reflect.Struct {
			d.section(p.Value, full, field)
			continue
		}
		d.value(p.Value, full, field)
	}
}

// value decodes a scalar. Every type of a field in [Config] that is not a section has its case here.
func (d *decoder) value(n ast.Node, key string, into reflect.Value) {
	text, isText := textOf(n)
	switch p := into.Addr().Interface().(type) {
	case *time.Duration:
		v, err := time.ParseDuration(text)
		if !isText || err != nil {
			d.at(n, key, "must be a duration with its unit, as in 250ms, 5s or 10m")
			return
		}
		*p = v
	case *slog.Level:
		d.level(n, key, text, p)
	case *Durability:
		d.complain(n, key, oneOf(text, p, Async, Fsync))
	case *AccessLog:
		d.complain(n, key, oneOf(text, p, LogFile, LogGRPC))
	case *Tap:
		d.complain(n, key, oneOf(text, p, TapAuto, TapNative, TapLua))
	case *CutOff:
		d.complain(n, key, oneOf(text, p, GoOn, Refuse))
	case *Unpriced:
		d.complain(n, key, oneOf(text, p, AllowUnpriced, RefuseUnpriced))
	case *Protocol:
		if text != "" || !isText {
			d.complain(n, key, oneOf(text, p, OTLPGRPC, OTLPHTTP))
		}
	case *Secret:
		d.secret(n, key, text, p)
	case *string:
		if !isText {
			d.at(n, key, "must be text; put it between quotes")
			return
		}
		if strings.Contains(text, "${") {
			d.at(n, key, "${…} works only in secrets")
			return
		}
		*p = text
	case *[]string:
		d.list(n, key, p)
	case *bool:
		b, isBool := n.(*ast.BoolNode)
		if !isBool {
			d.at(n, key, "must be true or false")
			return
		}
		*p = b.Value
	case *int, *int64:
		d.number(n, key, into)
	case *float64:
		d.share(n, key, p)
	default:
		panic(fmt.Sprintf("config: no decoder for %s of type %T", key, p))
	}
}

func (d *decoder) level(n ast.Node, key, text string, into *slog.Level) {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	v, known := levels[text]
	if !known {
		d.at(n, key, "must be debug, info, warn or error")
		return
	}
	*into = v
}

// number decodes a whole number.
func (d *decoder) number(n ast.Node, key string, into reflect.Value) {
	i, isInt := n.(*ast.IntegerNode)
	if !isInt {
		d.at(n, key, "must be a whole number")
		return
	}
	v, fits := integer(i)
	if !fits || into.OverflowInt(v) {
		d.at(n, key, "is out of range")
		return
	}
	into.SetInt(v)
}

// share decodes a number from 0 to 1.
func (d *decoder) share(n ast.Node, key string, into *float64) {
	var v float64
	switch n := n.(type) {
	case *ast.FloatNode:
		v = n.Value
	case *ast.IntegerNode:
		i, _ := integer(n)
		v = float64(i)
	default:
		v = -1
	}
	if !(v >= 0 && v <= 1) {
		d.at(n, key, "must be a number from 0 to 1")
		return
	}
	*into = v
}

// list decodes a list of texts.
func (d *decoder) list(n ast.Node, key string, into *[]string) {
	if _, none := n.(*ast.NullNode); none {
		return
	}
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.at(n, key, "must be a list, as in [a, b]")
		return
	}
	for _, v := range seq.Values {
		text, isText := textOf(v)
		if !isText || strings.Contains(text, "${") {
			d.at(v, key, "must hold texts; put them between quotes")
			return
		}
		*into = append(*into, text)
	}
}

// secret takes a reference, and for the database also a URL without a password, as on a machine where Postgres trusts the user.
func (d *decoder) secret(n ast.Node, key, text string, into *Secret) {
	s := Secret(text)
	switch {
	case s.variable() != "":
		*into = s
	case text == "" && optional(key), key == "limits.budgets.webhook" && isWebhook(text):
		*into = s
	case key == "database.url" && isPostgres(text) && !holdsPassword(text):
		*into = s
	default:
		d.at(n, key, "must be a reference to the environment such as %s: secrets are not kept in this file", defaultOf(key))
	}
}

// optional reports whether a secret may be empty.
func optional(key string) bool {
	return strings.HasPrefix(key, "limits.budgets.") || key == "telemetry.headers"
}

func defaultOf(key string) string {
	c := Default()
	return map[string]Secret{
		"database.url": c.Database.URL, "secret_key": c.SecretKey, "admin.token": c.Admin.Token,
		"limits.budgets.webhook": "${WEIR_WEBHOOK}", "limits.budgets.webhook_token": "${WEIR_WEBHOOK_TOKEN}",
		"telemetry.headers": "${OTEL_EXPORTER_OTLP_HEADERS}",
	}[key].Reveal()
}

func textOf(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	}
	return "", false
}

func integer(n *ast.IntegerNode) (int64, bool) {
	switch v := n.Value.(type) {
	case int64:
		return v, true
	case uint64:
		return int64(v), v <= 1<<63-1
	}
	return 0, false
}

// fieldOf finds the field of a struct that a key sets.
func fieldOf(s reflect.Value, key string) (reflect.Value, bool) {
	for i := range s.NumField() {
		if tag := s.Type().Field(i).Tag.Get("yaml"); tag == key && tag != "-" {
			return s.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// suggestion names the keys that the section does have.
func suggestion(s reflect.Value, key string) string {
	var keys []string
	for i := range s.NumField() {
		tag := s.Type().Field(i).Tag.Get("yaml")
		if tag == "-" {
			continue
		}
		keys = append(keys, tag)
		if squash(tag) == squash(key) {
			return fmt.Sprintf(": it is written %s", tag)
		}
	}
	return ": here can be " + strings.Join(keys, ", ")
}

func squash(s string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s))
}
