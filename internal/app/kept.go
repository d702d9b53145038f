// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/weir-proxy/weir/internal/kept"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/policy"
)

// How the state is kept.
const (
	keepAfter   = 200 * time.Millisecond // changes come in groups
	keepPause   = 5 * time.Second        // between two writes, at least
	keepShare   = 50                     // writing takes this share of the time at most
	keepConfirm = time.Minute            // between two notes that nothing has changed
	staleTick   = time.Second
	// A state from the future is that of a clock which was set: nobody knows how old it is.
	clockSkew = 5 * time.Minute
)

// state is what requests are decided by: what the database said last, and when.
type state struct {
	keys    *policy.Keyring
	file    *kept.File
	modules *kept.Modules // of plugins

	mu            sync.Mutex
	configuration *store.Configuration // that is in force; nil: none
	confirmed     time.Time            // as of when the database has confirmed it last
	restored      bool                 // it is from the disk: the database has not been reached yet
	looked        chan struct{}        // closed at the next look that finds everything in force
	dirty         chan struct{}        // holds one: something is in force that is not kept
	hint          chan struct{}        // holds one: the database is to be looked at

	seen        seen                  // how much there is of it
	stale       atomic.Bool           // it is too old to decide by
	trouble     atomic.Pointer[error] // why the last look at the database put nothing in force; nil: it did
	transaction atomic.Int64
}

func (p *processor) newState() error {
	key, err := p.cfg.EncryptionKey()
	if err != nil {
		return fmt.Errorf("secret_key: %w", err)
	}
	s := &state{keys: &policy.Keyring{}, looked: make(chan struct{}), dirty: make(chan struct{}, 1), hint: make(chan struct{}, 1)}
	if s.file, err = kept.New(filepath.Join(p.cfg.StateDir, "kept"), key); err != nil {
		return err
	}
	if s.modules, err = kept.NewModules(p.store, filepath.Join(p.cfg.StateDir, "modules"), p.log); err != nil {
		return err
	}
	p.state = s
	s.seen.register(p.registry)
	promauto.With(p.registry).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "weir_configuration_age_seconds", Help: "Seconds since the database has confirmed what requests are decided by.",
	}, func() float64 {
		if at, _ := s.asOf(); !at.IsZero() {
			return time.Since(at).Seconds()
		}
		return 0
	})
	promauto.With(p.registry).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "weir_configuration_transaction", Help: "Transactions of Postgres below this one are in force, as pg_snapshot_xmin counts them.",
	}, func() float64 { return float64(s.transaction.Load()) })
	return nil
}

// asOf returns when the database has confirmed the state last, and whether that was before this process began.
func (s *state) asOf() (at time.Time, restored bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.confirmed, s.restored
}

// seenBy notes a look at the database that found everything in force.
func (p *processor) seenBy(l store.Look) {
	s := p.state
	s.mu.Lock()
	s.confirmed, s.restored = l.Time, false
	close(s.looked)
	s.looked = make(chan struct{})
	s.mu.Unlock()
	s.transaction.Store(l.Transaction)
	s.trouble.Store(nil)
	p.state.seen.keys.Store(int64(s.keys.Len()))
	p.judgeAge()
	if l.Changed {
		select {
		case s.dirty <- struct{}{}:
		default:
		}
	}
}

// settleTimeout bounds how long an administrator waits until a change is in force here. On other processors it is within a second.
const settleTimeout = 3 * time.Second

