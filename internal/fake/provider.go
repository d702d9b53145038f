// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unique"
)

// Options configure a [Provider]. The zero value accepts every credential and every model under /v1.
type Options struct {
	Account      string            // whose provider it is, when Credentials do not say; "fake" if empty. Answers name it in openai-organization and system_fingerprint
	Credentials  map[string]string // accepted credentials without "Bearer ", and the account that each belongs to; empty accepts all, none included
	Prefix       string            // base path, such as "/base/v1"; "/v1" if empty. Other paths are 404
	Models       []string          // models that it has, others are 404; empty accepts all and lists a few
	Behavior     Behavior          // what it does at first
	KeepAttempts int               // single attempts that the ledger keeps; 1,000,000 if zero, none if negative
	KeepHeaders  bool              // the ledger keeps the values of all request headers
	KeepBody     int               // bytes of each request body that the ledger keeps
	MaxBody      int64             // largest request body in bytes, larger ones are 413; 64 MiB if zero
}

// Behavior is forced upon every request of a provider, before its credential is looked at. The zero value forces nothing.
type Behavior struct {
	Status     int           // answer with this error, 400 to 599
	RetryAfter time.Duration // sent with that error in whole seconds, rounded up; zero means not at all
	Hang       bool          // read the request, then never answer
	Reset      bool          // read the request, then reset the connection
}

// Provider is the fake provider. It must be made by [New].
type Provider struct {
	opts     Options
	prefix   string // with a slash at its end
	behavior atomic.Pointer[Behavior]
	ledger   Ledger
	shelf    shelf
	bodies   sync.Pool // of *bytes.Buffer
	served   atomic.Uint64
}

// New returns a provider that has served nothing yet.
func New(opts Options) *Provider {
	if opts.Account == "" {
		opts.Account = "fake"
	}
	if opts.Prefix == "" {
		opts.Prefix = "/v1"
	}
	if opts.KeepAttempts == 0 {
		opts.KeepAttempts = 1_000_000
	}
	if opts.MaxBody == 0 {
		opts.MaxBody = 64 << 20
	}
	p := &Provider{opts: opts, prefix: strings.TrimSuffix(opts.Prefix, "/") + "/", ledger: Ledger{keep: opts.KeepAttempts}}
	p.bodies.New = func() any { return new(bytes.Buffer) }
	p.Force(opts.Behavior)
	return p
}

// Ledger returns the provider's ledger.
func (p *Provider) Ledger() *Ledger { return &p.ledger }

// Force makes every request that arrives from now on behave as given; the zero Behavior ends that. It may be called at any
// time. Requests that hang already go on hanging.
func (p *Provider) Force(b Behavior) { p.behavior.Store(&b) }

// ServeHTTP implements [http.Handler]. It panics with [http.ErrAbortHandler] where it is to reset a stream of HTTP/2.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/ledger" || r.URL.Path == "/ledger/reset" {
		p.serveLedger(w, r)
		return
	}
	e := &entry{time: time.Now()}
	c := call{forced: *p.behavior.Load(), credential: credentialOf(r.Header)}
	c.steer, c.steerErr = readSteering(r.Header)
	c.account, c.known = p.account(c.credential)

	buf := p.bodies.Get().(*bytes.Buffer)
	buf.Reset()
	prep, err := p.prepare(w, r, buf, c.recipe(r.URL.Path), e)
	if p.opts.KeepHeaders || p.opts.KeepBody > 0 {
		e.extra = p.extra(r.Header, buf.Bytes())
	}
	if buf.Cap() <= shelfAnswer {
		p.bodies.Put(buf)
	}

	e.account = unique.Make(c.account)
	e.request = unique.Make(requestLine{r.Method, r.URL.Path, r.Host, r.Proto})
	e.credential = unique.Make(c.credential)
	e.names = unique.Make(headerNames(r.Header))
	e.model, e.stream = unique.Make(prep.model), prep.stream
	p.ledger.open(r.Header.Get("X-Client-Request-Id"), e)
	if err != nil { // the peer has gone
		p.ledger.settle(e, Served{Outcome: ClientClosed})
		return
	}

	h := w.Header()
	h["Openai-Organization"] = []string{c.account}
	h["Openai-Version"] = []string{"2020-10-01"}
	h["X-Request-Id"] = []string{"req_" + strconv.FormatUint(p.served.Add(1), 10)}
	answer := prep.answer
	if f := c.refusal(); f != nil {
		answer = f.answer()
	}
	play := player{ledger: &p.ledger, entry: e, w: w, answer: answer, steer: c.steer}
	play.run(r.Context(), c.forced)
}

// call is what the head of a request settles.
type call struct {
	forced     Behavior
	steer      steering
	steerErr   error
	credential Credential
	account    string
	known      bool // the credential is accepted
}

