// SPDX-License-Identifier: Apache-2.0

package proxywasm

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-proxy/weir/plugins/host"
	w "github.com/weir-proxy/weir/plugins/wasmtest"
)

// server is an upstream that counts what reaches it.
type server struct {
	*httptest.Server
	hits atomic.Int64
}

func serve(t *testing.T, answer http.HandlerFunc) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		s.hits.Add(1)
		answer(rw, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// upstream lets plugins call the server as judge.
func (s *server) upstream() []Upstream {
	return []Upstream{{Name: "judge", URL: s.URL + "/base/", Private: true}}
}

// call makes a call and leaves its status.
func (g *guest) call(upstream, path, body string, milliseconds int32) w.Code {
	fields := headers{{Name: ":method", Value: "POST"}, {Name: ":path", Value: path}, {Name: ":authority", Value: "judge.example"}, {Name: "x-ask", Value: "1"}}
	return g.do("proxy_http_call", g.text(upstream), g.text(string(fields.encode())), g.text(body), num(0), num(0), num(milliseconds), num(out))
}

// resume lets the request go on.
func (g *guest) resume() w.Code { return g.try("proxy_continue_stream", num(streamTypeRequest)) }

// callBody leaves the address and length of the body that an answer has.
func (g *guest) callBody() w.Code {
	return w.Seq(g.try("proxy_get_buffer_bytes", num(bufferCallBody), num(0), num(1<<20), num(out), num(out+4)),
		num(out), w.I32Load(), num(out+4), w.I32Load())
}

func TestPausedRequestGoesOnWhenItsCallIsAnswered(t *testing.T) {
	t.Parallel()
	for _, hook := range []string{exportRequestHeaders, exportRequestBody} {
		var got string
		s := serve(t, func(rw http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			got = strings.Join([]string{r.Method, r.Host, r.URL.String(), r.Header.Get("x-ask"), string(body)}, " ")
			_, _ = io.WriteString(rw, `{"model":"judged"}`)
		})
		g := newGuest()
		g.hook(hook, w.Seq(g.call("judge", "/check?x=1", "what of this?", 3000), w.Drop()), stop)
		g.answered(g.try("proxy_set_buffer_bytes", num(bufferRequestBody), num(0), num(1<<20), g.callBody()), g.resume())
		a := g.load(t, Source{Upstreams: s.upstream()}).ask(t, Place{}, question())
		if a.denial != nil || string(a.ruling.Body) != `{"model":"judged"}` {
			t.Errorf("%s: %v, %+v, %v", hook, a.denial, a.ruling, a.failure())
		}
		if want := "POST judge.example /base/check?x=1 1 what of this?"; got != want {
			t.Errorf("%s: the upstream was asked %q, want %q", hook, got, want)
		}
	}
}

func TestCallsGoNowhereElse(t *testing.T) {
	t.Parallel()
	s := serve(t, func(http.ResponseWriter, *http.Request) {})
	for name, c := range map[string]struct {
		upstreams []Upstream
		path      string
	}{
		"an unknown upstream":  {nil, "/"},
		"a path with no slash": {s.upstream(), "@example.com/"},
		"no path at all":       {s.upstream(), "\x7f"},
	} {
		g := newGuest()
		g.hook(exportRequestBody, g.tell(g.call("judge", c.path, "", 100)), goOn)
		if got := g.load(t, Source{Upstreams: c.upstreams}).ask(t, Place{}, question()).told(t); got != statusBadArgument {
			t.Errorf("%s: status %d", name, got)
		}
	}
	if n := s.hits.Load(); n != 0 {
		t.Errorf("%d calls reached the server", n)
	}
}

// answeredWith has a plugin make one call and tell how many headers the answer had.
func answeredWith(t *testing.T, s Source) int {
	t.Helper()
	g := newGuest()
	g.hook(exportRequestBody, w.Seq(g.call("judge", "/", "", 2000), w.Drop()), stop)
	g.answered(g.tell(w.Get(2)))
	return g.load(t, s).ask(t, Place{}, question()).told(t)
}

func TestCallsThatFailAreAnsweredWithoutHeaders(t *testing.T) {
	t.Parallel()
	wait := make(chan struct{})
	for name, c := range map[string]struct {
		answer  http.HandlerFunc
		private bool
		limits  Limits
		reached int64
	}{
		"a private address": {func(http.ResponseWriter, *http.Request) {}, false, Limits{}, 0},
		"too large an answer": {func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = rw.Write(make([]byte, 101))
		}, true, Limits{CallBytes: 100}, 1},
		"no answer in time": {func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-wait:
			}
		}, true, Limits{}, 1},
		"an answer that is cut off": {func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("content-length", "10")
			_, _ = rw.Write([]byte("x"))
		}, true, Limits{}, 1},
	} {
		s := serve(t, c.answer)
		got := answeredWith(t, Source{Limits: c.limits, Upstreams: []Upstream{{Name: "judge", URL: s.URL, Private: c.private}}})
		if got != 0 {
			t.Errorf("%s: %d headers", name, got)
		}
		if n := s.hits.Load(); n != c.reached {
			t.Errorf("%s: %d calls reached the server, want %d", name, n, c.reached)
		}
	}
	close(wait)
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	elsewhere := serve(t, func(http.ResponseWriter, *http.Request) {})
	s := serve(t, func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, elsewhere.URL, http.StatusFound) })
	if n := answeredWith(t, Source{Upstreams: s.upstream()}); n == 0 {
		t.Error("there was no answer")
	}
	if n := elsewhere.hits.Load(); n != 0 {
		t.Errorf("%d calls followed it", n)
	}
}

