// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/internal/postgres/pgtest"
	"github.com/weir-proxy/weir/usage"
)

// proxy stands between a store and Postgres and cuts connections at their commit, when asked to.
type proxy struct {
	listener net.Listener
	server   string
	cut      atomic.Int32 // how the next commit is cut
	cuts     atomic.Int32 // how many have been
	wg       sync.WaitGroup
}

// How a commit can be cut.
const (
	cutNot    = iota
	cutAnswer // Postgres commits; the answer is lost
	cutAsking // Postgres does not hear of it
)

// proxied returns the address of a proxy to the server of dsn.
func proxied(t *testing.T, dsn string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, server: u.Host}
	p.wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(client) })
		}
	})
	t.Cleanup(func() {
		l.Close() //nolint:errcheck // nothing hangs on it
		p.wg.Wait()
	})
	u.Host = l.Addr().String()
	return p, u.String()
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close() //nolint:errcheck // nothing hangs on it
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	var lost atomic.Bool
	answers := make(chan struct{})
	go func() {
		defer close(answers)
		defer client.Close() //nolint:errcheck // nothing hangs on it
		buf := make([]byte, 1<<16)
		for {
			n, err := server.Read(buf)
			if err != nil || lost.Load() {
				return // on the first byte of an answer to be lost, Postgres has committed
			}
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
	}()
	p.forward(client, server, &lost)
	if lost.Load() {
		<-answers
	}
	server.Close() //nolint:errcheck // nothing hangs on it
	<-answers
}

// forward passes on the messages of a client: https://www.postgresql.org/docs/current/protocol-message-formats.html.
func (p *proxy) forward(client io.Reader, server io.Writer, lost *atomic.Bool) {
	header := make([]byte, 5)
	for first := true; ; first = false {
		from := 0
		if first {
			from = 1 // the first message has no type
		}
		if _, err := io.ReadFull(client, header[from:]); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(header[1:])-4)
		if _, err := io.ReadFull(client, body); err != nil {
			return
		}
		cut := int32(cutNot)
		if !first && header[0] == 'Q' && bytes.EqualFold(body, []byte("commit\x00")) {
			if cut = p.cut.Swap(cutNot); cut != cutNot {
				p.cuts.Add(1)
			}
		}
		if cut == cutAsking {
			return
		}
		lost.Store(cut == cutAnswer)
		if _, err := server.Write(append(header[from:len(header):len(header)], body...)); err != nil || cut == cutAnswer {
			return
		}
	}
}

// TestACutCommitLosesNothingAndRepeatsNothing goes on from the position after an error, as shippers do.
func TestACutCommitLosesNothingAndRepeatsNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		cut       int32
		committed bool
	}{"the answer is lost": {cutAnswer, true}, "it is never asked for": {cutAsking, false}} {
		t.Run(name, func(t *testing.T) {
			p, dsn := proxied(t, pgtest.Database(t))
			s := mustOpen(t, dsn, Options{MaxConns: 1})
			if err := s.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			writer, at := uuid.New(), int64(0)
			given := record(t, noon())
			mustResolve(t, s, unresolved(given))
			for round := range int64(6) {
				b := batch(writer, at, record(t, noon()), record(t, noon()))
				if round == 3 {
					b = batch(writer, at, record(t, noon()), given)
				}
				p.cut.Store(tt.cut)
				if err := s.Post(t.Context(), b); err == nil || errors.Is(err, usage.ErrFenced) {
					t.Errorf("round %d: %v", round, err)
				}
				position, err := s.Position(t.Context(), writer)
				if err != nil || position != b.To && tt.committed || position != b.From && !tt.committed {
					t.Errorf("round %d: position %d, %v", round, position, err)
				}
				if err := s.Post(t.Context(), b); errors.Is(err, usage.ErrFenced) != tt.committed || err != nil && !tt.committed {
					t.Errorf("round %d, again: %v", round, err)
				}
				at = b.To
			}
			if n := p.cuts.Load(); n != 6 {
				t.Errorf("%d commits were cut", n)
			}
			wantPosition(t, s, writer, 12)
			wantStatuses(t, s, map[string]int64{"ok": 12})
			wantSums(t, s, numbers{Requests: 12, Tokens: 12 * 120})

			again := unresolved(record(t, noon()))
			p.cut.Store(tt.cut)
			if _, err := s.Resolve(t.Context(), resolution(again)); err == nil {
				t.Error("no error from a resolution that was cut")
			}
			mustResolve(t, s, again)
			wantStatuses(t, s, map[string]int64{"ok": 12, "unresolved": 1})
		})
	}
}
