// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// Run listens on a TCP address and serves until ctx is done, then as [Provider.Serve] does.
func (p *Provider) Run(ctx context.Context, addr string) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen for the fake provider: %w", err)
	}
	return p.Serve(ctx, ln)
}

// Serve serves HTTP/1.1 and h2c on ln until ctx is done, then closes ln and every connection, and returns nil once the last
// request is settled in the ledger, where those that this ends count as [ClientClosed]. It closes ln also when it returns an error.
func (p *Provider) Serve(ctx context.Context, ln net.Listener) error {
	var g gate
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !g.enter() {
				panic(http.ErrAbortHandler)
			}
			defer g.inside.Done()
			p.ServeHTTP(w, r)
		}),
		Protocols:         new(http.Protocols),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 100_000},
		ReadHeaderTimeout: time.Minute,
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)

	closed := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		g.shut()
		closed <- srv.Close()
	})
	err := srv.Serve(ln)
	if stop() { // ctx is not done: the listener broke
		return errors.Join(fmt.Errorf("serve the fake provider: %w", err), srv.Close())
	}
	if err = <-closed; err != nil {
		err = fmt.Errorf("close the fake provider: %w", err)
	}
	g.inside.Wait()
	return err
}

// gate lets requests in until it is shut, so that those inside can be waited for.
type gate struct {
	inside sync.WaitGroup

	mu     sync.Mutex // guards closed, and adding to inside
	closed bool
}

// enter counts a request as inside, unless the gate is shut.
func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.inside.Add(1)
	}
	return !g.closed
}

// shut lets nobody in from now on.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}
