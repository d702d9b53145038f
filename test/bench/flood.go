// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-proxy/weir/policy"
)

// flood is many clients that send one request each when it is due, and do not mind being refused. They share a few connections of HTTP/2, or have one each of HTTP/1.1:
// then a refusal closes the connection, and on one machine the new ones cost the generator more than all the rest.
type flood struct {
	load    load
	url     string
	through []*http.Client
	clients int
}

// floodConnections are the connections: Envoy takes 1,024 streams on each.
const floodConnections = 8

// outcome is what became of one request.
type outcome struct {
	due     time.Duration // from the beginning of the run
	late    time.Duration // from then until it was sent, which is the generator's own fault
	took    time.Duration // from when it was sent until its last byte
	refused bool
	err     error // nil of those that were served or refused as they should be
}

// newFlood makes clients that wait for so long for an answer. No connections means one of HTTP/1.1 for each client.
func newFlood(address string, l load, clients, connections int, wait time.Duration) *flood {
	f := &flood{load: l, url: "http://" + address + "/v1/chat/completions", clients: clients}
	if connections == 0 {
		f.through = []*http.Client{{Transport: &http.Transport{MaxIdleConnsPerHost: clients}, Timeout: wait}}
	}
	for range connections {
		var only http.Protocols
		only.SetUnencryptedHTTP2(true)
		f.through = append(f.through, &http.Client{Transport: &http.Transport{Protocols: &only}, Timeout: wait})
	}
	return f
}

func (f *flood) close() {
	for _, c := range f.through {
		c.CloseIdleConnections()
	}
}

// open sends requests when they are due, as long as a client is free, and returns what became of all of them.
func (f *flood) open(ctx context.Context, due []time.Duration) []outcome {
	began := time.Now()
	var next atomic.Int64
	var all sync.WaitGroup
	out := make([]outcome, len(due))
	body := chatBody(f.load.body, f.load.stream)
	for range f.clients {
		all.Go(func() {
			for ctx.Err() == nil {
				i := next.Add(1) - 1
				if i >= int64(len(due)) {
					return
				}
				sleepUntil(ctx, began.Add(due[i]))
				o := &out[i]
				o.due, o.late = due[i], time.Since(began)-due[i]
				sent := time.Now()
				o.refused, o.err = f.send(ctx, f.through[i%int64(len(f.through))], body)
				o.took = time.Since(sent)
			}
		})
	}
	all.Wait()
	return out
}

// send sends one request and reads its answer.
func (f *flood) send(ctx context.Context, c *http.Client, body string) (refused bool, err error) {
	b, err := f.answer(ctx, c, body)
	if errors.Is(err, errStatus) && bytes.Contains(b, []byte(`"overloaded"`)) {
		return true, nil
	}
	return false, err
}

// errStatus is for answers with another status than 200.
var errStatus = errors.New("not served")

// answer sends one request and returns the body of its answer.
func (f *flood) answer(ctx context.Context, c *http.Client, body string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, f.url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header = http.Header{"Authorization": {"Bearer " + policy.DevSecret}, "Content-Type": {"application/json"}}
	for _, h := range f.load.steer {
		r.Header.Set(h[0], h[1])
	}
	resp, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // it is read to its end
	b, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read answer: %w", err)
	case resp.StatusCode != http.StatusOK:
		return b, fmt.Errorf("%w: status %d: %.200s", errStatus, resp.StatusCode, b)
	}
	return b, nil
}
