// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/policy"
)

// Provider is a fake provider that runs in the test's own process.
type Provider struct {
	*fake.Provider
	URL  string // with its base path, as a channel wants it
	Addr string
	Stop func()
}

// Provider starts a fake provider.
func (r *Rig) Provider(o fake.Options) *Provider {
	r.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	if o.Prefix == "" {
		o.Prefix = "/v1"
	}
	p := &Provider{Provider: fake.New(o), Addr: ln.Addr().String(), URL: "http://" + ln.Addr().String() + o.Prefix}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Serve(ctx, ln) }()
	stopped := false
	p.Stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("fake provider: %v", err)
		}
	}
	r.t.Cleanup(p.Stop)
	return p
}

// Models are what the channels of most tests serve.
func Models(names ...string) []policy.Model {
	var out []policy.Model
	for _, n := range names {
		asked, upstream, _ := strings.Cut(n, "=")
		out = append(out, policy.Model{Name: asked, Upstream: upstream})
	}
	return out
}

// Channel adds a channel to a fake provider. What n leaves out is filled in.
func (r *Rig) Channel(n store.NewChannel) store.Channel {
	r.t.Helper()
	if n.Provider == "" {
		n.Provider = "fake"
	}
	if n.Weight == 0 {
		n.Weight = 1
	}
	if n.Credential == "" {
		n.Credential = store.Secret("sk-" + n.Name)
	}
	if n.Models == nil {
		n.Models = Models("gpt-4o-mini", "gpt-4o", "o3-mini", "gpt-3.5-turbo-instruct", "text-embedding-3-small")
	}
	c, err := r.Store.CreateChannel(r.t.Context(), n)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// Key makes a key and returns its secret.
func (r *Rig) Key(n store.NewKey) (string, store.Key) {
	r.t.Helper()
	k, secret, err := r.Store.CreateKey(r.t.Context(), n)
	if err != nil {
		r.t.Fatal(err)
	}
	return secret.Reveal(), k
}

// Settle waits until the processor and Envoy work by what is in the database now.
func (r *Rig) Settle() {
	r.t.Helper()
	c, err := r.Store.Configuration(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	last, err := r.Store.Transaction(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	r.Eventually("the processor has the keys", func() error {
		n, err := r.Metric("weir_configuration_transaction")
		if err == nil && int64(n) < last {
			err = fmt.Errorf("transaction %v, want %d", n, last)
		}
		return err
	})
	r.Eventually("the processor has the configuration", func() error {
		n, err := r.Metric("weir_configuration_revision")
		if err == nil && int64(n) < c.Revision {
			err = fmt.Errorf("revision %v, want %d", n, c.Revision)
		}
		return err
	})
	r.Eventually("envoy has the channels", func() error {
		body, err := fetch("http://" + r.EnvoyAdmin + "/clusters")
		if err != nil {
			return err
		}
		for _, ch := range c.Channels {
			if !strings.Contains(body, "channel-"+strconv.FormatInt(int64(ch.ID), 10)+"::") {
				return fmt.Errorf("no cluster for %s", ch.Name)
			}
		}
		return nil
	})
}

// Metric returns the value of a metric of the processor, its labels written as Prometheus writes them.
func (r *Rig) Metric(name string) (float64, error) {
	body, err := fetch(r.AdminURL + "/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(body) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(rest), 64)
		}
	}
	return 0, fmt.Errorf("no metric %s", name)
}

// Stat returns a counter of Envoy.
func (r *Rig) Stat(name string) int {
	r.t.Helper()
	body, err := fetch("http://" + r.EnvoyAdmin + "/stats?filter=^" + name + "$")
	if err != nil {
		r.t.Fatal(err)
	}
	_, v, ok := strings.Cut(body, ": ")
	n, err := strconv.Atoi(strings.TrimSpace(v))
	if !ok || err != nil {
		r.t.Fatalf("statistic %s: %q", name, body)
	}
	return n
}

// Row waits for the row of an exchange.
func (r *Rig) Row(exchange string) store.UsageRow {
	r.t.Helper()
	id, err := uuid.Parse(exchange)
	if err != nil {
		r.t.Fatalf("exchange id: %v", err)
	}
	var row store.UsageRow
	r.Eventually("the row of "+exchange, func() error {
		rows, err := r.Store.Usage(r.t.Context(), store.UsageFilter{Exchange: id, Limit: 10})
		switch {
		case err != nil:
			return err
		case len(rows) == 0:
			return errors.New("no row")
		case len(rows) > 1:
			r.t.Fatalf("exchange %s has %d rows", exchange, len(rows))
		}
		row = rows[0]
		return nil
	})
	return row
}

// Rows waits until there are n rows and returns them.
func (r *Rig) Rows(n int) []store.UsageRow {
	r.t.Helper()
	var rows []store.UsageRow
	r.Eventually(strconv.Itoa(n)+" rows", func() (err error) {
		rows, err = r.Store.Usage(r.t.Context(), store.UsageFilter{Limit: 1000})
		if err == nil && len(rows) != n {
			err = fmt.Errorf("%d rows", len(rows))
		}
		return err
	})
	return rows
}

func fetch(url string) (string, error) {
	resp, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close() //nolint:errcheck // what was read is what counts
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return string(b), err
}
