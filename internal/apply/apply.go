// SPDX-License-Identifier: Apache-2.0

// Package apply makes an installation what files say that it is to be.
//
// A file is YAML, of one document or several, each a mapping of sections to lists:
//
//	tenants:  [{name: acme}]
//	channels: [{name: openai, provider: openai, api_key: "env:OPENAI_API_KEY", models: [gpt-4o]}]
//	keys:     [{name: laptop, tenant: acme, hash: "sha256:…"}]
//	plugins:  [{name: guard, source: guard.wasm}]
//
// [Read] reads files, [Plan] compares them with what there is and returns the steps between the two, [Step.Do] takes one. What is left out of a thing is as if it
// had just been made. Things that are in no file stay, unless they are to be pruned; and then only of sections that are in some file.
//
// A kind of thing is a [Kind]: Kinds is the list of them, in the order in which they are made.
package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/weir-proxy/weir/internal/admin"
)

// Kind is a kind of thing that can be declared.
type Kind struct {
	Section string // of a file, in the plural: "keys"
	Name    string // in the singular
	New     func() Thing
	// List returns what there is.
	List func(ctx context.Context, c *admin.Client) ([]Existing, error)
}

// one is the kind's name with its article.
func (k *Kind) one() string {
	if strings.ContainsRune("aeiou", rune(k.Name[0])) {
		return "an " + k.Name
	}
	return "a " + k.Name
}

// Thing is an element of a section: a pointer to a struct that YAML is decoded into.
type Thing interface {
	// Ident returns what the thing is known by, within its kind; empty if that is missing.
	Ident() string
	// Resolve reads what the file refers to, and fills in what was left out. It returns an error for what cannot be.
	Resolve(env Environment) error
	// Fields returns the thing as it is to be, for comparison with [Existing].
	Fields() []Field
	// Put makes it, or makes the one that is there equal to it.
	Put(ctx context.Context, c *admin.Client, there *Existing) error
}

// Field is a member of a thing as people read it.
type Field struct{ Name, Value string }

// Existing is a thing that is there.
type Existing struct {
	Ident  string
	Ref    string // what the API knows it by
	Fields []Field
	Keep   bool // it is not pruned: it is always there, or gone already
	Delete func(ctx context.Context) error
}

// Environment is where secrets and modules are.
type Environment struct {
	Lookup   func(name string) (string, bool)
	ReadFile func(path string) ([]byte, error)
	Module   func(source string) ([]byte, error) // nil: files cannot declare plugins

	digests digests
}

// Declared is what files say.
type Declared struct {
	items    map[string][]item // by section
	sections map[string]bool   // that are there
}

// item is a thing with its place.
type item struct {
	thing Thing
	place string // file:line
}

// Error is mistakes in files, a line for each.
type Error struct{ Problems []string }

// Error implements error.
func (e *Error) Error() string { return strings.Join(e.Problems, "\n") }

// File is a file that was read.
type File struct {
	Name string
	Data []byte
}

// Read reads files. It returns an [*Error] with all mistakes that it finds.
func Read(kinds []Kind, files []File, env Environment) (*Declared, error) {
	env.digests = digests{}
	r := reader{kinds: kinds, env: env, out: &Declared{items: map[string][]item{}, sections: map[string]bool{}}, seen: map[string]string{}}
	for _, f := range files {
		r.file(f)
	}
	if len(r.problems) > 0 {
		return nil, &Error{r.problems}
	}
	return r.out, nil
}

type reader struct {
	kinds    []Kind
	env      Environment
	out      *Declared
	seen     map[string]string // where a thing was declared, by section and ident
	name     string            // of the file
	problems []string
}

func (r *reader) at(n ast.Node, format string, args ...any) {
	r.problems = append(r.problems, r.place(n)+": "+fmt.Sprintf(format, args...))
}

func (r *reader) place(n ast.Node) string {
	if t := n.GetToken(); t != nil {
		return fmt.Sprintf("%s:%d", r.name, t.Position.Line)
	}
	return r.name
}

// mistake notes an error of the library, which knows the place.
func (r *reader) mistake(n ast.Node, err error) {
	var e yaml.Error
	if errors.As(err, &e) && e.GetToken() != nil {
		text := inWords(e.GetMessage())
		if n == nil {
			text = "not YAML: " + text
		}
		r.problems = append(r.problems, fmt.Sprintf("%s:%d: %s", r.name, e.GetToken().Position.Line, text))
		return
	}
	if n != nil {
		r.at(n, "%s", inWords(err.Error()))
		return
	}
	r.problems = append(r.problems, r.name+": not YAML: "+err.Error())
}

// inWords takes out what speaks to programmers.
func inWords(message string) string {
	if _, of, ok := strings.Cut(message, "cannot unmarshal "); ok {
		kind, _, _ := strings.Cut(of, " into ")
		return "a " + kind + " does not fit here"
	}
	return message
}

func (r *reader) file(f File) {
	r.name = f.Name
	tree, err := parser.ParseBytes(f.Data, 0)
	if err != nil {
		r.mistake(nil, err)
		return
	}
	for _, doc := range tree.Docs {
		if doc.Body != nil && doc.Body.Type() != ast.CommentType && doc.Body.Type() != ast.NullType {
			r.document(doc.Body)
		}
	}
}

func mapping(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

func (r *reader) document(n ast.Node) {
	pairs, ok := mapping(n)
	if !ok {
		r.at(n, "a document must hold sections: %s", r.sections())
		return
	}
	for _, p := range pairs {
		name := p.Key.GetToken().Value
		at := slices.IndexFunc(r.kinds, func(k Kind) bool { return k.Section == name })
		if at < 0 {
			r.at(p.Key, "unknown section %q; there are %s", name, r.sections())
			continue
		}
		r.out.sections[name] = true
		switch list := p.Value.(type) {
		case *ast.NullNode:
		case *ast.SequenceNode:
			for _, element := range list.Values {
				r.element(&r.kinds[at], element)
			}
		default:
			r.at(p.Value, "%s must be a list", name)
		}
	}
}

func (r *reader) sections() string {
	var names []string
	for _, k := range r.kinds {
		names = append(names, k.Section)
	}
	return strings.Join(names, ", ")
}

func (r *reader) element(k *Kind, n ast.Node) {
	if _, ok := mapping(n); !ok {
		r.at(n, "%s must be a mapping, as in {name: …}", k.one())
		return
	}
	t := k.New()
	if err := yaml.NodeToValue(n, t, yaml.Strict()); err != nil {
		r.mistake(n, err)
		return
	}
	ident := t.Ident()
	if ident == "" {
		r.at(n, "%s needs a name", k.one())
		return
	}
	if err := t.Resolve(r.env); err != nil {
		r.at(n, "%s %s: %s", k.Name, ident, err)
		return
	}
	if before, twice := r.seen[k.Section+" "+ident]; twice {
		r.at(n, "%s %s is declared already, at %s", k.Name, ident, before)
		return
	}
	place := r.place(n)
	r.seen[k.Section+" "+ident] = place
	r.out.items[k.Section] = append(r.out.items[k.Section], item{t, place})
}
