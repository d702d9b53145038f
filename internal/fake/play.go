// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"time"
)

// player writes one answer, at the pace and to the end that the request asks for, and settles its entry in the ledger.
type player struct {
	ledger *Ledger
	entry  *entry
	w      http.ResponseWriter
	answer *answer
	steer  steering

	written int // bytes of the answer's body
	events  int // of which the last byte is written
	headed  bool
}

// run plays the answer. It returns when nothing more is to be written, and panics with [http.ErrAbortHandler] where only that
// resets the peer.
func (p *player) run(ctx context.Context, forced Behavior) {
	switch {
	case forced.Hang:
		<-ctx.Done()
		p.settle(ClientClosed)
	case forced.Reset:
		p.reset()
	case !wait(ctx, p.steer.delay):
		p.settle(ClientClosed)
	default:
		p.write(ctx)
	}
}

// write sends the head and the body, as far as the peer stays and no cut is due.
func (p *player) write(ctx context.Context) {
	p.head()
	limit, cut := p.limit()
	flusher := http.NewResponseController(p.w)
	if cut && limit == 0 {
		_ = flusher.Flush() // a peer that is gone needs no reset
	}
	for first := true; p.written < limit; first = false {
		if !first && !wait(ctx, p.steer.interval) || ctx.Err() != nil {
			p.settle(ClientClosed)
			return
		}
		piece := p.answer.body[p.written:p.next(limit)]
		before := *p
		p.advance(len(piece))
		last := p.written == len(p.answer.body) && !cut
		if last {
			p.settle(p.end())
		}
		_, err := p.w.Write(piece)
		if err == nil && !last { // the server flushes the last piece together with the end of the body
			err = flusher.Flush()
		}
		if err != nil {
			*p = before
			p.settle(ClientClosed)
			return
		}
	}
	if cut {
		p.reset()
	}
}

// head writes the response's head into the server's buffer.
func (p *player) head() {
	h := p.w.Header()
	if p.answer.stream {
		h["Content-Type"] = []string{"text/event-stream; charset=utf-8"}
		h["Cache-Control"] = []string{"no-cache"}
	} else {
		h["Content-Type"] = []string{"application/json"}
		h["Content-Length"] = []string{strconv.Itoa(len(p.answer.body))}
	}
	if p.answer.retryAfter >= 0 {
		h["Retry-After"] = []string{strconv.Itoa(p.answer.retryAfter)}
	}
	p.headed = true
	p.w.WriteHeader(p.answer.status)
}

// limit says how much of the body is to be written, and whether a cut comes after that.
func (p *player) limit() (bytes int, cut bool) {
	a, n := p.answer, p.steer.cutAfter
	switch {
	case n < 0 || a.stream && n > len(a.ends):
		return len(a.body), false
	case n == 0:
		return 0, true
	case a.stream:
		return a.ends[n-1], true
	}
	return len(a.body) / 2, true
}

// next says where the next write ends.
func (p *player) next(limit int) int {
	if p.steer.frame > 0 {
		return min(p.written+p.steer.frame, limit)
	}
	return min(p.answer.ends[p.events], limit)
}

// advance counts bytes as written.
func (p *player) advance(bytes int) {
	p.written += bytes
	for p.events < len(p.answer.ends) && p.answer.ends[p.events] <= p.written {
		p.events++
	}
}

// end is the outcome of an answer that is written to its end.
func (p *player) end() Outcome {
	if p.answer.status >= http.StatusBadRequest {
		return Failed
	}
	return Complete
}

// settle tells the ledger how far the answer got.
func (p *player) settle(o Outcome) {
	u := p.answer.upTo(p.events)
	if p.answer.reported(p.written) {
		u = p.answer.usage
	}
	s := Served{
		Tokens: Tokens{
			Input: int64(u.input), CachedInput: int64(u.cached), Output: int64(u.output), Reasoning: int64(u.reasoning),
		},
		Events: int64(p.events), ResponseBytes: int64(p.written), Outcome: o,
	}
	if p.headed {
		s.Status = p.answer.status
	} else {
		s.Tokens = Tokens{}
	}
	p.ledger.settle(p.entry, s)
}

// reset ends the connection, or the stream of an HTTP/2 connection, in such a way that the peer sees an error.
func (p *player) reset() {
	p.settle(Cut)
	conn, _, err := http.NewResponseController(p.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // close with RST, not FIN
	}
	_ = conn.Close() // there is nobody left to tell
}

// wait waits; it is false when the peer left before.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
