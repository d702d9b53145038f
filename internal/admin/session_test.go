// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/admin/admintest"
	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/usage"
)

// answer is what a handler answered to an operation of the document.
type answer struct {
	op, contentType string
	status          int
	body            []byte
}

// recorder keeps every answer of a handler.
type recorder struct {
	mu      sync.Mutex
	answers []answer
}

func (rec *recorder) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := httptest.NewRecorder()
		next.ServeHTTP(got, r)
		rec.mu.Lock()
		rec.answers = append(rec.answers, answer{r.Pattern, got.Header().Get("Content-Type"), got.Code, bytes.Clone(got.Body.Bytes())})
		rec.mu.Unlock()
		maps.Copy(w.Header(), got.Header())
		w.WriteHeader(got.Code)
		_, _ = io.Copy(w, got.Body)
	})
}

// startRecorded checks, when the test ends, that every answer was as in the document and gave no secret away, and that every operation of
// the document was answered as it should be.
func startRecorded(t *testing.T, secrets []string) *admintest.Server {
	t.Helper()
	rec := &recorder{}
	t.Cleanup(func() {
		d := admin.ReadDocument(t)
		done := map[string]bool{}
		for _, a := range rec.answers {
			if err := d.Check(a.op, a.status, a.contentType, a.body); err != nil {
				t.Errorf("%s: %v", a.op, err)
			}
			for _, secret := range secrets {
				if bytes.Contains(a.body, []byte(secret)) {
					t.Errorf("%s gives a secret away: %s", a.op, a.body)
				}
			}
			done[a.op] = done[a.op] || a.status < 300
		}
		for _, op := range d.Operations() {
			if !done[op] {
				t.Errorf("%s was not answered with success", op)
			}
		}
	})
	return admintest.Start(t, nil, rec.wrap)
}

func TestClientUsesTheWholeAPIAsDocumented(t *testing.T) {
	provider := httptest.NewServer(fake.New(fake.Options{Credentials: map[string]string{"hunter2": "a", "hunter3": "a"}, Models: []string{"m"}}))
	t.Cleanup(provider.Close)
	s := startRecorded(t, []string{"hunter2", "hunter3", admintest.Token})
	c, ctx := client(t, s), t.Context()

	if v, err := c.Version(ctx); err != nil || v.Version != admintest.Version {
		t.Errorf("version: got %v, %v", v, err)
	}
	if r, err := c.Ready(ctx); err != nil || !r.Ready {
		t.Errorf("ready: got %v, %v", r, err)
	}
	for _, path := range []string{"/livez", "/metrics", "/api/v1/plugin-metrics", "/api/v1/openapi.yaml", "/api/v1/profiles/heap"} {
		if res, body := call(t, s.URL+path, "GET", ""); res.StatusCode != http.StatusOK || body == "" {
			t.Errorf("%s: got %d", path, res.StatusCode)
		}
	}
	tenant := tenants(t, c)
	key := keys(t, c, tenant)
	scopes(t, c)
	channel := channels(t, c, provider.URL+"/v1")
	usages(t, s, c, key, channel)
	prices(t, c)
	limits(t, c, key)
	budgets(t, s.Store, c, tenant, key)
	plugins(t, c, tenant)
	if _, err := c.Doctor(ctx); err != nil {
		t.Error(err)
	}
	if err := c.DeleteChannel(ctx, channel.Name); err != nil {
		t.Error(err)
	}
	if err := c.DeleteTenant(ctx, tenant.Name); !isProblem(err, http.StatusConflict, "still in use") {
		t.Errorf("delete a tenant with keys: got %v", err)
	}
	if k, err := c.RevokeKey(ctx, key.Name); err != nil || !k.Revoked {
		t.Errorf("revoke: got %+v, %v", k, err)
	}
	if err := c.DeleteTenant(ctx, tenant.Name); err != nil {
		t.Error(err)
	}
	if _, err := c.Tenant(ctx, tenant.Name); !isProblem(err, http.StatusNotFound, `tenant "bigger": not found`) {
		t.Errorf("show a deleted tenant: got %v", err)
	}
}

