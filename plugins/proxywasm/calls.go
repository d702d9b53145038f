// SPDX-License-Identifier: Apache-2.0

package proxywasm

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/weir-proxy/weir/policy"
)

// clients make the calls of plugins. No proxy of the environment is used, and no redirect is followed: where a call goes is the operator's choice alone.
type clients struct{ public, private *http.Client }

func newClients() *clients {
	return &clients{public: newClient(refusePrivate), private: newClient(nil)}
}

func newClient(control func(network, address string, _ syscall.RawConn) error) *http.Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second, Control: control}
	return &http.Client{
		CheckRedirect: stay,
		Transport: &http.Transport{
			DialContext: dialer.DialContext, DisableCompression: true, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 5 * time.Second,
			MaxIdleConnsPerHost: 32, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: maxHeaderBytes,
		},
	}
}

func (c *clients) close() {
	c.public.CloseIdleConnections()
	c.private.CloseIdleConnections()
}

// stay follows no redirect.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// reserved are networks that netip does not know to be no part of the Internet, or that lead to such.
var reserved = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2002::/16"),
}

// refusePrivate is asked of each address that a name has turned out to mean, right before it is connected to: what the name says before or after does not count.
func refusePrivate(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("read address: %w", err)
	}
	a := at.Addr().Unmap()
	if !a.IsGlobalUnicast() || a.IsPrivate() || slices.ContainsFunc(reserved, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return errors.New("the address is private")
	}
	return nil
}

// upstream is a server that a plugin may call.
type upstream struct {
	client *http.Client
	base   *url.URL
}

// upstreams reads what an operator allows.
func (c *clients) upstreams(list []Upstream) (map[string]*upstream, error) {
	out := map[string]*upstream{}
	for _, u := range list {
		base, err := url.Parse(u.URL)
		switch {
		case err != nil:
			return nil, fmt.Errorf("read the URL of the upstream %q: %w", u.Name, err)
		case base.Scheme != "http" && base.Scheme != "https" || base.Host == "" || base.User != nil || base.RawQuery != "" || base.Fragment != "":
			return nil, fmt.Errorf("the URL of the upstream %q should be like https://host:port/path", u.Name)
		case out[u.Name] != nil:
			return nil, fmt.Errorf("there are two upstreams of the name %q", u.Name)
		}
		base.Path = strings.TrimRight(base.Path, "/")
		out[u.Name] = &upstream{client: c.public, base: base}
		if u.Private {
			out[u.Name].client = c.private
		}
	}
	return out, nil
}

// target returns where a path leads.
func (u *upstream) target(path string) (*url.URL, error) {
	if !strings.HasPrefix(path, "/") {
		return nil, errors.New("the path does not begin with /")
	}
	return url.Parse(u.base.Scheme + "://" + u.base.Host + u.base.EscapedPath() + path)
}

// callouts are the calls of one stream.
type callouts struct {
	made, open int
	most       int
	answers    chan *answer // has room for all
	cancels    []context.CancelFunc
	wait       sync.WaitGroup
}

// answer is what came of a call; without headers: nothing did.
type answer struct {
	id      uint32
	headers headers
	body    []byte
}

func (c *callouts) init(most int) { c.most, c.answers = most, make(chan *answer, most) }

// cancel ends all calls and waits until they have.
func (c *callouts) cancel() {
	for _, cancel := range c.cancels {
		cancel()
	}
	c.wait.Wait()
	c.open = 0
}

// httpCall is proxy_http_call(upstream, its length, headers, their length, body, its length, trailers, their length, milliseconds, out).
func (c caller) httpCall(a args) uint64 {
	name := c.text(a[0], a[1])
	fields, ok := decodeHeaders(c.bytes(a[2], a[3]))
	body := bytes.Clone(c.bytes(a[4], a[5]))
	out := a[9]
	u := c.plugin.upstreams[name]
	switch {
	case !ok:
		return statusParseFailure
	case u == nil || c.context == rootContext:
		c.guest.Log(2, fmt.Appendf(nil, "proxy_http_call to %.100q is refused: it is no upstream of this plugin, or there is no exchange", name))
		return statusBadArgument
	case c.calls.made >= c.calls.most || c.calls.open >= max(1, c.calls.most/2) || len(body) > c.plugin.limits.CallBytes:
		return statusInternalFailure
	}
	timeout := c.plugin.limits.Pause
	if a[8] > 0 {
		timeout = min(timeout, time.Duration(a[8])*time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	request, err := u.request(ctx, fields, body)
	if err != nil {
		cancel()
		return statusBadArgument
	}
	c.guest.Charge(20_000)
	c.calls.made++
	c.calls.open++
	id := uint32(c.calls.made)
	c.put32(out, id)
	c.calls.cancels = append(c.calls.cancels, cancel)
	answers, most := c.calls.answers, c.plugin.limits.CallBytes
	if c.plugin.source.Transport != nil { // in a trial, calls are answered in order
		answers <- u.do(request, id, most)
		return statusOK
	}
	c.calls.wait.Go(func() { answers <- u.do(request, id, most) })
	return statusOK
}

// request makes a request of the headers that a plugin gives, the pseudo-headers among them.
func (u *upstream) request(ctx context.Context, fields headers, body []byte) (*http.Request, error) {
	path, _ := fields.get(":path")
	to, err := u.target(cmp.Or(path, "/"))
	if err != nil {
		return nil, err
	}
	method, _ := fields.get(":method")
	r, err := http.NewRequestWithContext(ctx, cmp.Or(method, http.MethodGet), to.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for _, f := range fields {
		switch f.Name {
		case ":authority", "host":
			r.Host = f.Value
		case "connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer", "expect", "keep-alive", "proxy-connection":
		default:
			if !strings.HasPrefix(f.Name, ":") {
				r.Header.Add(f.Name, f.Value)
			}
		}
	}
	if r.Header.Get("user-agent") == "" {
		r.Header.Set("user-agent", "weir")
	}
	return r, nil
}

// do makes a call; whatever goes wrong, the answer has no headers then.
func (u *upstream) do(r *http.Request, id uint32, most int) *answer {
	a := &answer{id: id}
	resp, err := u.client.Do(r)
	if err != nil {
		return a
	}
	defer resp.Body.Close() //nolint:errcheck // it has been read as far as it is wanted
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(most)+1))
	if err != nil || len(body) > most {
		return a
	}
	a.body = body
	a.headers = headers{{Name: ":status", Value: strconv.Itoa(resp.StatusCode)}}
	for name, values := range resp.Header {
		for _, v := range values {
			a.headers.add(name, v)
		}
	}
	slices.SortStableFunc(a.headers, func(x, y policy.Header) int { return cmp.Compare(x.Name, y.Name) })
	if len(a.headers) > maxHeaders {
		return &answer{id: id}
	}
	return a
}
