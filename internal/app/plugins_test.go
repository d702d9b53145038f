// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/config"
	"github.com/weir-proxy/weir/internal/loader"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/plugins/wasmtest"
	"github.com/weir-proxy/weir/policy"
)

// modules is a store that has one module, and cannot read the rest.
type modules struct{ wasm []byte }

func (m modules) Wasm(_ context.Context, d store.Digest) ([]byte, error) {
	if d == store.DigestOf(m.wasm) {
		return m.wasm, nil
	}
	return nil, errors.New("a secret reason")
}

func (modules) RollBack(context.Context, store.RollBack) (store.Attachment, bool, error) {
	return store.Attachment{}, false, errors.New("not here")
}

func TestReadinessSaysWhichAttachmentsAreNotInForce(t *testing.T) {
	h, err := host.New(t.Context(), host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := modules{wasmtest.Guest{Request: []byte{}}.Wasm()}
	p := &processor{
		cfg: config.Default(), log: slog.New(slog.DiscardHandler), engine: policy.New(policy.Options{}),
		plugins: loader.New(loader.Options{Host: h, Modules: m, Registerer: prometheus.NewRegistry()}),
	}
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return p.plugins.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		_ = g.Wait() // it was told to end
		if err := p.plugins.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	in := func(id store.AttachmentID, d store.Digest, mode store.PluginMode) store.Attachment {
		return store.Attachment{ID: id, Plugin: "p", Digest: d, PluginSettings: store.PluginSettings{Mode: mode}}
	}
	good, gone := store.DigestOf(m.wasm), store.Digest{1}
	// An engine without a snapshot makes attach wait until everything is loaded, or known not to.
	if err := p.attach(ctx, store.Configuration{Revision: 1, Attachments: []store.Attachment{in(1, good, store.PluginClosed)}}); err != nil {
		t.Fatal(err)
	}
	if c := p.pluginState(); c.Verdict != admin.OK {
		t.Errorf("all is well: %+v", c)
	}
	err = p.attach(ctx, store.Configuration{Revision: 2, Attachments: []store.Attachment{
		in(1, gone, store.PluginClosed), in(2, gone, store.PluginClosed), in(3, gone, store.PluginClosed), in(4, gone, store.PluginShadow),
	}})
	if err != nil {
		t.Fatal(err)
	}
	c := p.pluginState()
	want := "attachments 2, 3 cannot be loaded, and their exchanges are denied; attachments 1 cannot be read, and an earlier version judges; " +
		"attachments 4 cannot be loaded, and are left out"
	if c.Verdict != admin.Warn || c.Detail != want || c.Hint == "" || strings.Contains(c.Detail, "secret") {
		t.Errorf("got %+v, want %q", c, want)
	}
}
