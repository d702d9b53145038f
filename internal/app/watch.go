// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/internal/telemetry"
	"github.com/weir-proxy/weir/policy"
)

// seen is what the configuration in force holds, as far as a request needs it.
type seen struct{ revision, keys, channels atomic.Int64 }

// register exposes the numbers as metrics.
func (s *seen) register(r prometheus.Registerer) {
	for _, m := range []struct {
		name, help string
		value      *atomic.Int64
	}{
		{"weir_configuration_revision", "Revision of the configuration that is in force.", &s.revision},
		{"weir_configuration_keys", "Keys in the configuration that is in force.", &s.keys},
		{"weir_configuration_channels", "Channels in the configuration that is in force.", &s.channels},
	} {
		promauto.With(r).NewGaugeFunc(prometheus.GaugeOpts{Name: m.name, Help: m.help}, func() float64 { return float64(m.value.Load()) })
	}
}

// watch keeps the engine and Envoy at what the database says.
func (p *processor) watch(ctx context.Context) error {
	return p.store.Watch(ctx, store.Following{
		Keys:   p.state.keys,
		Terms:  p.hold,
		Apply:  func(c store.Configuration) error { return p.apply(ctx, c) },
		Hint:   p.state.hint,
		Seen:   p.seenBy,
		Failed: func(err error) { p.state.trouble.Store(&err) },
	})
}

// apply puts a configuration in force. New clusters are published before the engine may name them, and Envoy learns of a channel's
// end after the engine has stopped naming it, so that no decision names a cluster that Envoy was never told of.
func (p *processor) apply(ctx context.Context, c store.Configuration) error {
	snapshot, err := policy.NewSnapshot(snapshotData(c, p.state.keys))
	if err != nil {
		return fmt.Errorf("revision %d: %w", c.Revision, err)
	}
	var channels []envoy.Channel
	for _, ch := range c.Channels {
		channels = append(channels, envoyChannel(ch))
	}
	p.books.telemetry.SetChannels(toldChannels(channels))
	if err := p.xds.Set(ctx, channels); err != nil {
		p.log.Error("a channel cannot be used", "err", err) // the others are published all the same
	}
	if err := p.price(ctx, c); err != nil {
		return err
	}
	if err := p.attach(ctx, c); err != nil {
		return err
	}
	if err := p.books.budgets.setTenants(c.Tenants); err != nil {
		return fmt.Errorf("revision %d: %w", c.Revision, err)
	}
	p.engine.SetSnapshot(snapshot)
	p.life.conclude()
	p.state.mu.Lock()
	p.state.configuration = &c
	p.state.mu.Unlock()
	p.state.seen.revision.Store(c.Revision)
	p.state.seen.keys.Store(int64(p.state.keys.Len()))
	p.state.seen.channels.Store(int64(len(c.Channels)))
	p.log.Info("configuration in force", "revision", c.Revision, "tenants", len(c.Tenants), "keys", p.state.keys.Len(), "channels", len(c.Channels),
		"attachments", len(c.Attachments), "price_version", c.Prices.ID)
	return nil
}

// toldChannels are channels as telemetry tells of them.
func toldChannels(channels []envoy.Channel) []telemetry.Channel {
	var out []telemetry.Channel
	for _, c := range channels {
		out = append(out, telemetry.Channel{ID: c.ID, Name: c.Name, Dialect: string(c.Dialect), BaseURL: c.BaseURL})
	}
	return out
}

func snapshotData(c store.Configuration, keys *policy.Keyring) policy.SnapshotData {
	d := policy.SnapshotData{Keyring: keys}
	for _, t := range c.Tenants {
		d.Tenants = append(d.Tenants, t.Tenant)
	}
	for _, ch := range c.Channels {
		d.Channels = append(d.Channels, ch.Channel)
	}
	return d
}

func envoyChannel(c store.Channel) envoy.Channel {
	out := envoy.Channel{
		ID: c.ID, Name: c.Name, Dialect: envoy.Dialect(c.Provider), BaseURL: c.BaseURL, Credential: c.Credential.Reveal(),
	}
	for _, m := range c.Models {
		out.Renames = out.Renames || m.Upstream != "" && m.Upstream != m.Name
	}
	return out
}

