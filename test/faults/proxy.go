// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// proxy stands between the processor and Postgres. It knows just enough of the protocol to lose a connection at the worst moment of a
// transaction: https://www.postgresql.org/docs/current/protocol-message-formats.html.
type proxy struct {
	listener net.Listener
	target   string
	ended    sync.WaitGroup

	replies atomic.Int64 // how many more commits shall be cut off after they counted
	commits atomic.Int64 // how many more shall be cut off before
	dropped atomic.Int64 // how many were, of both

	mu    sync.Mutex // guards links
	links map[*link]struct{}
}

// link is a connection of the processor and the one to Postgres that belongs to it.
type link struct {
	client, server net.Conn
	copied         atomic.Bool // rows were copied since the last commit: this is no reading transaction
}

// newProxy listens, and sends everything to the address target until close is called.
func newProxy(target string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the database: %w", err)
	}
	p := &proxy{listener: l, target: target, links: make(map[*link]struct{})}
	p.ended.Add(1)
	go p.serve()
	return p, nil
}

// addr is where the proxy listens.
func (p *proxy) addr() string { return p.listener.Addr().String() }

// close ends the proxy and all connections through it.
func (p *proxy) close() {
	_ = p.listener.Close()
	p.cutAll()
	p.ended.Wait()
}

func (p *proxy) serve() {
	defer p.ended.Done()
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil { // there is no Postgres: as good as a refused connection
			reset(client)
			continue
		}
		l := &link{client: client, server: server}
		p.mu.Lock()
		p.links[l] = struct{}{}
		p.mu.Unlock()
		p.ended.Add(2)
		go func() { defer p.ended.Done(); p.end(l, p.fromClient(l)) }()
		go func() { defer p.ended.Done(); p.end(l, p.fromServer(l)) }()
	}
}

// errDropped ends a link that was cut on purpose.
var errDropped = errors.New("dropped")

// end closes both sides. What was cut on purpose is reset: nothing that is still buffered arrives.
func (p *proxy) end(l *link, err error) {
	if errors.Is(err, errDropped) {
		reset(l.client)
	}
	_ = l.client.Close()
	_ = l.server.Close()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// cutAll resets all connections.
func (p *proxy) cutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		reset(l.client)
		_ = l.server.Close()
	}
}

// disarm takes back all drops that have not happened.
func (p *proxy) disarm() {
	p.replies.Store(0)
	p.commits.Store(0)
}

func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

// take uses up one of a number of drops, if there is one left.
func (p *proxy) take(n *atomic.Int64) bool {
	for {
		left := n.Load()
		if left <= 0 {
			return false
		}
		if n.CompareAndSwap(left, left-1) {
			p.dropped.Add(1)
			return true
		}
	}
}

// interesting is how long a message may be that is looked into.
const interesting = 64

// fromClient passes on what the processor says.
func (p *proxy) fromClient(l *link) error {
	var length [4]byte
	if _, err := io.ReadFull(l.client, length[:]); err != nil { // the first message has no type
		return err
	}
	if err := pass(l.server, l.client, length[:], int64(binary.BigEndian.Uint32(length[:]))-4); err != nil {
		return err
	}
	return frames(l.server, l.client, func(kind byte, body []byte) error {
		if kind == 'Q' && bytes.EqualFold(body, []byte("commit\x00")) && l.copied.Load() && p.take(&p.commits) {
			return errDropped
		}
		return nil
	})
}

// fromServer passes on what Postgres says.
func (p *proxy) fromServer(l *link) error {
	return frames(l.client, l.server, func(kind byte, body []byte) error {
		switch {
		case kind == 'G': // CopyInResponse
			l.copied.Store(true)
		case kind == 'C' && bytes.Equal(body, []byte("COMMIT\x00")):
			if l.copied.Swap(false) && p.take(&p.replies) {
				return errDropped
			}
		}
		return nil
	})
}

// frames passes on messages until one side ends or look returns an error; look sees those that are short.
func frames(to io.Writer, from io.Reader, look func(kind byte, body []byte) error) error {
	var b [5 + interesting]byte
	for {
		if _, err := io.ReadFull(from, b[:5]); err != nil {
			return err
		}
		n := int64(binary.BigEndian.Uint32(b[1:5])) - 4
		if n < 0 {
			return fmt.Errorf("message of %d bytes", n+4)
		}
		if n > interesting {
			if err := pass(to, from, b[:5], n); err != nil {
				return err
			}
			continue
		}
		if _, err := io.ReadFull(from, b[5:5+n]); err != nil {
			return err
		}
		if err := look(b[0], b[5:5+n]); err != nil {
			return err
		}
		if _, err := to.Write(b[:5+n]); err != nil {
			return err
		}
	}
}

// pass writes head and the n bytes that follow it.
func pass(to io.Writer, from io.Reader, head []byte, n int64) error {
	if _, err := to.Write(head); err != nil {
		return err
	}
	_, err := io.CopyN(to, from, n)
	return err
}
