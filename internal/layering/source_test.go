// SPDX-License-Identifier: Apache-2.0

package layering

import (
	"bytes"
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strings"
	"testing"
)

// Sizes above which a thing is to be split. They are limits, not aims: the median file has 150 lines.
const (
	maxFile    = 600 // lines; of tests too
	maxFunc    = 60  // lines; not of tests, which tell a story
	maxFields  = 15  // of a struct that is declared by name
	maxParams  = 5   // of a function, its context or test included; more belong into a struct
	maxMethods = 4   // of an interface
)

func TestEveryFileNamesItsLicence(t *testing.T) {
	t.Parallel()
	r := load(t)
	const id = "SPDX-License-Identifier: Apache-2.0"
	for _, name := range r.files {
		comment, ok := map[string]string{".go": "//", ".sql": "--", ".lua": "--", ".mjs": "//", ".py": "#", ".sh": "#"}[path.Ext(name)]
		if !ok || strings.Contains(name, "testdata/") {
			continue
		}
		first, rest, _ := strings.Cut(r.contents(t, name), "\n")
		if strings.HasPrefix(first, "#!") {
			first, _, _ = strings.Cut(rest, "\n")
		}
		if want := comment + " " + id; first != want {
			t.Errorf("%s must begin with %q: see docs/adr/0001-record-decisions.md", name, want)
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	t.Parallel()
	r := load(t)
	for _, pkg := range r.packages() {
		var docs []string
		for _, s := range r.code {
			if s.pkg == pkg && s.ast.Doc != nil {
				docs = append(docs, s.path)
			}
		}
		if len(docs) != 1 {
			t.Errorf("package %s has %d package comments %v: it needs one", pkg, len(docs), docs)
		}
	}
}

func TestNoPackageHasStateThatOthersCanChange(t *testing.T) {
	t.Parallel()
	r := load(t)
	for _, s := range r.code {
		if s.test {
			continue
		}
		for _, d := range s.ast.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, spec := range g.Specs {
				v := spec.(*ast.ValueSpec) // the specs of a var are these
				for _, n := range v.Names {
					if n.IsExported() && !strings.HasPrefix(n.Name, "Err") && !isEmbedFS(v.Type) {
						t.Errorf("%s: %s can be changed by every importer, in every test at once: make it a constant, or a function that returns it", s.path, n.Name)
					}
				}
			}
		}
	}
}

func isEmbedFS(e ast.Expr) bool {
	sel, ok := e.(*ast.SelectorExpr)
	return ok && sel.Sel.Name == "FS"
}

func TestFoldersAreNamedForWhatTheyProvide(t *testing.T) {
	t.Parallel()
	r := load(t)
	for _, dir := range r.dirs {
		if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "misc", "base", "shared", "lib"}, path.Base(dir)) {
			t.Errorf("%s says nothing of what is in it, and so everything will be: name it for what it provides", dir)
		}
	}
}

func TestNothingGrowsBeyondWhatOneReads(t *testing.T) {
	t.Parallel()
	r := load(t)
	for _, s := range r.code {
		if s.generated() {
			continue
		}
		if n := bytes.Count(s.text, []byte("\n")); n > maxFile {
			t.Errorf("%s has %d lines, the limit is %d: split it", s.path, n, maxFile)
		}
		if s.test {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			r.checkSize(t, s, n)
			return true
		})
	}
}

func (r *tree) checkSize(t *testing.T, s *source, n ast.Node) {
	t.Helper()
	switch n := n.(type) {
	case *ast.FuncDecl:
		if lines := r.lines(n); lines > maxFunc {
			t.Errorf("%s: %s has %d lines, the limit is %d: split it", s.path, n.Name.Name, lines, maxFunc)
		}
		if params := n.Type.Params.NumFields(); params > maxParams && n.Body != nil { // without a body it is somebody else's
			t.Errorf("%s: %s has %d parameters, the limit is %d: make a struct of them", s.path, n.Name.Name, params, maxParams)
		}
	case *ast.TypeSpec:
		switch typ := n.Type.(type) {
		case *ast.StructType:
			if fields := typ.Fields.NumFields(); fields > maxFields && !isRow(n) {
				t.Errorf("%s: %s has %d fields, the limit is %d: split it", s.path, n.Name.Name, fields, maxFields)
			}
		case *ast.InterfaceType:
			methods := 0
			for _, m := range typ.Methods.List {
				methods += len(m.Names) // those that it embeds are small by themselves
			}
			if methods > maxMethods {
				t.Errorf("%s: %s has %d methods, the limit is %d: ask for less", s.path, n.Name.Name, methods, maxMethods)
			}
		}
	}
}

// isRow excuses what has one field for each column of weir.usage.
func isRow(n *ast.TypeSpec) bool {
	return slices.Contains([]string{"Record", "UsageRow"}, n.Name.Name)
}