// settled returns when all that was committed before is in force in this processor, or when that takes too long.
func (p *processor) settled(ctx context.Context) {
	s, began := p.state, time.Now()
	timer := time.NewTimer(settleTimeout)
	defer timer.Stop()
	for {
		s.mu.Lock()
		done, looked := s.confirmed.After(began), s.looked
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case s.hint <- struct{}{}:
		default:
		}
		select {
		case <-looked:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// gate refuses what is billed while its usage could not be recorded, or while nobody knows whether its key still works.
func (p *processor) gate() *policy.Denial {
	if p.state.stale.Load() {
		return policy.Stale()
	}
	return p.spool.Denial()
}

// judgeAge sees whether the state is too old to decide by.
func (p *processor) judgeAge() {
	at, _ := p.state.asOf()
	stale := !at.IsZero() && time.Since(at) > p.cfg.Database.MaxStale
	if p.state.stale.Swap(stale) != stale {
		if stale {
			p.log.Error("the database has not been reached for too long: requests are refused until it is", "as_of", at, "max_stale", p.cfg.Database.MaxStale)
		} else {
			p.log.Info("the database has confirmed the configuration: requests are served again")
		}
	}
}

// keepState keeps the state on the disk, and watches its age.
func (p *processor) keepState(ctx context.Context) error {
	var next, noted time.Time
	dirty, well := false, true
	for {
		select {
		case <-ctx.Done():
			select {
			case <-p.state.dirty:
				dirty = true
			default:
			}
			if dirty {
				_ = p.writeState() // if it fails the next process has the state of before
			}
			return nil
		case <-p.state.dirty:
			if dirty = true; time.Now().After(next) {
				next = time.Now().Add(keepAfter)
			}
		case <-time.After(min(max(time.Until(next), 0), staleTick)):
			p.judgeAge()
			if time.Now().Before(next) {
				continue
			}
			if !dirty {
				next = time.Now().Add(staleTick)
				noted = p.confirmState(noted)
				continue
			}
			began := time.Now()
			err := p.writeState()
			if dirty = err != nil; dirty && well {
				p.log.Warn("the configuration could not be kept on the disk: a start without the database would have to wait for it", "err", err)
			}
			well = !dirty
			took := time.Since(began)
			next, noted = began.Add(max(keepPause, took*keepShare)), began
		}
	}
}

func (p *processor) writeState() error {
	s := p.state
	s.mu.Lock()
	c, at := s.configuration, s.confirmed
	s.mu.Unlock()
	if c == nil {
		return nil
	}
	if err := s.file.Write(at, store.Rules{Configuration: *c, Terms: p.terms()}, s.keys, p.store); err != nil {
		return err
	}
	if err := p.state.modules.Prune(c.Attachments); err != nil {
		p.log.Warn("modules that nobody uses were not removed", "err", err)
	}
	return nil
}

// confirmState notes on the disk, now and then, that what is kept is still so. It returns when it did last.
func (p *processor) confirmState(last time.Time) time.Time {
	at, restored := p.state.asOf()
	if restored || at.Sub(last) < keepConfirm {
		return last
	}
	if err := p.state.file.Confirm(at); err != nil {
		p.log.Warn("the age of what is kept was not noted", "err", err)
	}
	return at
}

// restore puts in force what is kept on the disk, if it is young enough. It reports whether it did.
func (p *processor) restore(ctx context.Context) bool {
	s, err := p.state.file.Read(p.store)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false
	case err != nil:
		p.log.Error("what is kept on the disk cannot be used", "err", err)
		return false
	}
	age := time.Since(s.Time)
	if age > p.cfg.Database.MaxStale || age < -clockSkew {
		p.log.Error("what is kept on the disk is too old to decide by, or from the future", "as_of", s.Time, "max_stale", p.cfg.Database.MaxStale)
		return false
	}
	if err := p.hold(s.Rules.All()); err != nil {
		p.log.Error("what is kept on the disk cannot be used", "err", err)
		return false
	}
	if err := p.state.keys.Replace(s.Keys); err != nil {
		p.log.Error("what is kept on the disk cannot be used", "err", err)
		return false
	}
	p.state.mu.Lock()
	p.state.confirmed, p.state.restored = s.Time, true
	p.state.mu.Unlock()
	if err := p.apply(ctx, s.Rules.Configuration); err != nil {
		p.log.Error("what is kept on the disk cannot be put in force", "err", err)
		return false
	}
	p.state.seen.keys.Store(int64(p.state.keys.Len()))
	p.log.Warn("requests are served by what is kept on the disk until the database is there", "as_of", s.Time, "age", age.Round(time.Second),
		"until", s.Time.Add(p.cfg.Database.MaxStale))
	return true
}

// stateDetail says by what requests are decided; empty if that is what the database says now.
func (p *processor) stateDetail() string {
	at, restored := p.state.asOf()
	switch {
	case !p.engine.Ready():
		return ""
	case p.state.stale.Load():
		return fmt.Sprintf("requests are refused: the database has confirmed nothing since %s", at.UTC().Format(time.RFC3339))
	case restored:
		return fmt.Sprintf("requests are served by what is kept on the disk, as of %s", at.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("requests are served by the last configuration, as of %s", at.UTC().Format(time.RFC3339))
}
