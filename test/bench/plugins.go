// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/app"
	"github.com/weir-proxy/weir/internal/store"
)

// Sources of the plugins that are measured: the same guard in two languages, which looks for two words in all texts.
const (
	rustGuard  = "plugins/host/testdata/guard-rust.wasm"
	goGuard    = "./plugins/examples/guard-go"
	guardWords = "dragon\nunicorn"
)

// pluginCase is what judges each request.
type pluginCase struct {
	name  string
	title string
	chain []string // of names of plugins
}

func pluginCases() []pluginCase {
	return []pluginCase{
		{"plugins-none", "no plugin", nil},
		{"plugins-rust", "a decision in Rust", []string{"rust"}},
		{"plugins-go", "a decision in Go", []string{"go"}},
		{"plugins-five", "a chain of five in Rust", []string{"rust", "rust", "rust", "rust", "rust"}},
	}
}

// load is a case as a load: prompts of 4 KB.
func (c pluginCase) load(clients int) load {
	l := loads()[0]
	l.name, l.about, l.body = c.name, "JSON, 4 KB prompt, 1 KB answer, "+c.title, 4<<10
	if clients > 0 {
		l.users = clients
	}
	return l
}

// judged measures what plugins cost, each case in each round.
func (s *suite) judged(ctx context.Context, b *lab, g *gateway) error {
	c, err := admin.NewClient("http://"+s.site.address(portWeirAdmin), app.DevAdminToken)
	if err != nil {
		return err
	}
	if err := s.site.pushGuards(ctx, c); err != nil {
		return err
	}
	for round := range s.rounds {
		cases := pluginCases()
		for i := range cases {
			p := cases[(i+round)%len(cases)] // nobody is always the first
			if err := s.under(ctx, c, p.chain, func() error {
				return s.each(ctx, b, []*gateway{g}, s.plan(p.load(s.clients), closedLoop, round))
			}); err != nil {
				return err
			}
		}
	}
	if s.profile == "" {
		return nil
	}
	for _, p := range pluginCases() {
		if err := s.under(ctx, c, p.chain, func() error {
			return s.profileLoad(ctx, b, g, s.plan(p.load(s.clients), closedLoop, 0))
		}); err != nil {
			return err
		}
	}
	return nil
}

// under attaches plugins, works, and detaches them.
func (s *suite) under(ctx context.Context, c *admin.Client, chain []string, work func() error) (err error) {
	var attached []int64
	for place, name := range chain {
		a, err := c.Attach(ctx, admin.NewAttachment{Plugin: name, Place: place, Config: guardWords})
		if err != nil {
			return fmt.Errorf("attach the plugin %s: %w", name, err)
		}
		attached = append(attached, a.ID)
	}
	defer func() {
		for _, id := range attached {
			err = errors.Join(err, c.Detach(ctx, id))
		}
		err = errors.Join(err, s.site.inForce(ctx, 0))
	}()
	if err := s.site.inForce(ctx, len(attached)); err != nil {
		return err
	}
	return work()
}

// pushGuards builds and pushes the plugins.
func (s *site) pushGuards(ctx context.Context, c *admin.Client) error {
	file := s.path("guard-go.wasm")
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-trimpath", "-buildmode=c-shared", "-ldflags=-s -w", "-o", file, goGuard)
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the plugin in Go: %w\n%s", err, out)
	}
	for name, path := range map[string]string{"go": file, "rust": rustGuard} {
		wasm, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read the plugin (run this in the folder of the repository): %w", err)
		}
		if _, err := c.PushPlugin(ctx, name, "", wasm); err != nil {
			return fmt.Errorf("push the plugin %s: %w", name, err)
		}
	}
	return nil
}

// inForce waits until so many attachments judge.
func (s *site) inForce(ctx context.Context, n int) error {
	return await(ctx, "the plugins", func() error {
		got, err := s.metric(ctx, `weir_plugin_attachments{state="in_force"}`)
		if err == nil && got != float64(n) {
			err = fmt.Errorf("%v are in force, and %d are wanted", got, n)
		}
		return err
	})
}

// metric reads a metric of the processor.
func (s *site) metric(ctx context.Context, name string) (v float64, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address(portWeirAdmin)+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	r.Header.Set("Authorization", "Bearer "+store.Secret(app.DevAdminToken).Reveal())
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, fmt.Errorf("read metrics: %w", err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, fmt.Errorf("there is no metric %s", name)
}

// plugins prints what plugins cost.
func (r report) plugins() {
	if !r.withPlugins {
		return
	}
	none := r.runs(pluginCases()[0].name, closedLoop, weir)
	if len(none) == 0 {
		return
	}
	fmt.Fprintf(r.w, "\n### Plugins, JSON, 4 KB prompt, 1 KB answer, closed loop, %d clients, Weir alone\n\n", pluginCases()[0].load(r.clients).users)
	var t table
	t.add("judged by", "requests/s", "processor µs", "processor µs added", "both µs", "both µs added", "p99 ms")
	for _, c := range pluginCases() {
		ms := r.runs(c.name, closedLoop, weir)
		var processor, both []float64
		for _, m := range ms {
			for _, n := range none {
				if n.Round == m.Round {
					processor = append(processor, m.perRequest(m.CPU.Processor)-n.perRequest(n.CPU.Processor))
					both = append(both, m.gatewayCPU()-n.gatewayCPU())
				}
			}
		}
		t.add(c.title,
			column(ms, func(m measurement) float64 { return m.Rate }).ranged(),
			column(ms, func(m measurement) float64 { return m.perRequest(m.CPU.Processor) }).ranged(),
			over(processor).ranged(),
			column(ms, func(m measurement) float64 { return m.gatewayCPU() }).ranged(),
			over(both).ranged(),
			column(ms, func(m measurement) float64 { return milliseconds(m.P99) }).ranged())
	}
	t.write(r.w)
}
