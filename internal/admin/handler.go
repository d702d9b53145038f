// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed" // openapi.yaml
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/weir-proxy/weir/internal/prices"
	"github.com/weir-proxy/weir/internal/store"
)

// TenantReader looks tenants up by id or name.
type TenantReader interface {
	Tenants(ctx context.Context) ([]store.Tenant, error)
	Tenant(ctx context.Context, ref string) (store.Tenant, error)
}

// TenantWriter changes tenants.
type TenantWriter interface {
	CreateTenant(ctx context.Context, name string, with ...store.TenantChange) (store.Tenant, error)
	SetTenant(ctx context.Context, ref string, c store.TenantChange) (store.Tenant, error)
	DeleteTenant(ctx context.Context, ref string) error
}

// KeyReader looks keys up by id or name.
type KeyReader interface {
	Keys(ctx context.Context, f store.KeyFilter) ([]store.Key, error)
	Key(ctx context.Context, ref string) (store.Key, error)
	HeldKey(ctx context.Context, ref string, now time.Time) (store.HeldKey, error)
}

// KeyWriter changes keys.
type KeyWriter interface {
	CreateKey(ctx context.Context, n store.NewKey) (store.Key, store.Secret, error)
	SetKey(ctx context.Context, ref string, c store.KeyChange) (store.Key, error)
	RevokeKey(ctx context.Context, ref string) (store.Key, error)
}

// KeyRenewer gives keys other secrets, and makes keys of secrets from elsewhere.
type KeyRenewer interface {
	RotateKey(ctx context.Context, ref string, overlap time.Duration) (store.Key, store.Secret, error)
	ImportKeys(ctx context.Context, like store.NewKey, keys []store.ImportedKey) (made, known int, err error)
}

// AuditReader reads weir.audit.
type AuditReader interface {
	Audit(ctx context.Context, f store.AuditFilter) ([]store.AuditEntry, error)
}

// ChannelReader looks channels up by id or name.
type ChannelReader interface {
	Channels(ctx context.Context) ([]store.Channel, error)
	Channel(ctx context.Context, ref string) (store.Channel, error)
}

// ChannelWriter changes channels.
type ChannelWriter interface {
	CreateChannel(ctx context.Context, n store.NewChannel) (store.Channel, error)
	SetChannel(ctx context.Context, ref string, c store.ChannelChange) (store.Channel, error)
	DeleteChannel(ctx context.Context, ref string) error
}

// UsageReader reads weir.usage.
type UsageReader interface {
	Usage(ctx context.Context, f store.UsageFilter) ([]store.UsageRow, error)
	SumUsage(ctx context.Context, f store.UsageFilter, by []string) ([]store.UsageSum, error)
}

// PriceStore keeps the prices of each version, and the deployment's own.
type PriceStore interface {
	PriceTable(ctx context.Context, version int64) (t *prices.Table, id int64, err error)
	SetPrice(ctx context.Context, model string, rows []prices.Row) ([]prices.Row, error)
	DeletePrice(ctx context.Context, model string) error
}

// PluginStore keeps plugins and their versions.
type PluginStore interface {
	Plugins(ctx context.Context) ([]store.Plugin, error)
	Plugin(ctx context.Context, ref string) (store.Plugin, error)
	PushPlugin(ctx context.Context, m store.PushedModule) (store.Plugin, error)
	DeletePlugin(ctx context.Context, ref string) error
}

// AttachmentReader looks attachments up, and the modules of their plugins.
type AttachmentReader interface {
	Attachments(ctx context.Context) ([]store.Attachment, error)
	Attachment(ctx context.Context, id store.AttachmentID) (store.Attachment, error)
	Wasm(ctx context.Context, d store.Digest) ([]byte, error)
}

// AttachmentWriter changes attachments.
type AttachmentWriter interface {
	Attach(ctx context.Context, n store.NewAttachment) (store.Attachment, error)
	SetAttachment(ctx context.Context, id store.AttachmentID, c store.AttachmentChange) (store.Attachment, error)
	Detach(ctx context.Context, id store.AttachmentID) error
	RollBack(ctx context.Context, r store.RollBack) (a store.Attachment, done bool, err error)
}

// Store is what the API stands on; *store.Store is one.
type Store interface {
	TenantReader
	TenantWriter
	KeyReader
	KeyWriter
	KeyRenewer
	ChannelReader
	ChannelWriter
	PluginStore
	AttachmentReader
	AttachmentWriter
	LimitStore
	PriceStore
	UsageReader
	AuditReader
	BudgetReader
	BudgetWriter
}

// ChannelTester asks a channel's provider whether the channel works. [Prober] does.
type ChannelTester interface {
	TestChannel(ctx context.Context, c store.Channel) ChannelTest
}

// PluginTester loads plugins to see whether they work. Its errors that have a method Hint() string are about the plugin, and are shown; *loader.Loader is one.
type PluginTester interface {
	// InspectPlugin looks at a module before it is stored, and returns what it says of itself and the schema of its configuration.
	InspectPlugin(ctx context.Context, name string, wasm []byte) (about, schema string, err error)
	// TryPlugin loads a module as an attachment would.
	TryPlugin(ctx context.Context, a store.Attachment, wasm []byte) error
}

