// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/loader"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/internal/tokens"
	"github.com/weir-proxy/weir/plugins/chain"
	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/plugins/proxywasm"
	"github.com/weir-proxy/weir/policy"
)

// attachWait is how long a change of the configuration waits for plugins to be compiled. With what is loaded already it takes no time, so that a
// key does not come into force before the plugins of its tenant. Longer than this, and the revocation of a key would wait for a compiler: the exchanges
// of what must not fail are refused then, until it is compiled.
const attachWait = 250 * time.Millisecond

// newPlugins makes what keeps plugins loaded. It is not closed: the process ends, and a stream may be under way.
func (p *processor) newPlugins(ctx context.Context) (*loader.Loader, error) {
	c := p.cfg.Plugins
	if err := os.MkdirAll(c.CacheDir, 0o700); err != nil { // who writes there has machine code run
		return nil, fmt.Errorf("make folder: %w", err)
	}
	h, err := host.New(ctx, host.Options{CacheDir: c.CacheDir, Logger: p.log})
	if err != nil {
		return nil, fmt.Errorf("start the host of plugins: %w", err)
	}
	filters, err := proxywasm.New(ctx, h)
	if err != nil {
		return nil, fmt.Errorf("start the host of plugins: %w", err)
	}
	return loader.New(loader.Options{
		Host:       h,
		Filters:    filters,
		Modules:    p.state.modules,
		Limits:     host.Limits{Fuel: c.Limits.Fuel, MemoryBytes: c.Limits.MemoryBytes, Time: c.Limits.Time, Concurrency: c.Limits.Concurrency},
		Headers:    c.Headers,
		Chain:      chain.Options{Metrics: chain.NewMetrics(p.registry), Logger: p.log, Count: countTokens},
		Logger:     p.log,
		Registerer: p.registry,
	}), nil
}

// countTokens estimates the input of a request, for plugins that judge by its size.
func countTokens(op policy.Operation, model string, body []byte) int64 {
	kind := map[policy.Operation]tokens.Operation{
		policy.OpChat: tokens.Chat, policy.OpCompletions: tokens.Completions, policy.OpEmbeddings: tokens.Embeddings, policy.OpResponses: tokens.Responses,
	}[op]
	return tokens.Request{Operation: kind, Model: model, Body: body}.Count().Input
}

// attach puts the plugins of a configuration in force, or on their way. The first configuration waits for all of them: no exchange goes past a policy because
// the processor has just been started.
func (p *processor) attach(ctx context.Context, c store.Configuration) error {
	p.plugins.Want(c.Revision, c.Attachments)
	wait, cancel := ctx, context.CancelFunc(func() {})
	if p.engine.Ready() {
		wait, cancel = context.WithTimeout(ctx, attachWait)
	}
	defer cancel()
	switch err := p.plugins.Settled(wait); {
	case errors.Is(err, context.DeadlineExceeded):
		p.plugins.Insist()
	case err != nil:
		return fmt.Errorf("load plugins: %w", err)
	}
	return nil
}

// pluginState tells of attachments by their numbers: anybody may ask.
func (p *processor) pluginState() admin.Check {
	c := admin.Check{Name: "plugins", Verdict: admin.OK, Detail: "all that are attached are in force"}
	var denying, stale, out []string
	for _, problem := range p.plugins.Problems() {
		id := strconv.FormatInt(int64(problem.Attachment), 10)
		switch {
		case problem.Denies:
			denying = append(denying, id)
		case problem.Stale:
			stale = append(stale, id)
		default:
			out = append(out, id)
		}
	}
	var details []string
	for _, d := range []struct {
		ids  []string
		what string
	}{
		{denying, "cannot be loaded, and their exchanges are denied"},
		{stale, "cannot be read, and an earlier version judges"},
		{out, "cannot be loaded, and are left out"},
	} {
		if len(d.ids) > 0 {
			details = append(details, fmt.Sprintf("attachments %s %s", strings.Join(d.ids, ", "), d.what))
		}
	}
	if len(details) > 0 {
		c.Verdict, c.Detail = admin.Warn, strings.Join(details, "; ")
		c.Hint = "the log of weir serve has the causes; weir plugin show NAME shows what is attached"
	}
	return c
}