func TestFloodOfCallsIsCut(t *testing.T) {
	t.Parallel()
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	g := newGuest()
	// Makes 100 calls and tells how many were taken.
	g.hook(exportRequestBody,
		num(100), w.Set(0), num(0), w.Set(3),
		w.Loop(
			w.If0(g.call("judge", "/", "", 60_000), w.Seq(w.Get(3), num(1), w.Add(), w.Set(3))),
			w.Get(0), num(1), w.Sub(), w.Tee(0), w.BrIf(0)),
		g.tell(w.Get(3)), goOn)
	p := g.load(t, Source{Upstreams: s.upstream(), Limits: Limits{Calls: 6}})
	if n := p.ask(t, Place{}, question()).told(t); n != 3 {
		t.Errorf("%d calls at a time were taken, want 3", n)
	}
	if n := s.hits.Load(); n > 3 {
		t.Errorf("%d calls reached the server", n)
	}

	// One after the other there are no more than six.
	fast := serve(t, func(http.ResponseWriter, *http.Request) {})
	g = newGuest()
	again := g.call("judge", "/", "", 60_000)
	g.hook(exportRequestBody, again, w.Drop(), stop)
	g.answered(w.If0(again, w.Return()), g.tell(w.Get(1)))
	p = g.load(t, Source{Upstreams: fast.upstream(), Limits: Limits{Calls: 6}})
	if n := p.ask(t, Place{}, question()).told(t); n != 6 || fast.hits.Load() != 6 {
		t.Errorf("%d calls one after the other, %d at the server; want 6", n, fast.hits.Load())
	}
}

func TestPauseHasAnEnd(t *testing.T) {
	t.Parallel()
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	g := newGuest()
	g.hook(exportRequestBody, w.Seq(g.call("judge", "/", "", 60_000), w.Drop()), stop)
	g.answered()
	p := g.load(t, Source{Upstreams: s.upstream(), Limits: Limits{Pause: 20 * time.Millisecond}})
	for _, mode := range []host.Mode{host.Closed, host.Open} {
		a := p.ask(t, Place{Mode: mode}, question())
		if (a.denial != nil) != (mode == host.Closed) || a.failure() == nil {
			t.Errorf("mode %d: %v, %v", mode, a.denial, a.failure())
		}
	}
}

func TestPrivateAddressesAreKnown(t *testing.T) {
	t.Parallel()
	for address, private := range map[string]bool{
		"127.0.0.1:80": true, "10.1.2.3:443": true, "172.16.0.1:1": true, "192.168.1.1:1": true, "169.254.169.254:80": true, "100.64.0.1:1": true, "0.0.0.0:80": true,
		"[::1]:80": true, "[fe80::1]:80": true, "[fd00::1]:80": true, "[::ffff:10.0.0.1]:80": true, "[64:ff9b::a00:1]:80": true, "[2002:a00:1::]:80": true, "224.0.0.1:1": true,
		"nonsense": true, "8.8.8.8:443": false, "[2606:4700::1111]:443": false,
	} {
		if err := refusePrivate("tcp", address, nil); (err != nil) != private {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestUpstreamsAreChecked(t *testing.T) {
	t.Parallel()
	c := newClients()
	for _, list := range [][]Upstream{
		{{Name: "a", URL: "ftp://x"}},
		{{Name: "a", URL: "https://"}},
		{{Name: "a", URL: "https://u:p@x"}},
		{{Name: "a", URL: "https://x?y"}},
		{{Name: "a", URL: ":"}},
		{{Name: "a", URL: "https://x"}, {Name: "a", URL: "https://y"}},
	} {
		if _, err := c.upstreams(list); err == nil {
			t.Errorf("%+v is taken", list)
		}
	}
}