// recipe is that of the call's answer, but for the body.
func (c *call) recipe(path string) recipe {
	return recipe{
		path: path, account: c.account, tokens: c.steer.tokens, noUsage: c.steer.noUsage, usageLast: c.steer.usageLast,
	}
}

// refusal is the error that the call must be answered with, whatever its body; nil if there is none.
func (c *call) refusal() *refusal {
	switch {
	case c.forced.Status != 0:
		return refuseWith(c.forced.Status, seconds(c.forced.RetryAfter))
	case !c.known:
		return refuse(http.StatusUnauthorized, "invalid_request_error", "invalid_api_key", "",
			"Incorrect API key provided. You can find your API key in your account's settings.")
	case c.steerErr != nil:
		return badRequest("", "", "%s", c.steerErr)
	case c.steer.status != 0:
		return refuseWith(c.steer.status, c.steer.retryAfter)
	}
	return nil
}

// account finds whose credential it is; it is not known if the provider does not accept it.
func (p *Provider) account(c Credential) (account string, known bool) {
	if len(p.opts.Credentials) == 0 {
		return p.opts.Account, true
	}
	secret := c.Value
	if c.Header == "authorization" {
		var bearer bool
		if secret, bearer = strings.CutPrefix(secret, "Bearer "); !bearer {
			return p.opts.Account, false
		}
	}
	if account, known = p.opts.Credentials[secret]; known && c.Header != "" {
		return account, true
	}
	return p.opts.Account, false
}

// credentialOf returns the first credential that the headers hold.
func credentialOf(h http.Header) Credential {
	for _, name := range [...]string{"Authorization", "Api-Key", "X-Api-Key"} {
		if v := h[name]; len(v) > 0 {
			return Credential{strings.ToLower(name), v[0]}
		}
	}
	return Credential{}
}

// prepare reads the request's body into buf and makes the answer to it, or takes it from the shelf. It describes the body in
// the entry. It fails only when the body did not come to its end; the answer may be a refusal.
func (p *Provider) prepare(w http.ResponseWriter, r *http.Request, buf *bytes.Buffer, rec recipe, e *entry) (prepared, error) {
	n, err := buf.ReadFrom(http.MaxBytesReader(w, r.Body, p.opts.MaxBody))
	e.size, e.sha = n, sha256.Sum256(buf.Bytes())
	if err != nil {
		if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			f := refuse(http.StatusRequestEntityTooLarge, "invalid_request_error", "request_too_large", "",
				fmt.Sprintf("The body is larger than %d bytes.", p.opts.MaxBody))
			return prepared{answer: f.answer()}, nil
		}
		return prepared{}, err
	}
	route, f := p.route(r)
	if f != nil {
		return prepared{answer: f.answer()}, nil
	}
	rec.body = e.sha
	if made, ok := p.shelf.get(rec); ok {
		return made, nil
	}
	made := p.make(route, buf.Bytes(), rec)
	if made.answer.status == http.StatusOK {
		p.shelf.put(rec, made)
	}
	return made, nil
}

// extra copies what the options ask to keep of a request.
func (p *Provider) extra(h http.Header, body []byte) *extra {
	x := new(extra)
	if p.opts.KeepHeaders {
		x.headers = h.Clone()
	}
	if n := min(p.opts.KeepBody, len(body)); n > 0 {
		x.body = string(body[:n])
	}
	return x
}

// serveLedger answers for the ledger's own paths, which are not in the ledger.
func (p *Provider) serveLedger(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	reset := r.URL.Path == "/ledger/reset"
	switch {
	case reset && r.Method == http.MethodPost:
		p.ledger.Reset()
		_, _ = io.WriteString(w, "{}\n")
	case !reset && r.Method == http.MethodGet:
		q := r.URL.Query()
		s := Snapshot{Exchanges: map[string][]Attempt{}}
		switch {
		case q.Has("exchange"):
			s.Totals = p.ledger.Totals()
			if as := p.ledger.Attempts(q.Get("exchange")); as != nil {
				s.Exchanges[q.Get("exchange")] = as
			}
		case q.Has("totals"):
			s.Totals = p.ledger.Totals()
		default:
			s = p.ledger.Snapshot()
		}
		_, _ = w.Write(append(encode(s), '\n')) // an error is the reader's
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
		_, _ = w.Write(refuse(http.StatusMethodNotAllowed, "invalid_request_error", "", "", "GET /ledger or POST /ledger/reset.").answer().body)
	}
}

// seconds rounds up to whole seconds; -1 stands for none.
func seconds(d time.Duration) int {
	if d <= 0 {
		return -1
	}
	return int((d + time.Second - 1) / time.Second)
}
