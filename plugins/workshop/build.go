// SPDX-License-Identifier: Apache-2.0

package workshop

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// BuildError is what a compiler said.
type BuildError struct {
	Command string
	Output  string
	Hint    string // what to try; may be empty
	err     error
}

// Error implements error.
func (e *BuildError) Error() string {
	s := e.Command + ": " + e.err.Error()
	if out := strings.TrimSpace(e.Output); out != "" {
		s += "\n" + out
	}
	return s
}

// Unwrap returns how the command ended.
func (e *BuildError) Unwrap() error { return e.err }

// ErrNoSources is that a folder has nothing to build.
var ErrNoSources = errors.New("there are neither Go files nor a Cargo.toml nor an asconfig.json")

// Build compiles the plugin in a folder into a file. about.json and schema.json, if they are there, become custom sections. Compilers fetch what they lack as they
// always do.
func Build(ctx context.Context, dir, out string) error {
	temp, err := os.MkdirTemp("", "weir-plugin-")
	if err != nil {
		return fmt.Errorf("build a plugin: %w", err)
	}
	defer func() { _ = os.RemoveAll(temp) }() // of no use to anybody, whatever happens
	var module string
	switch language(dir) {
	case Go:
		module, err = buildGo(ctx, dir, temp)
	case Rust:
		module, err = buildRust(ctx, dir)
	case AssemblyScript:
		module, err = buildAssemblyScript(ctx, dir, temp)
	default:
		return fmt.Errorf("build %s: %w", dir, ErrNoSources)
	}
	if err != nil {
		return fmt.Errorf("build %s: %w", dir, err)
	}
	wasm, err := os.ReadFile(module)
	if err != nil {
		return fmt.Errorf("build %s: %w", dir, err)
	}
	for _, name := range []string{"about", "schema"} {
		if wasm, err = addSection(wasm, "weir."+name, filepath.Join(dir, name+".json")); err != nil {
			return fmt.Errorf("build %s: %w", dir, err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return fmt.Errorf("build %s: %w", dir, err)
	}
	if err := os.WriteFile(out, wasm, 0o644); err != nil {
		return fmt.Errorf("build %s: %w", dir, err)
	}
	return nil
}

// language tells what the plugin in a folder is written in; empty if there is none.
func language(dir string) Language {
	if _, err := os.Stat(filepath.Join(dir, "Cargo.toml")); err == nil {
		return Rust
	}
	if _, err := os.Stat(filepath.Join(dir, "asconfig.json")); err == nil {
		return AssemblyScript
	}
	if files, err := filepath.Glob(filepath.Join(dir, "*.go")); err == nil && len(files) > 0 {
		return Go
	}
	return ""
}

// addSection appends a file to a module as a custom section.
func addSection(wasm []byte, name, file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return wasm, nil
	}
	if err != nil {
		return nil, err
	}
	var small bytes.Buffer
	if err := json.Compact(&small, text); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	payload := append(binary.AppendUvarint(nil, uint64(len(name))), name...)
	payload = append(payload, small.Bytes()...)
	const custom = 0
	wasm = binary.AppendUvarint(append(wasm, custom), uint64(len(payload)))
	return append(wasm, payload...), nil
}

func buildGo(ctx context.Context, dir, temp string) (string, error) {
	module := filepath.Join(temp, "plugin.wasm")
	c := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-trimpath", "-buildmode=c-shared", "-ldflags=-s -w", "-o", module, ".")
	c.Dir, c.Env = dir, append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	return module, run(c, "install Go 1.24 or newer")
}

func buildRust(ctx context.Context, dir string) (string, error) {
	const target = "wasm32-unknown-unknown"
	shelf := filepath.Join(dir, "target")
	c := exec.CommandContext(ctx, "cargo", "build", "--quiet", "--release", "--target", target, "--target-dir", "target", "--message-format", "json-render-diagnostics")
	c.Dir = dir
	var said bytes.Buffer
	c.Stdout = &said
	if err := run(c, "install Rust, and the target with: rustup target add "+target); err != nil {
		return "", err
	}
	var module string
	for line := range bytes.Lines(said.Bytes()) {
		var m struct {
			Filenames []string `json:"filenames"`
		}
		if json.Unmarshal(line, &m) != nil {
			continue // what a build script prints
		}
		for _, f := range m.Filenames {
			if strings.HasSuffix(f, ".wasm") {
				module = f
			}
		}
	}
	if module == "" {
		return "", fmt.Errorf("cargo made no module in %s: the library needs crate-type = [\"cdylib\"]", shelf)
	}
	return module, nil
}

// assemblyScript is the compiler, as npm names it: one version, since the language still changes.
const assemblyScript = "assemblyscript@0.28.20"

func buildAssemblyScript(ctx context.Context, dir, temp string) (string, error) {
	module := filepath.Join(temp, "plugin.wasm")
	c := exec.CommandContext(ctx, "npx", "--yes", "--prefer-offline", "--package="+assemblyScript, "asc", "--config", "asconfig.json", "--outFile", module)
	c.Dir = dir
	return module, run(c, "install Node.js, which brings npx")
}

// run runs a compiler; where it is missing, or fails, the error has its words.
func run(c *exec.Cmd, hint string) error {
	var out bytes.Buffer
	c.Stderr = &out
	if c.Stdout == nil {
		c.Stdout = &out
	}
	err := c.Run()
	if err == nil {
		return nil
	}
	e := &BuildError{Command: strings.Join(c.Args[:2], " "), Output: out.String(), err: err}
	if errors.Is(err, exec.ErrNotFound) || strings.Contains(e.Output, "may not be installed") {
		e.Hint = hint
	}
	return e
}
