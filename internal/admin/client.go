// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/weir-proxy/weir/internal/store"
)

// clientTimeout leaves room for the test of a channel.
const clientTimeout = probeTimeout + 5*time.Second

// compileTimeout is for a large module on a busy machine.
const compileTimeout = 2 * time.Minute

// maxAnswer is in bytes; a page of 1000 rows of usage has some 600 kB.
const maxAnswer = 64 << 20

// Client speaks to the admin REST API. Its errors are a [*Problem] when the server refused, and a [*Unreachable] when there was no answer
// of one.
type Client struct {
	base  string
	token store.Secret
	as    string // who it says that it acts for
	http  *http.Client
	slow  *http.Client // for what makes the server compile
}

// Unreachable is the error when nothing that speaks the API answers at a URL.
type Unreachable struct {
	URL  string
	Hint string
	err  error
}

// Error implements error.
func (e *Unreachable) Error() string {
	return fmt.Sprintf("no answer from Weir at %s: %v", e.URL, e.err)
}

// Unwrap returns the cause.
func (e *Unreachable) Unwrap() error { return e.err }

// NewClient returns a client of the API at a URL such as http://127.0.0.1:10001.
func NewClient(base string, token store.Secret) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%q is not a URL such as http://127.0.0.1:10001", base)
	}
	// A redirect would carry a provider's credential to somebody else.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{
		base:  strings.TrimSuffix(strings.TrimRight(base, "/"), "/api/v1"),
		token: token,
		http:  &http.Client{Timeout: clientTimeout, CheckRedirect: stay},
		slow:  &http.Client{Timeout: compileTimeout, CheckRedirect: stay},
	}, nil
}

// As makes the audit name who the client acts for: the token is the same for all.
func (c *Client) As(name string) { c.as = name }

// URL returns the base URL that the client speaks to.
func (c *Client) URL() string { return c.base }

func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return fmt.Errorf("make the request: %w", err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return c.send(c.http, req, out)
}

func (c *Client) send(by *http.Client, req *http.Request, out any) error {
	ctx := req.Context()
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token.Reveal())
	}
	if c.as != "" {
		req.Header.Set(actorHeader, c.as)
	}
	res, err := by.Do(req)
	if err != nil {
		return c.unreachable(ctx, err)
	}
	defer res.Body.Close() //nolint:errcheck // what was read is read
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return c.unreachable(ctx, fmt.Errorf("the answer was cut: %w", err))
	}
	return c.read(res, b, out)
}

func (c *Client) read(res *http.Response, b []byte, out any) error {
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if kind == "application/problem+json" {
		p := &Problem{}
		if err := json.Unmarshal(b, p); err == nil {
			return p
		}
	}
	if res.StatusCode == http.StatusNoContent {
		return nil
	}
	if kind == "application/json" && (res.StatusCode < 300 || res.StatusCode == http.StatusServiceUnavailable) {
		if err := json.Unmarshal(b, out); err == nil {
			return nil
		}
	}
	return &Unreachable{
		URL:  c.base,
		Hint: "something else answers at this URL; it must be that of admin.listen in weir.yaml, without a path",
		err:  fmt.Errorf("status %d, %q", res.StatusCode, kind),
	}
}

func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	hint := "is it running? weir dev, or weir serve --config weir.yaml"
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		hint = "the server takes too long; its log may say why"
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // The URL is said already.
	}
	return &Unreachable{URL: c.base, Hint: hint, err: err}
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	var out T
	err := c.do(ctx, http.MethodGet, path, nil, &out)
	return out, err
}

func send[T any](ctx context.Context, c *Client, method, path string, in any) (T, error) {
	var out T
	err := c.do(ctx, method, path, in, &out)
	return out, err
}

func pathOf(noun, ref string) string { return "/api/v1/" + noun + "s/" + url.PathEscape(ref) }

// Version returns what the server runs.
func (c *Client) Version(ctx context.Context) (Version, error) {
	return get[Version](ctx, c, "/api/v1/version")
}

// Ready returns whether the server serves, and what is missing. It needs no token.
func (c *Client) Ready(ctx context.Context) (Readiness, error) {
	return get[Readiness](ctx, c, "/readyz")
}