func isProblem(err error, status int, detail string) bool {
	p, ok := errors.AsType[*admin.Problem](err)
	return ok && p.Status == status && strings.Contains(p.Detail, detail) && p.Hint != ""
}

var ignoreCreated = cmpopts.IgnoreFields(admin.Tenant{}, "Created")

func tenants(t *testing.T, c *admin.Client) admin.Tenant {
	t.Helper()
	ctx := t.Context()
	made, err := c.CreateTenant(ctx, admin.NewTenant{Name: "big"})
	if err != nil {
		t.Fatal(err)
	}
	if made.Created.IsZero() || made.ID == 0 {
		t.Errorf("got %+v", made)
	}
	name, yes := "bigger", true
	changed, err := c.SetTenant(ctx, "big", admin.TenantChange{Name: &name, Disabled: &yes})
	if err != nil {
		t.Fatal(err)
	}
	want := admin.Tenant{ID: made.ID, Name: "bigger", Disabled: true, Groups: []string{}, TimeZone: "UTC"}
	if diff := cmp.Diff(changed, want, ignoreCreated); diff != "" {
		t.Errorf("changed (-got +want):\n%s", diff)
	}
	shown, err := c.Tenant(ctx, fmt.Sprint(made.ID))
	if diff := cmp.Diff(shown, changed); err != nil || diff != "" {
		t.Errorf("shown: %v\n%s", err, diff)
	}
	all, err := c.Tenants(ctx)
	if err != nil || len(all) != 2 || all[0].Name != "default" || all[1].Name != "bigger" {
		t.Errorf("list: got %+v, %v", all, err)
	}
	return changed
}

func keys(t *testing.T, c *admin.Client, tenant admin.Tenant) admin.Key {
	t.Helper()
	ctx := t.Context()
	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	made, err := c.CreateKey(ctx, admin.NewKey{Tenant: tenant.Name, Name: "laptop", Models: []string{"m*"}, Expires: &expires})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(made.Secret, "sk-weir-") || made.Created.IsZero() || made.Hint == "" || strings.Contains(made.Hint, made.Secret) {
		t.Errorf("got %+v", made)
	}
	want := admin.Key{TenantID: tenant.ID, Tenant: tenant.Name, Name: "laptop", Models: []string{"m*"}, Expires: &expires}
	ignore := cmp.Options{cmpopts.IgnoreFields(admin.Key{}, "ID", "Hint", "Created", "Fingerprint"), cmpopts.EquateEmpty()}
	if diff := cmp.Diff(made.Key, want, ignore); diff != "" {
		t.Errorf("made (-got +want):\n%s", diff)
	}
	name, yes := "desktop", true
	changed, err := c.SetKey(ctx, tenant.Name+"/laptop", admin.KeyChange{Name: &name, Models: &[]string{}, Disabled: &yes, Expires: admin.Null[time.Time]()})
	if err != nil {
		t.Fatal(err)
	}
	want = admin.Key{TenantID: tenant.ID, Tenant: tenant.Name, Name: "desktop", Models: []string{}, Disabled: true}
	if diff := cmp.Diff(changed, want, ignore); diff != "" {
		t.Errorf("changed (-got +want):\n%s", diff)
	}
	later := expires.Add(time.Hour)
	if k, err := c.SetKey(ctx, "desktop", admin.KeyChange{Expires: admin.To(later)}); err != nil || k.Expires == nil || !k.Expires.Equal(later) || !k.Disabled {
		t.Errorf("new expiry: got %+v, %v", k, err)
	}
	if k, err := c.Key(ctx, "bigger/desktop"); err != nil || k.ID != made.ID {
		t.Errorf("show: got %+v, %v", k, err)
	}
	if all, err := c.Keys(ctx, "default"); err != nil || len(all) != 0 {
		t.Errorf("of another tenant: got %+v, %v", all, err)
	}
	if all, err := c.Keys(ctx, ""); err != nil || len(all) != 1 {
		t.Errorf("list: got %+v, %v", all, err)
	}
	return changed
}