// Options are what [New] needs. Required is all that is not said to do without.
type Options struct {
	Store         Store
	Token         store.Secret                      // when empty, everything below /api/v1 is refused
	Metrics       http.Handler                      // answers /metrics
	Ready         func(ctx context.Context) []Check // what keeps this process from serving; called for each /readyz
	Version       string
	Logger        *slog.Logger
	ChannelTester ChannelTester
	Plugins       PluginTester

	// Database returns why the store cannot be asked, or nil when it can be. What fails meanwhile is not an error of the API, but 503. Nil: it always can be.
	Database func(ctx context.Context) error
	// Settled returns when what was changed is in force in this process, or when that takes too long. Who has made a key can use it, when the answer is there. Nil:
	// nobody waits for it.
	Settled       func(ctx context.Context)
	PluginMetrics http.Handler // answers with what plugins themselves count
}

// api holds the handlers.
type api struct {
	Options
	tokenHash [sha256.Size]byte
	mux       *http.ServeMux
}

// handler answers a request or returns why it cannot; see [problemOf].
type handler func(w http.ResponseWriter, r *http.Request) error

// route is one operation of the API.
type route struct {
	method, path string
	serve        handler
}

//go:embed openapi.yaml
var openAPI []byte

// apiPrefix is what the token protects.
const apiPrefix = "/api/"

func (a *api) routes() []route {
	return append(a.budgetRoutes(), []route{
		{"GET", "/livez", a.live},
		{"GET", "/readyz", a.ready},
		{"GET", "/metrics", a.metrics},

		{"GET", "/api/v1/version", a.version},
		{"GET", "/api/v1/doctor", a.doctor},
		{"GET", "/api/v1/openapi.yaml", a.document},
		{"GET", "/api/v1/profiles/{kind}", a.profile},

		{"GET", "/api/v1/tenants", a.listTenants},
		{"POST", "/api/v1/tenants", a.createTenant},
		{"GET", "/api/v1/tenants/{ref}", a.showTenant},
		{"PATCH", "/api/v1/tenants/{ref}", a.changeTenant},
		{"DELETE", "/api/v1/tenants/{ref}", a.deleteTenant},

		{"GET", "/api/v1/keys", a.listKeys},
		{"POST", "/api/v1/keys", a.createKey},
		{"GET", "/api/v1/keys/{ref}", a.showKey},
		{"PATCH", "/api/v1/keys/{ref}", a.changeKey},
		{"POST", "/api/v1/keys/{ref}/revoke", a.revokeKey},
		{"POST", "/api/v1/keys/{ref}/rotate", a.rotateKey},
		{"POST", "/api/v1/keys/import", a.importKeys},

		{"GET", "/api/v1/channels", a.listChannels},
		{"POST", "/api/v1/channels", a.createChannel},
		{"GET", "/api/v1/channels/{ref}", a.showChannel},
		{"PATCH", "/api/v1/channels/{ref}", a.changeChannel},
		{"DELETE", "/api/v1/channels/{ref}", a.deleteChannel},
		{"POST", "/api/v1/channels/{ref}/test", a.testChannel},

		{"GET", "/api/v1/prices", a.listPrices},
		{"GET", "/api/v1/prices/{model}", a.showPrice},
		{"PUT", "/api/v1/prices/{model}", a.setPrice},
		{"DELETE", "/api/v1/prices/{model}", a.deletePrice},

		{"GET", "/api/v1/plugin-metrics", a.pluginMetrics},
		{"GET", "/api/v1/plugins", a.listPlugins},
		{"GET", "/api/v1/plugins/{ref}", a.showPlugin},
		{"PUT", "/api/v1/plugins/{ref}", a.pushPlugin},
		{"DELETE", "/api/v1/plugins/{ref}", a.deletePlugin},

		{"GET", "/api/v1/attachments", a.listAttachments},
		{"POST", "/api/v1/attachments", a.createAttachment},
		{"GET", "/api/v1/attachments/{id}", a.showAttachment},
		{"PATCH", "/api/v1/attachments/{id}", a.changeAttachment},
		{"DELETE", "/api/v1/attachments/{id}", a.deleteAttachment},
		{"POST", "/api/v1/attachments/{id}/rollback", a.rollBackAttachment},

		{"GET", "/api/v1/limits", a.listLimits},
		{"PUT", "/api/v1/limits", a.setLimit},
		{"DELETE", "/api/v1/limits/{id}", a.deleteLimit},

		{"GET", "/api/v1/audit", a.listAudit},

		{"GET", "/api/v1/usage", a.listUsage},
		{"GET", "/api/v1/usage/sum", a.sumUsage},
	}...)
}