// Doctor returns what the server finds about itself.
func (c *Client) Doctor(ctx context.Context) ([]Check, error) {
	l, err := get[List[Check]](ctx, c, "/api/v1/doctor")
	return l.Items, err
}

// Tenants returns all tenants.
func (c *Client) Tenants(ctx context.Context) ([]Tenant, error) {
	l, err := get[List[Tenant]](ctx, c, "/api/v1/tenants")
	return l.Items, err
}

// Tenant returns the tenant that ref, an id or a name, means.
func (c *Client) Tenant(ctx context.Context, ref string) (Tenant, error) {
	return get[Tenant](ctx, c, pathOf("tenant", ref))
}

// CreateTenant makes a tenant.
func (c *Client) CreateTenant(ctx context.Context, n NewTenant) (Tenant, error) {
	return send[Tenant](ctx, c, http.MethodPost, "/api/v1/tenants", n)
}

// SetTenant changes a tenant.
func (c *Client) SetTenant(ctx context.Context, ref string, ch TenantChange) (Tenant, error) {
	return send[Tenant](ctx, c, http.MethodPatch, pathOf("tenant", ref), ch)
}

// DeleteTenant deletes a tenant without keys.
func (c *Client) DeleteTenant(ctx context.Context, ref string) error {
	return c.do(ctx, http.MethodDelete, pathOf("tenant", ref), nil, nil)
}

// Keys returns all keys, of one tenant when ref is not empty.
func (c *Client) Keys(ctx context.Context, tenant string) ([]Key, error) {
	q := url.Values{"limit": {strconv.Itoa(maxLimit)}}
	if tenant != "" {
		q.Set("tenant", tenant)
	}
	return pages[Key](ctx, c, "/api/v1/keys", q, 0)
}

// Key returns the key that ref means.
func (c *Client) Key(ctx context.Context, ref string) (HeldKey, error) {
	return get[HeldKey](ctx, c, pathOf("key", ref))
}

// CreateKey makes a key; only here its secret is told.
func (c *Client) CreateKey(ctx context.Context, n NewKey) (CreatedKey, error) {
	return send[CreatedKey](ctx, c, http.MethodPost, "/api/v1/keys", n)
}

// SetKey changes a key.
func (c *Client) SetKey(ctx context.Context, ref string, ch KeyChange) (Key, error) {
	return send[Key](ctx, c, http.MethodPatch, pathOf("key", ref), ch)
}

// RevokeKey ends a key for good.
func (c *Client) RevokeKey(ctx context.Context, ref string) (Key, error) {
	return send[Key](ctx, c, http.MethodPost, pathOf("key", ref)+"/revoke", nil)
}

// RotateKey gives a key a new secret, which is told only here. The one that it has works for the overlap yet.
func (c *Client) RotateKey(ctx context.Context, ref string, overlap time.Duration) (CreatedKey, error) {
	return send[CreatedKey](ctx, c, http.MethodPost, pathOf("key", ref)+"/rotate", Rotation{OverlapSeconds: int64(overlap / time.Second)})
}

// ImportKeys makes keys that have secrets already.
func (c *Client) ImportKeys(ctx context.Context, n KeyImport) (KeyImported, error) {
	return send[KeyImported](ctx, c, http.MethodPost, "/api/v1/keys/import", n)
}

// Audit returns the last n entries of the audit, newest first.
func (c *Client) Audit(ctx context.Context, q AuditQuery, n int) ([]AuditEntry, error) {
	v := q.values()
	v.Set("limit", strconv.Itoa(min(n, maxLimit)))
	return pages[AuditEntry](ctx, c, "/api/v1/audit", v, n)
}

// Channels returns all channels.
func (c *Client) Channels(ctx context.Context) ([]Channel, error) {
	l, err := get[List[Channel]](ctx, c, "/api/v1/channels")
	return l.Items, err
}

// Channel returns the channel that ref means.
func (c *Client) Channel(ctx context.Context, ref string) (Channel, error) {
	return get[Channel](ctx, c, pathOf("channel", ref))
}

// CreateChannel makes a channel.
func (c *Client) CreateChannel(ctx context.Context, n NewChannel) (Channel, error) {
	return send[Channel](ctx, c, http.MethodPost, "/api/v1/channels", n)
}