func limits(t *testing.T, c *admin.Client, key admin.Key) {
	t.Helper()
	ctx := t.Context()
	l, err := c.SetLimit(ctx, admin.SetLimit{
		Key: key.Name, Model: "m*", Rates: admin.Rates{Requests: admin.To[int64](60), Concurrency: admin.To[int64](2), BurstSeconds: admin.To(2.5)},
	})
	if err != nil || *l.Key != key.Name || *l.Requests != 60 || l.Total != nil || l.BurstSeconds != 2.5 {
		t.Fatalf("set: got %+v, %v", l, err)
	}
	if l, err = c.SetLimit(ctx, admin.SetLimit{Key: key.Name, Model: "m*", Rates: admin.Rates{Requests: admin.Null[int64](), Total: admin.To[int64](1000)}}); err != nil ||
		l.Requests != nil || *l.Concurrency != 2 || *l.Total != 1000 {
		t.Errorf("changed: got %+v, %v", l, err)
	}
	for _, bad := range []admin.Rates{
		{},
		{Requests: admin.To[int64](0)},
		{Input: admin.To[int64](-1)},
		{Output: admin.To[int64](math.MaxInt64)},
		{Concurrency: admin.To[int64](1 << 40)},
		{BurstSeconds: admin.To(0.5)},
		{BurstSeconds: admin.To(1e300)},
	} {
		if l, err := c.SetLimit(ctx, admin.SetLimit{Key: key.Name, Rates: bad}); err == nil {
			t.Errorf("%+v is taken: %+v", bad, l)
		}
	}
	all, err := c.Limits(ctx, "", key.Name)
	if err != nil || len(all) != 1 || all[0].ID != l.ID {
		t.Errorf("list: got %+v, %v", all, err)
	}
	if err := c.DeleteLimit(ctx, l.ID); err != nil {
		t.Error(err)
	}
	if err := c.DeleteLimit(ctx, l.ID); !isProblem(err, http.StatusNotFound, "not found") {
		t.Errorf("deleted twice: %v", err)
	}
	rates := admin.Rates{Total: admin.To[int64](5000)}
	if _, err := c.SetKey(ctx, key.Name, admin.KeyChange{Limits: &rates}); err != nil {
		t.Error(err)
	}
	if _, err := c.SetTenant(ctx, key.Tenant, admin.TenantChange{Limits: &rates}); err != nil {
		t.Error(err)
	}
	if all, err := c.Limits(ctx, key.Tenant, ""); err != nil || len(all) != 2 || *all[0].Total != 5000 {
		t.Errorf("of the tenant: got %+v, %v", all, err)
	}
}