// ready says what a request needs, and whether it is there.
func (p *processor) ready(ctx context.Context) []admin.Check {
	checks := []admin.Check{
		p.databaseCheck(ctx),
		p.configurationCheck(),
		check("envoy", p.envoyState(ctx), "serves"+p.taps(), "start Envoy with: weir envoy --config weir.yaml"),
		check("usage log", nilUnless(p.spool.Denial() != nil, "has no room; requests are refused"), "has room",
			"see the metrics weir_usage_log_free_bytes and weir_usage_unshipped_bytes, and the journal of the processor"),
		p.pluginState(),
	}
	if p.cfg.Dev {
		checks = append(checks,
			check("key", nilUnless(p.state.seen.keys.Load() == 0, "there is no key"), "there are some", "make one with: weir key create"),
			check("channel", nilUnless(p.state.seen.channels.Load() == 0, "there is no channel"), "there are some", "add one with: weir channel add"),
		)
	}
	return checks
}

// configurationCheck says why there is no configuration, as long as there is none: of what comes after the first, the log tells.
func (p *processor) configurationCheck() admin.Check {
	err, hint := nilUnless(!p.engine.Ready(), "not read from the database yet"), "wait, or see the database check"
	if trouble := p.state.trouble.Load(); err != nil && trouble != nil {
		err = fmt.Errorf("cannot be put in force: %w", *trouble)
		if errors.Is(err, store.ErrSecretKey) {
			hint = "start weir serve with the WEIR_SECRET_KEY that the credentials were stored under"
		}
	}
	return check("configuration", err, fmt.Sprintf("revision %d is in force", p.state.seen.revision.Load()), hint)
}

// databaseCheck finds no more than a degraded gateway where the database is away but a configuration is in force: requests are served by it, and
// their usage waits in the log. Were it a failure, a load balancer would take every gateway out at once for an outage that no client notices.
func (p *processor) databaseCheck(ctx context.Context) admin.Check {
	c := check("database", p.databaseState(ctx), "answers", "see that Postgres runs and that DATABASE_URL is right")
	if detail := p.stateDetail(); c.Verdict == admin.Fail && detail != "" {
		c.Detail += "; " + detail
		if !p.state.stale.Load() {
			c.Verdict = admin.Warn
			c.Detail += ", and usage waits in the log"
		}
	}
	return c
}

func (p *processor) envoyState(ctx context.Context) error {
	st := p.xds.Status()
	if st.Refusal != "" {
		return fmt.Errorf("refuses its configuration: %s", st.Refusal)
	}
	if len(st.Envoys) == 0 {
		return fmt.Errorf("none is connected to %s", p.cfg.Processor.Socket)
	}
	var errs []error
	for _, e := range st.Envoys {
		if e.AccessLog == envoy.AccessLogGRPC {
			return nil // on another machine, where its admin interface is out of reach; it is connected, and refuses nothing
		}
		err := envoy.Ready(ctx, p.adminOf(e))
		if err == nil {
			return nil // one that serves is enough
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// taps names what looks at responses in the Envoys that are connected.
func (p *processor) taps() string {
	seen := map[envoy.Tap]int{}
	for _, e := range p.xds.Status().Envoys {
		seen[e.Tap]++
	}
	var words []string
	for _, tap := range []envoy.Tap{envoy.TapNative, envoy.TapLua} {
		if seen[tap] > 0 {
			words = append(words, string(tap))
		}
	}
	if len(words) == 0 {
		return ""
	}
	return "; tap: " + strings.Join(words, ", ")
}

func nilUnless(bad bool, detail string) error {
	if bad {
		return errors.New(detail)
	}
	return nil
}

// check makes a finding of an error, or of its absence.
func check(name string, err error, good, hint string) admin.Check {
	if err != nil {
		return admin.Check{Name: name, Verdict: admin.Fail, Detail: err.Error(), Hint: hint}
	}
	return admin.Check{Name: name, Verdict: admin.OK, Detail: good}
}
