// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/weir-proxy/weir/policy"
)

const (
	pollInterval = 500 * time.Millisecond // a revoked key must stop working within a second, LISTEN or not
	pollTimeout  = 5 * time.Second        // for one look at the revision
	loadTimeout  = 60 * time.Second       // for reading the whole configuration
	maxSilence   = time.Hour              // a reader that was stopped for longer reads all: deleted keys are not remembered for ever
	maxBackoff   = 2 * time.Second        // bounds how long a database that is back goes unnoticed
	keepalive    = 30 * time.Second       // a silent listener asks its connection whether it lives
)

// Following is what [Store.Watch] keeps at what the database says.
type Following struct {
	// Keys gets all keys at the start, and then those that change.
	Keys *policy.Keyring

	// Terms puts a change of budgets and limits in force: all of them at the start, before the keys and the first configuration, and then those that
	// change, in the turn of Apply. May be nil. An error means that nothing of it is in force, and is to be tried again.
	Terms func(TermsChange) error

	// Apply puts a configuration in force, at the start and after each change, never twice at once. Changes that come fast may be seen as one. An error
	// means that it is not in force, and is to be tried again.
	Apply func(Configuration) error

	// Hint has the database looked at soon. May be nil.
	Hint <-chan struct{}

	// Seen, if it is not nil, hears of each look at the database after which both are up to date.
	Seen func(Look)

	// Failed, if it is not nil, hears of each look after which something is not up to date, and why.
	Failed func(error)
}

// Look is a look at the database that found everything in force, or has put it in force.
type Look struct {
	Time        time.Time // when it began; what was committed before is in force
	Transaction int64     // see [Store.Transaction]
	Changed     bool      // something is other than before
}

// Watch keeps keys and configuration at what the database says. It learns of changes within half a second by asking, sooner by LISTEN, which it does not rely on.
// The configuration is asked for by its revision, and read whole; keys, budgets and limits are asked for by the transactions that have not been seen, and only those that
// changed are read.
//
// While the database is away, or Apply returns an error, Watch logs that once, tries again with a growing pause, and what was read last
// stays in force. After an outage it applies what it finds, even under the same revision: the database may have
// been restored from a backup. Watch returns only when ctx ends, with the error of ctx.
func (s *Store) Watch(ctx context.Context, f Following) error {
	changed := make(chan struct{}, 1)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.listen(ctx, changed) })
	g.Go(func() error {
		w := watcher{store: s, following: f}
		return w.run(ctx, changed)
	})
	return g.Wait()
}

type watcher struct {
	store     *Store
	following Following
	current   int64       // the revision that was applied last; zero means that the next look applies whatever it finds
	keys      keyPosition // empty means that the next look reads all keys
	looked    time.Time   // when the keys were read last
}

func (w *watcher) run(ctx context.Context, changed <-chan struct{}) error {
	r := retry{log: w.store.log, first: pollInterval, failed: "configuration is stale: cannot read or apply it", mended: "configuration is up to date again"}
	for {
		err := w.look(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			w.current, w.keys = 0, ""
			if w.following.Failed != nil {
				w.following.Failed(err)
			}
		}
		// A hint does not cut the pause after an error short, or a storm of changes would be a storm of errors.
		hint, own := changed, w.following.Hint
		if err != nil {
			hint, own = nil, nil
		}
		timer := time.NewTimer(r.pause(ctx, err))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-hint:
		case <-own:
		}
		timer.Stop()
	}
}

// look puts in force what has changed since the last look. Keys that are known already come first, since one may be revoked; keys that are new come after
// the configuration and the terms, so that none is in force before the policies of its tenant, or without its budget. Terms come after the configuration, which has
// the tenants of new ones.
func (w *watcher) look(ctx context.Context) error {
	look := Look{Time: time.Now()}
	if w.looked.IsZero() || look.Time.Sub(w.looked) > maxSilence || w.keys == "" {
		return w.lookAtAll(ctx, look)
	}
	poll, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	c, err := w.store.pollKeys(poll, w.keys)
	if err != nil {
		return err
	}
	if c.all || c.revision < w.current {
		w.current = 0
		return w.lookAtAll(ctx, look)
	}
	look.Changed = c.revision != w.current || len(c.changed)+len(c.gone) > 0 || !c.terms.Empty()
	known, fresh := w.split(c.changed)
	if err := w.following.Keys.Change(known, c.gone); err != nil {
		return fmt.Errorf("apply keys: %w", err)
	}
	if err := w.configure(ctx, c.revision); err != nil {
		return err
	}
	if err := w.hold(c.terms); err != nil {
		return err
	}
	if err := w.following.Keys.Change(fresh, nil); err != nil {
		return fmt.Errorf("apply keys: %w", err)
	}
	w.done(look, c.at)
	return nil
}

