// SPDX-License-Identifier: Apache-2.0

package kept

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/weir-proxy/weir/internal/store"
)

// Source has the modules of plugins; *store.Store is one.
type Source interface {
	Wasm(ctx context.Context, d store.Digest) ([]byte, error)
	RollBack(ctx context.Context, r store.RollBack) (a store.Attachment, done bool, err error)
}

// Modules are the modules of plugins, read from a folder, and from their source when they are not there. A module is known by its digest, so that one that was
// altered is as good as missing.
type Modules struct {
	Source
	dir string
	log *slog.Logger
}

const moduleExt = ".wasm"

// NewModules makes the folder if need be.
func NewModules(source Source, dir string, log *slog.Logger) (*Modules, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	return &Modules{Source: source, dir: dir, log: log}, nil
}

func (m *Modules) path(d store.Digest) string { return filepath.Join(m.dir, d.String()+moduleExt) }

// Wasm returns a module.
func (m *Modules) Wasm(ctx context.Context, d store.Digest) ([]byte, error) {
	if b, err := os.ReadFile(m.path(d)); err == nil && store.DigestOf(b) == d {
		return b, nil
	}
	b, err := m.Source.Wasm(ctx, d)
	if err != nil {
		return nil, err
	}
	err = replace(m.path(d), func(w io.Writer) error { _, err := w.Write(b); return err })
	if err != nil { // it is read from the source again
		m.log.WarnContext(ctx, "a module of a plugin could not be kept", "err", err)
	}
	return b, nil
}

// Prune removes the modules that no attachment uses.
func (m *Modules) Prune(attachments []store.Attachment) error {
	used := make(map[string]bool)
	for _, a := range attachments {
		used[a.Digest.String()+moduleExt] = true
	}
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return fmt.Errorf("list modules: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), moduleExt) && !used[e.Name()] {
			if err := os.Remove(filepath.Join(m.dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, fmt.Errorf("remove module: %w", err))
			}
		}
	}
	return errors.Join(errs...)
}
