// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// patience is how long after its end a run waits for answers that are still due.
const patience = 30 * time.Second

// generator sends one request over and over. Its clients are goroutines with a connection each, which write the prepared bytes and
// read answers with a [responseReader]: on a machine that the gateway shares with it, a cheap generator is most of a fair one.
type generator struct {
	address string
	request []byte
	want    expectation
	clients []*client
}

// expectation is what every answer must be. Zero fields are not looked at.
type expectation struct {
	bytes  int64 // of the body
	events int
}

// client is one connection.
type client struct {
	g      *generator
	reader *responseReader
	sample

	began, deadline time.Time // of the run

	mu   sync.Mutex // guards changes of conn, which others may close
	conn net.Conn
}

// sample is what clients saw.
type sample struct {
	total, first []time.Duration // until the last byte, until the first; of answers as they must be
	done         []time.Duration // when their last bytes came, from the beginning of the run
	failed       int
	failure      error // the first
}

func (s *sample) add(o *sample) {
	s.total = append(s.total, o.total...)
	s.first = append(s.first, o.first...)
	s.done = append(s.done, o.done...)
	s.failed += o.failed
	if s.failure == nil {
		s.failure = o.failure
	}
}

// newGenerator connects n clients.
func newGenerator(ctx context.Context, address string, request []byte, want expectation, n int) (*generator, error) {
	g := &generator{address: address, request: request, want: want}
	for range n {
		c := &client{g: g}
		if err := c.connect(ctx); err != nil {
			g.close()
			return nil, err
		}
		g.clients = append(g.clients, c)
	}
	return g, nil
}

func (g *generator) close() {
	for _, c := range g.clients {
		c.mu.Lock()
		_ = c.conn.Close() // nothing is lost with it
		c.mu.Unlock()
	}
}

// connect connects, or connects again.
func (c *client) connect(ctx context.Context) error {
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", c.g.address)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", c.g.address, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		_ = c.conn.Close() // it has failed already
	}
	c.conn, c.reader = conn, newResponseReader(conn)
	return conn.SetDeadline(c.deadline)
}

// closed lets every client send a request as soon as it has the answer to the one before, for a while; their beginnings are spread
// over part of it. What is under way at the end is waited for.
func (g *generator) closed(ctx context.Context, duration, spread time.Duration) sample {
	began := time.Now()
	end := began.Add(duration)
	return g.run(ctx, began, end, func(i int, c *client) {
		sleepUntil(ctx, began.Add(spread*time.Duration(i)/time.Duration(len(g.clients))))
		for ctx.Err() == nil {
			now := time.Now()
			if !now.Before(end) || !c.exchange(ctx, now) {
				return
			}
		}
	})
}

// open sends requests when they are due, whether or not those before have been answered, as long as there are enough clients. How
// long an answer took counts from when its request was due: a request that had to wait for a client, or for this process, took that
// much longer, and a gateway that stalls pays for everybody who came meanwhile.
func (g *generator) open(ctx context.Context, due []time.Duration) sample {
	began := time.Now()
	var end time.Time
	if len(due) > 0 {
		end = began.Add(due[len(due)-1])
	}
	var next atomic.Int64
	return g.run(ctx, began, end, func(_ int, c *client) {
		for ctx.Err() == nil {
			i := next.Add(1) - 1
			if i >= int64(len(due)) {
				return
			}
			at := began.Add(due[i])
			sleepUntil(ctx, at)
			if !c.exchange(ctx, at) {
				return
			}
		}
	})
}

// once lets every client send one request.
func (g *generator) once(ctx context.Context, spread time.Duration) sample {
	began := time.Now()
	return g.run(ctx, began, began.Add(spread), func(i int, c *client) {
		sleepUntil(ctx, began.Add(spread*time.Duration(i)/time.Duration(len(g.clients))))
		c.exchange(ctx, time.Now())
	})
}

// run lets each client work, and gathers what they saw.
func (g *generator) run(ctx context.Context, began, end time.Time, work func(i int, c *client)) sample {
	stop := context.AfterFunc(ctx, g.close) // wakes those that wait for an answer
	defer stop()
	var wg sync.WaitGroup
	for i, c := range g.clients {
		c.sample = sample{total: c.total[:0], first: c.first[:0], done: c.done[:0]}
		c.began, c.deadline = began, end.Add(patience)
		if err := c.conn.SetDeadline(c.deadline); err != nil {
			c.fail(err)
			continue
		}
		wg.Go(func() { work(i, c) })
	}
	wg.Wait()
	var all sample
	for _, c := range g.clients {
		all.add(&c.sample)
	}
	return all
}

// exchange sends a request and reads its answer, which took since the given time. False means that this client can do no more.
func (c *client) exchange(ctx context.Context, since time.Time) bool {
	_, err := c.conn.Write(c.g.request)
	var r response
	if err == nil {
		r, err = c.reader.next()
	}
	now := time.Now()
	if err != nil {
		c.fail(err)
		return ctx.Err() == nil && now.Before(since.Add(patience)) && c.connect(ctx) == nil
	}
	if err := c.g.want.check(r); err != nil {
		c.fail(err)
	} else {
		c.total = append(c.total, now.Sub(since))
		c.first = append(c.first, r.first.Sub(since))
		c.done = append(c.done, now.Sub(c.began))
	}
	return !r.ends || c.connect(ctx) == nil // a request on a connection that ends would be lost, and fail with an unexpected EOF
}

func (c *client) fail(err error) {
	c.failed++
	if c.failure == nil {
		c.failure = err
	}
}

func (e expectation) check(r response) error {
	switch {
	case r.status != 200:
		return fmt.Errorf("status %d: %s", r.status, r.excuse)
	case e.bytes > 0 && r.bytes != e.bytes:
		return fmt.Errorf("%d bytes instead of %d", r.bytes, e.bytes)
	case e.events > 0 && r.events != e.events:
		return fmt.Errorf("%d events instead of %d", r.events, e.events)
	}
	return nil
}

// errNone is for loads of which no request was answered.
var errNone = errors.New("no request was answered")

// err says whether all requests were answered as they must be.
func (s *sample) err() error {
	switch {
	case s.failed > 0:
		return fmt.Errorf("%d of %d requests failed, the first: %w", s.failed, s.failed+len(s.total), s.failure)
	case len(s.total) == 0:
		return errNone
	}
	return nil
}

// perSecond returns how many answers came in a second of a part of the run.
func (s *sample) perSecond(from, to time.Duration) float64 {
	n := 0
	for _, at := range s.done {
		if at >= from && at < to {
			n++
		}
	}
	return float64(n) / (to - from).Seconds()
}

// sleepUntil returns at a time, or when ctx ends.
func sleepUntil(ctx context.Context, at time.Time) {
	d := time.Until(at)
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