// split tells the keys that are in the keyring from those that are new.
func (w *watcher) split(keys []policy.Key) (known, fresh []policy.Key) {
	for i := range keys {
		if w.following.Keys.Knows(keys[i].ID) {
			known = append(known, keys[i])
		} else {
			fresh = append(fresh, keys[i])
		}
	}
	return known, fresh
}

// hold puts terms in force.
func (w *watcher) hold(c TermsChange) error {
	if c.Empty() || w.following.Terms == nil {
		return nil
	}
	if err := w.following.Terms(c); err != nil {
		return fmt.Errorf("apply budgets and limits: %w", err)
	}
	return nil
}

// lookAtAll reads all keys, and the configuration if need be.
func (w *watcher) lookAtAll(ctx context.Context, look Look) error {
	load, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	keys, terms, at, err := w.store.loadKeys(load)
	if err != nil {
		return err
	}
	n, err := revision(load, w.store.pool)
	if err != nil {
		return fmt.Errorf("read revision: %w", err)
	}
	// A key that was revoked must not wait for the configuration, and the first configuration must find the keys there, and these their budgets.
	if err := w.hold(terms); err != nil {
		return err
	}
	if err := w.following.Keys.Replace(keys); err != nil {
		return fmt.Errorf("apply keys: %w", err)
	}
	if err := w.configure(ctx, n); err != nil {
		return err
	}
	look.Changed = true
	w.done(look, at)
	return nil
}

func (w *watcher) done(look Look, at keyPosition) {
	w.keys, w.looked = at, look.Time
	look.Transaction, _ = at.bounds()
	if w.following.Seen != nil {
		w.following.Seen(look)
	}
}

// configure applies the configuration if its revision is another than the current one.
func (w *watcher) configure(ctx context.Context, revision int64) error {
	if revision == w.current {
		return nil
	}
	load, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	c, err := w.store.Configuration(load)
	if err != nil {
		return err
	}
	if err := w.following.Apply(c); err != nil {
		return fmt.Errorf("apply revision %d: %w", c.Revision, err)
	}
	w.current = c.Revision
	return nil
}

// listen turns notifications into hints on changed until ctx ends.
func (s *Store) listen(ctx context.Context, changed chan<- struct{}) error {
	r := retry{log: s.log, first: pollInterval, failed: "cannot listen for changes of the configuration; polling goes on", mended: "listening for changes of the configuration again"}
	for {
		err := s.listenOnce(ctx, changed, func() { r.pause(ctx, nil) })
		if ctx.Err() != nil {
			return ctx.Err()
		}
		timer := time.NewTimer(r.pause(ctx, err))
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// listenOnce listens on a connection of its own until that fails.
func (s *Store) listenOnce(ctx context.Context, changed chan<- struct{}, listening func()) error {
	config := s.pool.Config().ConnConfig
	config.RuntimeParams["application_name"] = "weir-listen"
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing hangs on it
	if _, err := conn.Exec(ctx, `listen weir_config`); err != nil {
		return err
	}
	listening()
	for {
		select {
		case changed <- struct{}{}: // also at the start: what came before the LISTEN was not heard
		default:
		}
		if err := waitForNotification(ctx, conn); err != nil {
			return err
		}
	}
}

// waitForNotification returns nil when there is a notification, and when a long silence turns out to be just that.
func waitForNotification(ctx context.Context, conn *pgx.Conn) error {
	quiet, cancel := context.WithTimeout(ctx, keepalive)
	defer cancel()
	_, err := conn.WaitForNotification(quiet)
	if err == nil || ctx.Err() != nil || quiet.Err() == nil {
		return err
	}
	ping, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	return conn.Ping(ping)
}

// retry spaces attempts and logs when they begin to fail and when they succeed again.
type retry struct {
	log            *slog.Logger
	first          time.Duration // the pause after success, and the first one after an error
	failed, mended string
	failures       int
}

// pause notes the outcome of an attempt and returns how long to wait before the next.
func (r *retry) pause(ctx context.Context, err error) time.Duration {
	if err == nil {
		if r.failures > 0 {
			r.log.LogAttrs(ctx, slog.LevelInfo, r.mended, slog.Int("attempts", r.failures)) //nolint:sloglint // one of two constants
		}
		r.failures = 0
		return r.first
	}
	if r.failures == 0 && ctx.Err() == nil {
		r.log.LogAttrs(ctx, slog.LevelWarn, r.failed, slog.Any("err", err)) //nolint:sloglint // one of two constants
	}
	r.failures++
	pause := min(r.first<<min(r.failures-1, 8), maxBackoff)
	return pause/2 + rand.N(pause/2) //nolint:gosec // jitter: replicas must not come back in step
}
