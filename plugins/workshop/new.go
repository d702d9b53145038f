// SPDX-License-Identifier: Apache-2.0

package workshop

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/weir-proxy/weir/plugins/sdk"
)

// templates are what a new plugin begins with. NAME stands for its name; a file's name has .tmpl where a compiler would take it for ours.
//
//go:embed all:template
var templates embed.FS

// Language is what a plugin is written in.
type Language string

// Languages.
const (
	Go             Language = "go"
	Rust           Language = "rust"
	AssemblyScript Language = "assemblyscript"
)

var nameForm = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

// ErrName is that a name is not fit for a plugin.
var ErrName = errors.New("a plugin's name is of a-z, 0-9 and hyphens, and begins with a letter")

// New writes a new plugin into a folder that does not exist yet, or is empty.
func New(dir, name string, l Language) error {
	if !nameForm.MatchString(name) || len(name) > 64 {
		return fmt.Errorf("%q: %w", name, ErrName)
	}
	if l != Go && l != Rust && l != AssemblyScript {
		return fmt.Errorf("there is no SDK for %q, but for go, rust and assemblyscript", l)
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("begin a plugin: %w", err)
	}
	for _, from := range []string{path.Join("template", "both"), path.Join("template", string(l))} {
		sub, err := fs.Sub(templates, from)
		if err != nil {
			return fmt.Errorf("begin a plugin: %w", err)
		}
		if err := spread(sub, dir, strings.NewReplacer("NAME", name)); err != nil {
			return fmt.Errorf("begin a plugin: %w", err)
		}
	}
	sources, err := fs.Sub(sdk.Sources, string(l))
	if err == nil {
		err = spread(sources, filepath.Join(dir, "weir"), strings.NewReplacer())
	}
	if err != nil {
		return fmt.Errorf("begin a plugin: copy the SDK: %w", err)
	}
	return nil
}

// spread writes files into a folder.
func spread(from fs.FS, dir string, words *strings.Replacer) error {
	return fs.WalkDir(from, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(name, "_test.go") {
			return err
		}
		b, err := fs.ReadFile(from, name)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, filepath.FromSlash(strings.TrimSuffix(name, ".tmpl")))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.WriteFile(to, []byte(words.Replace(string(b))), 0o644)
	})
}