// New returns the handler of the whole admin port.
func New(o Options) http.Handler {
	a := &api{Options: o, tokenHash: sha256.Sum256([]byte(o.Token.Reveal())), mux: http.NewServeMux()}
	for _, rt := range a.routes() {
		a.mux.HandleFunc(rt.method+" "+rt.path, func(w http.ResponseWriter, r *http.Request) {
			if rt.method != http.MethodGet && a.Settled != nil {
				w = &settling{ResponseWriter: w, settled: func() { a.Settled(r.Context()) }}
			}
			if err := rt.serve(w, r); err != nil {
				a.fail(w, r, rt, err)
			}
		})
	}
	cross := http.NewCrossOriginProtection()
	cross.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeProblem(w, problem(http.StatusForbidden, "cross-origin request", "a page of another origin may not change anything here"))
	}))
	return a.protect(cross.Handler(http.HandlerFunc(a.serve)))
}

// protect sets the headers that every answer has, and turns a panic of a handler into a 500.
func (a *api) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v == http.ErrAbortHandler { //nolint:errorlint // a panic's value, as net/http compares it
				panic(v)
			}
			a.Logger.ErrorContext(r.Context(), "admin handler panicked", "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
			writeProblem(w, problem(http.StatusInternalServerError, "internal error", "the server could not do this"))
		}()
		next.ServeHTTP(w, r)
	})
}

// serve checks the token and routes. What the mux would answer in plain text becomes a problem.
func (a *api) serve(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, apiPrefix) {
		if p := a.authenticate(r); p != nil {
			w.Header().Set("WWW-Authenticate", `Bearer realm="weir"`)
			writeProblem(w, p)
			return
		}
		who, p := actorOf(r)
		if p != nil {
			writeProblem(w, p)
			return
		}
		outer := r
		r = r.WithContext(store.WithActor(r.Context(), who))
		defer func() { outer.Pattern = r.Pattern }() // for whoever is around this handler
	}
	h, pattern := a.mux.Handler(r)
	if pattern != "" {
		a.mux.ServeHTTP(w, r) // Not h: only the mux sets the values of the path.
		return
	}
	miss := &miss{header: w.Header()}
	h.ServeHTTP(miss, r)
	if miss.status == http.StatusMethodNotAllowed {
		writeProblem(w, problem(miss.status, "method not allowed", r.Method+" is not possible here").hint("possible: %s", w.Header().Get("Allow")))
		return
	}
	writeProblem(w, problem(http.StatusNotFound, "not found", "there is nothing at "+r.URL.Path).hint("GET /api/v1/openapi.yaml describes the API"))
}

// miss takes what the mux writes when no route matches: its headers matter, its text does not.
type miss struct {
	header http.Header
	status int
}

func (m *miss) Header() http.Header         { return m.header }
func (m *miss) Write(b []byte) (int, error) { return len(b), nil }
func (m *miss) WriteHeader(status int)      { m.status = status }

// authenticate compares hashes, so that the time it takes says nothing of the token, not even its length.
func (a *api) authenticate(r *http.Request) *Problem {
	if a.Token == "" {
		return problem(http.StatusUnauthorized, "no token set", "the server has no admin token and refuses every request").
			hint("set WEIR_ADMIN_TOKEN where weir serve runs, and restart it")
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return problem(http.StatusUnauthorized, "no token", "the request has no token").
			hint("set WEIR_TOKEN to the server's WEIR_ADMIN_TOKEN, or send the header authorization: Bearer TOKEN")
	}
	got := sha256.Sum256([]byte(strings.TrimSpace(token)))
	if subtle.ConstantTimeCompare(got[:], a.tokenHash[:]) != 1 {
		return problem(http.StatusUnauthorized, "wrong token", "the token is not that of this server").
			hint("WEIR_TOKEN must be what the server has as WEIR_ADMIN_TOKEN")
	}
	return nil
}

func (a *api) fail(w http.ResponseWriter, r *http.Request, rt route, err error) {
	p, internal := problemOf(err)
	if internal && a.away(r.Context()) {
		writeProblem(w, problem(http.StatusServiceUnavailable, "no database", "the database cannot be asked at the moment").
			hint("try again when weir ready says nothing of the database"))
		return
	}
	if internal && r.Context().Err() == nil {
		id := strings.TrimPrefix(p.Instance, "urn:uuid:")
		a.Logger.ErrorContext(r.Context(), "admin request failed", "request_id", id, "method", rt.method, "route", rt.path, "err", err)
	}
	writeProblem(w, p)
}

// away says whether the database is: it does not answer, or has not been prepared yet. The checks of [Options.Ready] say why.
func (a *api) away(ctx context.Context) bool { return a.Database != nil && a.Database(ctx) != nil }

func (a *api) version(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, Version{Version: a.Version, Go: runtime.Version()})
	return nil
}

func (a *api) document(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/yaml") // https://www.rfc-editor.org/rfc/rfc9512
	_, _ = w.Write(openAPI)
	return nil
}

func (a *api) metrics(w http.ResponseWriter, r *http.Request) error {
	a.Metrics.ServeHTTP(w, r)
	return nil
}