// SetChannel changes a channel.
func (c *Client) SetChannel(ctx context.Context, ref string, ch ChannelChange) (Channel, error) {
	return send[Channel](ctx, c, http.MethodPatch, pathOf("channel", ref), ch)
}

// DeleteChannel deletes a channel.
func (c *Client) DeleteChannel(ctx context.Context, ref string) error {
	return c.do(ctx, http.MethodDelete, pathOf("channel", ref), nil, nil)
}

// TestChannel has the server ask the channel's provider.
func (c *Client) TestChannel(ctx context.Context, ref string) (ChannelTest, error) {
	return send[ChannelTest](ctx, c, http.MethodPost, pathOf("channel", ref)+"/test", nil)
}

// Prices returns the prices of all models whose name has a text in it; with own only those of the deployment's own.
func (c *Client) Prices(ctx context.Context, text string, own bool) ([]Price, error) {
	q := url.Values{"limit": {strconv.Itoa(maxLimit)}}
	if text != "" {
		q.Set("q", text)
	}
	if own {
		q.Set("own", "true")
	}
	return pages[Price](ctx, c, "/api/v1/prices", q, 0)
}

// Price returns the price that a model has by a version of the prices; with zero, by those in force.
func (c *Client) Price(ctx context.Context, model string, version int64) (Price, error) {
	path := pathOf("price", model)
	if version != 0 {
		path += "?version=" + strconv.FormatInt(version, 10)
	}
	return get[Price](ctx, c, path)
}

// SetPrice makes rates the whole of a model's price.
func (c *Client) SetPrice(ctx context.Context, model string, p NewPrice) (Price, error) {
	return send[Price](ctx, c, http.MethodPut, pathOf("price", model), p)
}

// DeletePrice deletes the deployment's own price of a model.
func (c *Client) DeletePrice(ctx context.Context, model string) error {
	return c.do(ctx, http.MethodDelete, pathOf("price", model), nil, nil)
}

// UsageQuery selects rows of usage. Zero fields do not restrict.
type UsageQuery struct {
	Since, Until         time.Time
	Tenant, Key, Channel string // ids or names
	Model, Status        string
	Exchange             string // a UUID
	Zone                 string // of days and months in sums; empty: UTC
}

func (q UsageQuery) values() url.Values {
	v := url.Values{}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	if !q.Since.IsZero() {
		set("since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	if !q.Until.IsZero() {
		set("until", q.Until.UTC().Format(time.RFC3339Nano))
	}
	set("tenant", q.Tenant)
	set("key", q.Key)
	set("channel", q.Channel)
	set("model", q.Model)
	set("status", q.Status)
	set("exchange", q.Exchange)
	return v
}

// Usage returns the last n rows, newest first.
func (c *Client) Usage(ctx context.Context, q UsageQuery, n int) ([]UsageRow, error) {
	v := q.values()
	v.Set("limit", strconv.Itoa(min(n, maxLimit)))
	return pages[UsageRow](ctx, c, "/api/v1/usage", v, n)
}

// SumUsage adds rows up by dimensions such as "key" and "day"; by none of them, to one total.
func (c *Client) SumUsage(ctx context.Context, q UsageQuery, by []string) ([]UsageSum, error) {
	v := q.values()
	if len(by) > 0 {
		v.Set("by", strings.Join(by, ","))
	}
	if q.Zone != "" {
		v.Set("time_zone", q.Zone)
	}
	l, err := get[List[UsageSum]](ctx, c, "/api/v1/usage/sum?"+v.Encode())
	return l.Items, err
}

// pages follows the cursor until n items are there, or all when n is 0.
func pages[T any](ctx context.Context, c *Client, path string, v url.Values, n int) ([]T, error) {
	all := []T{}
	for {
		l, err := get[List[T]](ctx, c, path+"?"+v.Encode())
		if err != nil {
			return nil, err
		}
		all = append(all, l.Items...)
		if n > 0 && len(all) >= n {
			return all[:n], nil
		}
		if l.Next == "" || len(l.Items) == 0 {
			return all, nil
		}
		v.Set("cursor", l.Next)
	}
}