// scopes is what keys may reach and carry, their rotation and import, and what the audit has of all that.
func scopes(t *testing.T, c *admin.Client) {
	t.Helper()
	ctx := t.Context()
	c.As("ann")
	defer c.As("")
	const secret = "sk-of-another-gateway"
	made, err := c.CreateKey(ctx, admin.NewKey{
		Name: "moved", Hash: admin.HashOf(secret), Hint: "sk-of…", Groups: []string{"eu"}, Networks: []string{"10.0.0.0/8"}, Tags: map[string]string{"team": "a"},
		Metadata: map[string]string{"owner": "b"}, Pinnable: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := admin.KeyScope{
		Groups: []string{"eu"}, Networks: []string{"10.0.0.0/8"}, Tags: map[string]string{"team": "a"}, Metadata: map[string]string{"owner": "b"}, Pinnable: true,
		Fingerprint: admin.FingerprintOf(admin.HashOf(secret)),
	}
	if diff := cmp.Diff(made.KeyScope, want); diff != "" || made.Secret != "" {
		t.Errorf("made with the secret %q (-got +want):\n%s", made.Secret, diff)
	}
	if _, err := c.SetKey(ctx, "moved", admin.KeyChange{Hash: new("sha256:12"), Hint: new("x")}); !isProblem(err, http.StatusBadRequest, "64 hexadecimal digits") {
		t.Errorf("a hash that is none: %v", err)
	}
	if k, err := c.SetKey(ctx, "moved", admin.KeyChange{Hash: new(admin.HashOf("other")), Hint: new("ot…")}); err != nil || k.Fingerprint == want.Fingerprint || k.Hint != "ot…" {
		t.Errorf("another hash: %+v, %v", k, err)
	}
	rotated, err := c.RotateKey(ctx, "moved", time.Hour)
	if err != nil || !strings.HasPrefix(rotated.Secret, "sk-weir-") || rotated.PreviousUntil == nil || rotated.ID != made.ID {
		t.Errorf("rotated: %+v, %v", rotated, err)
	}
	if _, err := c.RotateKey(ctx, "moved", -time.Second); err == nil {
		t.Error("rotated with an overlap below zero")
	}
	in := admin.KeyImport{Keys: []admin.ImportedKey{{Hash: admin.HashOf("a"), Hint: "a…"}, {Hash: admin.HashOf("b"), Hint: "b…", Name: "b"}}}
	for i, want := range []admin.KeyImported{{Created: 2}, {Known: 2}} {
		if got, err := c.ImportKeys(ctx, in); err != nil || got != want {
			t.Errorf("import %d: %+v, %v", i, got, err)
		}
	}
	entries, err := c.Audit(ctx, admin.AuditQuery{Kind: "key", Object: "moved"}, 2)
	if err != nil || len(entries) != 2 || entries[0].Actor != "admin/ann" || entries[0].Address != "127.0.0.1" || entries[0].Action != "change" {
		t.Errorf("audit: %+v, %v", entries, err)
	}
	if all, err := c.Audit(ctx, admin.AuditQuery{Actor: "admin/ann"}, 1000); err != nil || len(all) != 5 {
		t.Errorf("%d entries of ann, %v", len(all), err)
	}
}

func channels(t *testing.T, c *admin.Client, base string) admin.Channel {
	t.Helper()
	ctx := t.Context()
	made := addChannel(t, c, "first")
	want := admin.Channel{
		Name: "first", Provider: "openai", BaseURL: "https://provider.invalid/v1", HasCredential: true,
		Models: []admin.Model{{Name: "m"}, {Name: "small", Upstream: "m-mini"}}, Weight: 1,
		BillPartial: "estimate",
	}
	ignore := cmp.Options{cmpopts.IgnoreFields(admin.Channel{}, "ID", "Created", "TenantID", "CredentialFingerprint"), cmpopts.EquateEmpty()}
	if diff := cmp.Diff(made, want, ignore); diff != "" {
		t.Errorf("made (-got +want):\n%s", diff)
	}
	var (
		name, provider, key = "second", "fake", "hunter3"
		priority, weight    = 5, 7
		yes, no             = true, false
		tenant, bill        = "bigger", "input"
	)
	changed := must(t)(c.SetChannel(ctx, "first", admin.ChannelChange{
		Name: &name, Provider: &provider, BaseURL: &base, Credential: &key, Models: &[]admin.Model{{Name: "m"}},
		Priority: &priority, Weight: &weight, Tenant: admin.To(tenant), Disabled: &yes, BillPartial: &bill,
	}))
	want = admin.Channel{
		Name: name, Provider: provider, BaseURL: base, HasCredential: true, Models: []admin.Model{{Name: "m"}},
		Priority: priority, Weight: weight, Tenant: &tenant, Disabled: true, BillPartial: bill,
	}
	if diff := cmp.Diff(changed, want, ignore); diff != "" {
		t.Errorf("changed (-got +want):\n%s", diff)
	}
	if changed.TenantID == nil {
		t.Error("changed: no tenant_id")
	}
	changed = must(t)(c.SetChannel(ctx, "second", admin.ChannelChange{Tenant: admin.Null[string](), Disabled: &no}))
	if changed.Tenant != nil || changed.TenantID != nil || changed.Disabled || changed.Weight != weight {
		t.Errorf("for everybody: got %+v", changed)
	}
	if shown := must(t)(c.Channel(ctx, "second")); !cmp.Equal(shown, changed) {
		t.Errorf("shown (-got +want):\n%s", cmp.Diff(shown, changed))
	}
	if all, err := c.Channels(ctx); err != nil || len(all) != 1 || !cmp.Equal(all[0], changed) {
		t.Errorf("list: got %+v, %v", all, err)
	}
	got, err := c.TestChannel(ctx, "second")
	if err != nil || !got.OK || got.Status != http.StatusOK || got.URL != base+"/models" || len(got.MissingModels) != 0 {
		t.Errorf("test: got %+v, %v", got, err)
	}
	return changed
}

func usages(t *testing.T, s *admintest.Server, c *admin.Client, k admin.Key, ch admin.Channel) {
	t.Helper()
	ctx := t.Context()
	record := usage.Record{
		Tenant: policy.TenantID(k.TenantID), Key: policy.KeyID(k.ID), Channel: policy.ChannelID(ch.ID), Model: "m", UpstreamModel: "up",
		Operation: policy.OpChat, Status: usage.StatusOK, HTTPStatus: 200, Attempts: 2, Stream: true,
		Tokens:       usage.Tokens{Input: 100, CachedInput: 20, Output: 50, Reasoning: 10, Details: usage.Details{CacheWrite: 3}},
		Billed:       usage.Billed{BilledInput: 90, BilledOutput: 40},
		Cost:         usage.Cost{CostNanoUSD: 1234, PriceVersion: 7},
		RequestBytes: 1000, ResponseBytes: 2000, FirstByte: 30 * time.Millisecond, Duration: 400 * time.Millisecond,
	}
	lost := usage.Record{
		Tenant: record.Tenant, Key: record.Key, Model: "n", Operation: policy.OpChat, Status: usage.StatusClientClosed, Attempts: 1,
		Estimated: true, FirstByte: -1,
	}
	if err := admintest.PostUsage(ctx, s.Store, record, record, record, lost); err != nil {
		t.Fatal(err)
	}
	rows, err := c.Usage(ctx, admin.UsageQuery{Key: k.Name, Channel: ch.Name, Tenant: "bigger", Model: "m", Status: "ok", Since: time.Now().Add(-time.Hour), Until: time.Now().Add(time.Hour)}, 10)
	if err != nil || len(rows) != 3 {
		t.Fatalf("got %+v, %v", rows, err)
	}
	firstByte := int64(30)
	want := admin.UsageRow{
		ExchangeID: rows[0].ExchangeID, TS: rows[0].TS,
		TenantID: k.TenantID, Tenant: "bigger", KeyID: k.ID, Key: k.Name, ChannelID: &ch.ID, Channel: ch.Name, Model: "m", UpstreamModel: "up",
		Operation: "chat", Status: "ok", HTTPStatus: 200, Attempts: 2, Stream: true,
		InputTokens: 100, CachedInputTokens: 20, OutputTokens: 50, ReasoningTokens: 10, BilledInput: 90, BilledOutput: 40, RequestBytes: 1000, ResponseBytes: 2000,
		FirstByteMS: &firstByte, DurationMS: 400,
		Tags: map[string]string{}, CostNanoUSD: new(int64(1234)), PriceVersion: new(int64(7)), TokenDetails: usage.Details{CacheWrite: 3},
	}
	if diff := cmp.Diff(rows[0], want); diff != "" {
		t.Errorf("row (-got +want):\n%s", diff)
	}
	one, err := c.Usage(ctx, admin.UsageQuery{Exchange: rows[1].ExchangeID.String()}, 10)
	if diff := cmp.Diff(one, rows[1:2]); err != nil || diff != "" {
		t.Errorf("one exchange: %v\n%s", err, diff)
	}
	pages(t, s, rows)
	none, err := c.Usage(ctx, admin.UsageQuery{Model: "n"}, 10)
	if err != nil || len(none) != 1 || none[0].ChannelID != nil || none[0].FirstByteMS != nil || !none[0].Estimated {
		t.Errorf("without a channel: got %+v, %v", none, err)
	}
	sums, err := c.SumUsage(ctx, admin.UsageQuery{Key: fmt.Sprint(k.ID)}, []string{"model"})
	slices.SortFunc(sums, func(a, b admin.UsageSum) int { return strings.Compare(a.Group["model"], b.Group["model"]) })
	wantSums := []admin.UsageSum{
		{Group: map[string]string{"model": "m"}, Requests: 3, InputTokens: 300, CachedInputTokens: 60, OutputTokens: 150, ReasoningTokens: 30, BilledInput: 270, BilledOutput: 120, CostNanoUSD: new(int64(3702))},
		{Group: map[string]string{"model": "n"}, Requests: 1, Estimated: 1, Unpriced: 1},
	}
	if diff := cmp.Diff(sums, wantSums); err != nil || diff != "" {
		t.Errorf("sums: %v (-got +want)\n%s", err, diff)
	}
	if total, err := c.SumUsage(ctx, admin.UsageQuery{}, nil); err != nil || len(total) != 1 || total[0].Requests != 4 {
		t.Errorf("total: got %+v, %v", total, err)
	}
}

// pages reads the same rows in pages of one, by the cursor.
func pages(t *testing.T, s *admintest.Server, want []admin.UsageRow) {
	t.Helper()
	url := s.URL + "/api/v1/usage?status=ok&limit=1"
	var got []string
	for cursor := ""; len(got) <= len(want); {
		_, body := call(t, url+cursor, "GET", "")
		var page admin.List[admin.UsageRow]
		decodeInto(t, body, &page)
		if len(page.Items) == 0 {
			break
		}
		got = append(got, page.Items[0].ExchangeID.String())
		if page.Next == "" {
			break
		}
		cursor = "&cursor=" + page.Next
	}
	var ids []string
	for _, r := range want {
		ids = append(ids, r.ExchangeID.String())
	}
	if diff := cmp.Diff(got, ids); diff != "" {
		t.Errorf("pages (-got +want):\n%s", diff)
	}
}

func TestKeysComeInPages(t *testing.T) {
	s := admintest.Start(t, nil, nil)
	c := client(t, s)
	for range 3 {
		if _, err := c.CreateKey(t.Context(), admin.NewKey{}); err != nil {
			t.Fatal(err)
		}
	}
	var page admin.List[admin.Key]
	_, body := call(t, s.URL+"/api/v1/keys?limit=2", "GET", "")
	decodeInto(t, body, &page)
	if len(page.Items) != 2 || page.Next == "" {
		t.Fatalf("first page: got %s", body)
	}
	_, body = call(t, s.URL+"/api/v1/keys?limit=2&cursor="+page.Next, "GET", "")
	var last admin.List[admin.Key]
	decodeInto(t, body, &last)
	if len(last.Items) != 1 || last.Next != "" || last.Items[0].ID <= page.Items[1].ID {
		t.Errorf("last page: got %s", body)
	}
}

func TestWrongSecretKeyIsExplained(t *testing.T) {
	s := admintest.Start(t, nil, nil)
	addChannel(t, client(t, s), "c")
	other := admintest.WithSecretKey(t, s, bytes.Repeat([]byte{2}, 32))
	_, err := client(t, other).Channels(t.Context())
	p, ok := errors.AsType[*admin.Problem](err)
	if !ok || p.Status != http.StatusInternalServerError || !strings.Contains(p.Hint, "WEIR_SECRET_KEY") {
		t.Errorf("got %v", err)
	}
	checks, err := client(t, other).Doctor(t.Context())
	i := slices.IndexFunc(checks, func(c admin.Check) bool { return c.Name == "channels" })
	if err != nil || i < 0 || checks[i].Verdict != admin.Fail || !strings.Contains(checks[i].Hint, "WEIR_SECRET_KEY") {
		t.Errorf("doctor: got %+v, %v", checks, err)
	}
	if err := client(t, other).DeleteChannel(t.Context(), "c"); err != nil {
		t.Errorf("delete: %v", err)
	}
}

func budgets(t *testing.T, s *store.Store, c *admin.Client, tenant admin.Tenant, key admin.Key) {
	t.Helper()
	ctx := t.Context()
	ref := admin.BudgetRef{Key: tenant.Name + "/" + key.Name}
	if _, err := c.Budget(ctx, ref); !isProblem(err, http.StatusNotFound, "budget of") {
		t.Errorf("a budget that is not there: %v", err)
	}
	amount, never, notices := int64(1_000_000_000), "never", []int{80}
	terms := admin.BudgetTerms{AmountNanoUSD: &amount, Period: &never, Notices: &notices}
	if _, err := c.SetKey(ctx, key.Name, admin.KeyChange{Budget: admin.To(terms)}); err != nil {
		t.Fatal(err)
	}
	top := admin.TopUp{AmountNanoUSD: 500, Reference: "r-1", Note: "n"}
	for _, want := range []bool{true, false} {
		got, err := c.TopUp(ctx, ref, top)
		if err != nil || got.Booked != want || got.Budget.CreditNanoUSD != amount+500 || got.Budget.LeftNanoUSD != amount+500 {
			t.Errorf("top up: got %+v, %v", got, err)
		}
	}
	top.AmountNanoUSD = -5
	if _, err := c.TopUp(ctx, ref, top); err == nil || !strings.Contains(err.Error(), "more than 0") {
		t.Errorf("top up by less than nothing: %v", err)
	}
	b, err := c.Budget(ctx, ref)
	if err != nil || b.Key == nil || *b.Key != key.Name || b.Period != never || b.Renews != nil || b.TimeZone != "UTC" || len(b.Notices) != 1 {
		t.Errorf("show: got %+v, %v", b, err)
	}
	entries, err := c.Ledger(ctx, ref, 10)
	if err != nil || len(entries) != 2 || entries[0].Kind != "top_up" || entries[1].AmountNanoUSD != amount {
		t.Errorf("ledger: got %+v, %v", entries, err)
	}
	zone := "Europe/Berlin"
	changed, err := c.SetTenant(ctx, tenant.Name, admin.TenantChange{
		TimeZone: &zone, Parent: admin.To("default"), Budget: admin.To(admin.BudgetTerms{AmountNanoUSD: &amount}),
	})
	if err != nil || changed.TimeZone != zone || changed.Parent == nil || *changed.Parent != "default" {
		t.Errorf("tenant: got %+v, %v", changed, err)
	}
	if all, err := c.Budgets(ctx); err != nil || len(all) != 2 || all[1].Period != "month" || all[1].Key != nil || all[1].Renews == nil {
		t.Errorf("list: got %+v, %v", all, err)
	}
	ref = admin.BudgetRef{Tenant: tenant.Name}
	if got, err := c.TopUp(ctx, ref, admin.TopUp{AmountNanoUSD: 7, Reference: "r-1"}); err != nil || !got.Booked {
		t.Errorf("top up of a tenant: got %+v, %v", got, err)
	}
	if b, err := c.Budget(ctx, ref); err != nil || b.CreditNanoUSD != amount+7 || b.Key != nil {
		t.Errorf("show that of a tenant: got %+v, %v", b, err)
	}
	if entries, err := c.Ledger(ctx, ref, 1); err != nil || len(entries) != 1 || entries[0].Period == nil {
		t.Errorf("ledger of a tenant: got %+v, %v", entries, err)
	}
	holder := uuid.New()
	if _, err := s.Join(ctx, holder); err != nil {
		t.Fatal(err)
	}
	if got, err := c.ReleaseLeases(ctx, holder.String(), admin.Release{}); err != nil || got.Holder != holder || got.LeasedNanoUSD != 0 {
		t.Errorf("release: got %+v, %v", got, err)
	}
	if _, err := c.ReleaseLeases(ctx, "00000000-0000-0000-0000-000000000007", admin.Release{}); !isProblem(err, http.StatusNotFound, "holder") {
		t.Errorf("release: %v", err)
	}
	if _, err := c.SetTenant(ctx, tenant.Name, admin.TenantChange{Parent: admin.Null[string](), Budget: admin.Null[admin.BudgetTerms]()}); err != nil {
		t.Error(err)
	}
	if _, err := c.Budget(ctx, admin.BudgetRef{Tenant: tenant.Name}); !isProblem(err, http.StatusNotFound, "budget of") {
		t.Errorf("a budget that was removed: %v", err)
	}
}
