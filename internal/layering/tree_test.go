// SPDX-License-Identifier: Apache-2.0

package layering

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/weir-proxy/weir/internal/repo"
)

const module = "github.com/weir-proxy/weir"

// source is one Go file of the tree.
type source struct {
	path    string // from the root, with slashes
	pkg     string // the folder
	test    bool
	text    []byte
	ast     *ast.File
	imports []string
}

// generated reports whether a program wrote the file.
func (s *source) generated() bool { return ast.IsGenerated(s.ast) }

// tree is the repository.
type tree struct {
	root  string
	files []string // every file, from the root, with slashes
	dirs  []string
	fset  *token.FileSet
	code  []*source
}

var loaded = struct {
	once sync.Once
	tree tree
	err  error
}{}

// load reads the tree once.
func load(t *testing.T) *tree {
	t.Helper()
	root := repo.Root(t)
	loaded.once.Do(func() { loaded.err = loaded.tree.read(root) })
	if loaded.err != nil {
		t.Fatal(loaded.err)
	}
	return &loaded.tree
}

func (r *tree) read(root string) error {
	r.root, r.fset = root, token.NewFileSet()
	return filepath.WalkDir(root, func(full string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, full)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		if d.IsDir() {
			if slices.Contains([]string{".git", ".weir", "bin", "node_modules", "__pycache__"}, d.Name()) {
				return filepath.SkipDir
			}
			r.dirs = append(r.dirs, name)
			return nil
		}
		r.files = append(r.files, name)
		if path.Ext(name) != ".go" || strings.Contains(name, "testdata/") {
			return nil
		}
		return r.parse(full, name)
	})
}

func (r *tree) parse(full, name string) error {
	text, err := os.ReadFile(full)
	if err != nil {
		return err
	}
	file, err := parser.ParseFile(r.fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	s := &source{path: name, pkg: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), text: text, ast: file}
	for _, i := range file.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return err
		}
		s.imports = append(s.imports, p)
	}
	r.code = append(r.code, s)
	return nil
}

// packages returns the folders that hold Go files, tests alone included.
func (r *tree) packages() []string {
	var out []string
	for _, s := range r.code {
		out = append(out, s.pkg)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// lines returns how many lines a node spans.
func (r *tree) lines(n ast.Node) int {
	return r.fset.Position(n.End()).Line - r.fset.Position(n.Pos()).Line + 1
}

// read returns a file's contents.
func (r *tree) contents(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(r.root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
