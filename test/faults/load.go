// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

// sent is a call with what its client saw of it.
type sent struct {
	call
	exchange     uuid.UUID // nil when the client never learnt it
	status       int       // 0 when there was no answer
	whole        bool      // the answer came to its end
	torn         bool      // it did, but lacks its last event
	bytes        int64     // read of the answer's body
	began, ended time.Time
}

// load is clients that send calls one after the other.
type load struct {
	url  string
	keys []string
	seed uint64

	clients int
}

// callLimit bounds one call; they are made to take two seconds at most.
const callLimit = 20 * time.Second

// run sends calls until ctx ends and returns them when the last is answered. The calls of a client depend on the seed, the round and the
// client's number alone.
func (l *load) run(ctx context.Context, round int) []*sent {
	var (
		mu  sync.Mutex
		all []*sent
		wg  sync.WaitGroup
	)
	for i := range l.clients {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(l.seed, uint64(round)<<16|uint64(i)+1))
			c := newClient()
			defer c.close()
			for ctx.Err() == nil {
				s := l.send(context.WithoutCancel(ctx), c, drawCall(r, len(l.keys)))
				mu.Lock()
				all = append(all, s)
				mu.Unlock()
				pause := time.NewTimer(time.Duration(r.IntN(20)) * time.Millisecond)
				if s.status == http.StatusServiceUnavailable || s.status == 0 {
					pause.Reset(20 * time.Millisecond) // nobody is there
				}
				select {
				case <-pause.C:
				case <-ctx.Done():
				}
			}
		})
	}
	wg.Wait()
	return all
}

// client speaks both versions of HTTP.
type client struct{ one, two *http.Transport }

func newClient() *client {
	c := &client{one: &http.Transport{}, two: &http.Transport{Protocols: new(http.Protocols)}}
	c.two.Protocols.SetUnencryptedHTTP2(true)
	return c
}

func (c *client) close() {
	c.one.CloseIdleConnections()
	c.two.CloseIdleConnections()
}

// send makes one call and behaves as it says.
func (l *load) send(ctx context.Context, c *client, what call) *sent {
	s := &sent{call: what, began: time.Now()}
	defer func() { s.ended = time.Now() }()
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if what.leave == leavesLater {
		defer time.AfterFunc(what.wait, cancel).Stop()
	}
	var body io.Reader = strings.NewReader(what.body)
	if what.leave == leavesSend {
		body = io.MultiReader(strings.NewReader(what.body[:what.after]), &leaver{after: 2 * time.Millisecond})
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url+what.path, body)
	if err != nil {
		return s // a programmer error; no answer is noticed by the judge
	}
	r.ContentLength = int64(len(what.body))
	r.Header = what.header.Clone()
	r.Header.Set("authorization", "Bearer "+l.keys[what.key])
	r.Header.Set("content-type", "application/json")
	transport := c.one
	if what.h2 {
		transport = c.two
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return s
	}
	defer resp.Body.Close() //nolint:errcheck // what was read is what counts
	s.read(resp, cancel)
	return s
}

// read reads the answer, as far as the client stays. leave must abort the request.
func (s *sent) read(resp *http.Response, leave func()) {
	s.status = resp.StatusCode
	s.exchange, _ = uuid.Parse(resp.Header.Get("x-weir-exchange-id"))
	if s.leave == leavesRead {
		s.bytes, _ = io.CopyN(io.Discard, resp.Body, int64(s.after))
		if s.bytes == int64(s.after) {
			leave()
			return
		}
	}
	var end tail
	n, err := io.Copy(&end, resp.Body)
	s.bytes += n
	s.whole = err == nil
	s.torn = s.whole && s.status == http.StatusOK && s.leave == stays && !s.complete(end.String())
}

// complete says whether an answer that ends so is whole.
func (s *sent) complete(end string) bool {
	switch {
	case !s.stream:
		return strings.HasSuffix(strings.TrimSpace(end), "}")
	case s.path == "/v1/responses":
		return strings.Contains(end, `"sequence_number"`) && strings.HasSuffix(end, "\n\n")
	}
	return strings.HasSuffix(end, "data: [DONE]\n\n")
}

// tail keeps the last bytes that are written to it.
type tail struct{ b []byte }

const tailBytes = 200

func (t *tail) Write(b []byte) (int, error) {
	t.b = append(t.b, b[max(0, len(b)-tailBytes):]...)
	t.b = t.b[max(0, len(t.b)-tailBytes):]
	return len(b), nil
}

func (t *tail) String() string { return string(t.b) }

// leaver is the rest of a body whose client leaves.
type leaver struct{ after time.Duration }

var errLeft = errors.New("the client left")

func (l *leaver) Read([]byte) (int, error) {
	timer := time.NewTimer(l.after) // what was sent before reaches Envoy first
	defer timer.Stop()
	<-timer.C
	return 0, errLeft
}
