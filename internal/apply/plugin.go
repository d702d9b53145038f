// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/weir-proxy/weir/internal/admin"
)

// plugin is a module, which is pushed if it is not the latest version of that name.
type plugin struct {
	Name   string `yaml:"name"`
	Tenant string `yaml:"tenant"` // that it belongs to; none: the operator's own
	Source string `yaml:"source"` // as weir plugin push takes it

	get    func(source string) ([]byte, error)
	wasm   []byte // once it was needed
	digest string
}

// digests are those of the plugins that files declare, by name: where they are attached, that version is meant. Plugins may be declared after their attachments.
type digests map[string]string

// Ident implements [Thing].
func (p *plugin) Ident() string { return p.Name }

// Resolve implements [Thing]. A source that says its SHA-256 is not read unless it has to be pushed.
func (p *plugin) Resolve(env Environment) error {
	if p.Source == "" {
		return errors.New("it needs a source: a file, https://…#sha256=…, or oci://…")
	}
	if p.get = env.Module; p.get == nil {
		return errors.New("modules cannot be read here")
	}
	_, p.digest, _ = strings.Cut(p.Source, "#sha256=")
	if !isDigest(p.digest) { // whoever gets it says what is wrong with it
		if err := p.load(); err != nil {
			return err
		}
	}
	env.digests[p.Name] = p.digest
	return nil
}

func (p *plugin) load() (err error) {
	if p.wasm != nil {
		return nil
	}
	if p.wasm, err = p.get(p.Source); err != nil {
		return fmt.Errorf("source: %w", err)
	}
	sum := sha256.Sum256(p.wasm)
	p.digest = hex.EncodeToString(sum[:])
	return nil
}

// isDigest reports whether a text is a SHA-256 as Weir writes it.
func isDigest(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size && strings.ToLower(s) == s
}

// Fields implements [Thing].
func (p *plugin) Fields() []Field { return []Field{{"tenant", p.Tenant}, {"version", p.digest}} }

// Put implements [Thing].
func (p *plugin) Put(ctx context.Context, c *admin.Client, _ *Existing) error {
	if err := p.load(); err != nil {
		return err
	}
	pushed, err := c.PushPlugin(ctx, p.Name, p.Tenant, p.wasm)
	switch {
	case err != nil:
		return err
	case p.Tenant == "" && pushed.Tenant != nil:
		return fmt.Errorf("plugin %s belongs to the tenant %s; delete it first to make it the operator's", p.Name, *pushed.Tenant)
	}
	return nil
}

func listPlugins(ctx context.Context, c *admin.Client) ([]Existing, error) {
	all, err := c.Plugins(ctx)
	var out []Existing
	for _, is := range all {
		ref := strconv.FormatInt(is.ID, 10)
		as := plugin{Name: is.Name}
		if is.Tenant != nil {
			as.Tenant = *is.Tenant
		}
		if len(is.Versions) > 0 {
			as.digest = is.Versions[0].Digest
		}
		out = append(out, Existing{
			Ident: is.Name, Ref: ref, Fields: as.Fields(),
			Delete: func(ctx context.Context) error { return c.DeletePlugin(ctx, ref) },
		})
	}
	return out, err
}
