// SPDX-License-Identifier: Apache-2.0

package kept_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/internal/kept"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/policy/budget"
	"github.com/weir-proxy/weir/policy/limit"
)

// codec leaves encryption out.
type codec struct{}

func (codec) SealConfiguration(c store.Rules) ([]byte, error) { return json.Marshal(c) }

func (codec) OpenConfiguration(b []byte) (c store.Rules, err error) {
	return c, json.Unmarshal(b, &c)
}

var noon = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

func file(t *testing.T, path string, key byte) *kept.File {
	t.Helper()
	f, err := kept.New(path, bytes.Repeat([]byte{key}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func ring(t *testing.T, keys ...policy.Key) *policy.Keyring {
	t.Helper()
	r := &policy.Keyring{}
	if err := r.Change(keys, nil); err != nil {
		t.Fatal(err)
	}
	return r
}

func write(t *testing.T, f *kept.File, at time.Time, c store.Rules, r *policy.Keyring) {
	t.Helper()
	if err := f.Write(at, c, r, codec{}); err != nil {
		t.Fatal(err)
	}
}

func TestStateIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "kept")
	if _, err := file(t, path, 1).Read(codec{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before anything is kept: %v", err)
	}
	c := store.Rules{
		Configuration: store.Configuration{Revision: 7, Tenants: []store.Tenant{{Tenant: policy.Tenant{ID: 1, Name: "acme"}}}},
		Terms: store.Terms{
			Budgets: []budget.Budget{{ID: 3, Key: 1, Tenant: 1, Amount: 5, Period: budget.Day}},
			Limits:  []limit.Limit{{ID: 4, Tenant: 1, Model: "*", Rates: limit.Rates{Requests: 60}}},
		},
	}
	r := ring(t, policy.Key{ID: 1, Tenant: 1, Hash: policy.HashKey("a"), Models: []string{"gpt-*"}}, policy.Key{ID: 2, Tenant: 1, Hash: policy.HashKey("b")})
	f := file(t, path, 1)
	write(t, f, noon, c, r)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
	check := func(at time.Time) {
		t.Helper()
		s, err := file(t, path, 1).Read(codec{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s.Rules, c); diff != "" || !s.Time.Equal(at) {
			t.Errorf("as of %s, want %s (-got +want):\n%s", s.Time, at, diff)
		}
		read := &policy.Keyring{}
		if err := read.Replace(s.Keys); err != nil || read.Len() != 2 || !read.Knows(1) || !read.Knows(2) {
			t.Errorf("%d keys, %v", read.Len(), err)
		}
	}
	check(noon)
	for i := range 3 { // in one process, and by one that has read it
		later := noon.Add(time.Duration(i+1) * time.Hour)
		if err := f.Confirm(later); err != nil {
			t.Fatal(err)
		}
		check(later)
		f = file(t, path, 1)
		if _, err := f.Read(codec{}); err != nil {
			t.Fatal(err)
		}
	}
	c.Revision = 8
	write(t, f, noon.Add(time.Minute), c, r) // what was confirmed of another file says nothing of this one
	check(noon.Add(time.Minute))
	if left, err := filepath.Glob(path + ".new-*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestStateThatWasTouchedIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "kept")
	f := file(t, path, 1)
	write(t, f, noon, store.Rules{Configuration: store.Configuration{Revision: 1}}, ring(t, policy.Key{ID: 1, Hash: policy.HashKey("a")}))
	if err := f.Confirm(noon.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file(t, path, 2).Read(codec{}); !errors.Is(err, kept.ErrUnusable) || !strings.Contains(err.Error(), "secret_key") {
		t.Errorf("under another key: %v", err)
	}
	refused := func(what string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := file(t, path, 1).Read(codec{}); !errors.Is(err, kept.ErrUnusable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range whole {
		refused(fmt.Sprintf("%d bytes", i), whole[:i])
		b := bytes.Clone(whole)
		b[i] ^= 1
		refused(fmt.Sprintf("byte %d altered", i), b)
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	seen, err := os.ReadFile(path + ".seen")
	if err != nil {
		t.Fatal(err)
	}
	for i := range seen { // the time that it claims cannot be moved
		b := bytes.Clone(seen)
		b[i] ^= 1
		if err := os.WriteFile(path+".seen", b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := file(t, path, 1).Read(codec{})
		if err != nil || !s.Time.Equal(noon) {
			t.Fatalf("byte %d of the confirmation altered: as of %s, %v", i, s.Time, err)
		}
	}
}

func TestStateStaysWhenTheNextCannotBeWritten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "kept")
	f := file(t, path, 1)
	write(t, f, noon, store.Rules{Configuration: store.Configuration{Revision: 1}}, ring(t))
	if err := f.Write(noon, store.Rules{Configuration: store.Configuration{Revision: 2}}, ring(t), broken{}); err == nil {
		t.Fatal("no error")
	}
	s, err := file(t, path, 1).Read(codec{})
	if err != nil || s.Rules.Revision != 1 {
		t.Errorf("revision %d, %v", s.Rules.Revision, err)
	}
	if err := file(t, filepath.Join(path, "no", "folder"), 1).Write(noon, store.Rules{}, ring(t), codec{}); err == nil {
		t.Error("written where no folder is")
	}
}

type broken struct{ codec }

func (broken) SealConfiguration(store.Rules) ([]byte, error) {
	return nil, errors.New("no cipher")
}

// source has one module until it is away.
type source struct {
	wasm  []byte
	away  bool
	asked int
}

func (s *source) Wasm(context.Context, store.Digest) ([]byte, error) {
	s.asked++
	if s.away {
		return nil, errors.New("away")
	}
	return s.wasm, nil
}

func (*source) RollBack(context.Context, store.RollBack) (store.Attachment, bool, error) {
	return store.Attachment{}, false, nil
}

func TestModulesOutliveTheirSource(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "modules")
	from := &source{wasm: []byte("\x00asm")}
	m, err := kept.NewModules(from, dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	d := store.DigestOf(from.wasm)
	read := func() error {
		b, err := m.Wasm(t.Context(), d)
		if err == nil && !bytes.Equal(b, from.wasm) {
			err = fmt.Errorf("read %q", b)
		}
		return err
	}
	for range 2 {
		if err := read(); err != nil {
			t.Fatal(err)
		}
		from.away = true
	}
	if from.asked != 1 {
		t.Errorf("asked %d times", from.asked)
	}
	path := filepath.Join(dir, d.String()+".wasm")
	if err := os.WriteFile(path, []byte("\x00asm evil"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := read(); err == nil {
		t.Error("a module that was altered is used")
	}
	from.away = false
	if err := read(); err != nil {
		t.Error(err)
	}
	if err := m.Prune([]store.Attachment{{Digest: d}}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("a module that is used is gone: %v", err)
	}
	if err := m.Prune(nil); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a module that nobody uses is there: %v", err)
	}
}
