// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/admin/admintest"
)

// call sends a request with the right token, unless headers say otherwise, and returns the answer with its body.
func call(t *testing.T, url, method, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+admintest.Token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close() //nolint:errcheck // what was read is read
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func decodeInto(t *testing.T, body string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(body), v); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
}

func problemIn(t *testing.T, res *http.Response, body string) admin.Problem {
	t.Helper()
	if got := res.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("content type: got %q", got)
	}
	var p admin.Problem
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	if p.Status != res.StatusCode {
		t.Errorf("status in the body: got %d, want %d", p.Status, res.StatusCode)
	}
	if !strings.HasPrefix(p.Type, "urn:weir:problem:") || p.Title == "" || p.Detail == "" {
		t.Errorf("incomplete problem: %s", body)
	}
	return p
}

func TestOnlyTheTokenOpensTheAPI(t *testing.T) {
	s := admintest.Start(t, nil, nil)
	for name, header := range map[string]string{
		"none":         "",
		"wrong":        "Bearer wrong",
		"longer":       "Bearer " + admintest.Token + "x",
		"shorter":      "Bearer " + admintest.Token[1:],
		"empty":        "Bearer ",
		"other scheme": "Basic " + admintest.Token,
		"bare":         admintest.Token,
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{"/api/v1/keys", "/api/v1/openapi.yaml", "/api/v1/profiles/heap", "/api/v1/nothing"} {
				res, body := call(t, s.URL+path, "GET", "", "Authorization", header)
				if res.StatusCode != http.StatusUnauthorized || res.Header.Get("WWW-Authenticate") == "" {
					t.Errorf("%s: got %d, www-authenticate %q", path, res.StatusCode, res.Header.Get("WWW-Authenticate"))
				}
				if p := problemIn(t, res, body); p.Hint == "" || strings.Contains(body, admintest.Token) {
					t.Errorf("%s: got %s", path, body)
				}
			}
		})
	}
	if res, body := call(t, s.URL+"/api/v1/keys", "GET", "", "Authorization", "bearer "+admintest.Token); res.StatusCode != http.StatusOK {
		t.Errorf("the scheme is not case-sensitive: got %d %s", res.StatusCode, body)
	}
	for _, path := range []string{"/livez", "/readyz", "/metrics"} {
		if res, body := call(t, s.URL+path, "GET", "", "Authorization", ""); res.StatusCode != http.StatusOK {
			t.Errorf("%s without a token: got %d %s", path, res.StatusCode, body)
		}
	}
}

func TestServerWithoutATokenRefusesEveryRequest(t *testing.T) {
	s := admintest.Start(t, func(o *admin.Options) { o.Token = "" }, nil)
	for _, header := range []string{"", "Bearer", "Bearer ", "Bearer x"} {
		res, body := call(t, s.URL+"/api/v1/keys", "GET", "", "Authorization", header)
		if res.StatusCode != http.StatusUnauthorized || !strings.Contains(problemIn(t, res, body).Hint, "WEIR_ADMIN_TOKEN") {
			t.Errorf("authorization %q: got %d %s", header, res.StatusCode, body)
		}
	}
}

func TestBadRequestsAreRefusedWithAReason(t *testing.T) {
	s := admintest.Start(t, nil, nil)
	const channel = `{"name":"c","provider":"openai","base_url":"https://x/v1","models":[{"name":"m"}]`
	for name, c := range map[string]struct {
		request, body string
		status        int
		want          string // in the detail
	}{
		"no body":           {"POST /api/v1/tenants", " ", 400, "the body is empty"},
		"not JSON":          {"POST /api/v1/tenants", "{", 400, "the body is not JSON"},
		"array":             {"POST /api/v1/tenants", "[]", 400, "must be a JSON object, not an array"},
		"null":              {"POST /api/v1/tenants", "null", 400, "must be a JSON object, not null"},
		"two values":        {"POST /api/v1/tenants", `{"name":"a"} {}`, 400, "the body is not JSON"},
		"unknown member":    {"POST /api/v1/tenants", `{"name":"a","nmae":"b"}`, 400, `unknown member "nmae"`},
		"deep unknown":      {"POST /api/v1/channels", channel + `,"models":[{"name":"m","up":"u"}]}`, 400, `unknown member "up"`},
		"wrong type":        {"POST /api/v1/tenants", `{"name":5}`, 400, `"name" cannot be a number`},
		"deep wrong type":   {"POST /api/v1/channels", `{"models":[{"name":[]}]}`, 400, `"models.name" cannot be an array`},
		"fraction":          {"POST /api/v1/channels", channel + `,"weight":1.5}`, 400, `"weight" cannot be the number 1.5`},
		"null member":       {"PATCH /api/v1/keys/1", `{"name":null}`, 400, `"name" must not be null`},
		"bad time":          {"POST /api/v1/keys", `{"expires":"soon"}`, 400, "soon"},
		"past time":         {"POST /api/v1/keys", `{"expires":"2020-01-01T00:00:00Z"}`, 422, "in the past"},
		"bad name":          {"POST /api/v1/tenants", `{"name":"Big Name"}`, 422, "only lowercase letters"},
		"zero weight":       {"POST /api/v1/channels", channel + `,"weight":0}`, 400, `"weight" must be at least 1`},
		"unknown tenant":    {"POST /api/v1/keys", `{"tenant":"nobody"}`, 404, `tenant "nobody": not found`},
		"unknown key":       {"GET /api/v1/keys/nobody", "", 404, `key "nobody": not found`},
		"taken name":        {"POST /api/v1/tenants", `{"name":"default"}`, 409, `tenant "default": already exists`},
		"big body":          {"POST /api/v1/tenants", `{"name":"` + strings.Repeat("a", 1<<20) + `"}`, 413, "longer than 1 MiB"},
		"limit":             {"GET /api/v1/keys?limit=1001", "", 400, `"limit" must be from 1 to 1000`},
		"limit text":        {"GET /api/v1/usage?limit=x", "", 400, `"limit" must be from 1 to 1000`},
		"cursor":            {"GET /api/v1/keys?cursor=x", "", 400, `"cursor" must be`},
		"unknown parameter": {"GET /api/v1/usage?tenannt=x", "", 400, `"tenannt" is unknown here`},
		"twice":             {"GET /api/v1/usage?model=a&model=b", "", 400, `"model" is given twice`},
		"since":             {"GET /api/v1/usage?since=yesterday", "", 400, `"since" must be a time`},
		"exchange":          {"GET /api/v1/usage?exchange=x", "", 400, `"exchange" must be a UUID`},
		"usage of nobody":   {"GET /api/v1/usage?tenant=nobody", "", 404, `tenant "nobody": not found`},
		"unknown dimension": {"GET /api/v1/usage/sum?by=colour", "", 422, "colour"},
		"no such path":      {"GET /api/v1/prices/x/y", "", 404, "there is nothing at /api/v1/prices/x/y"},
		"no such page":      {"GET /", "", 404, "there is nothing at /"},
		"wrong method":      {"PUT /api/v1/keys/1", "{}", 405, "PUT is not possible here"},
		"delete of nobody":  {"DELETE /api/v1/tenants/nobody", "", 404, `tenant "nobody": not found`},
	} {
		t.Run(name, func(t *testing.T) {
			method, path, _ := strings.Cut(c.request, " ")
			res, body := call(t, s.URL+path, method, c.body)
			if res.StatusCode != c.status {
				t.Errorf("status: got %d, want %d", res.StatusCode, c.status)
			}
			if p := problemIn(t, res, body); !strings.Contains(p.Detail, c.want) || strings.Contains(p.Detail, "\n") {
				t.Errorf("detail: got %q, want %q in it", p.Detail, c.want)
			}
		})
	}
	if res, _ := call(t, s.URL+"/api/v1/keys/1", "PUT", "{}"); res.Header.Get("Allow") != "GET, HEAD, PATCH" {
		t.Errorf("allow: got %q", res.Header.Get("Allow"))
	}
	res, body := call(t, s.URL+"/api/v1/tenants", "POST", `{"name":"a"}`, "Content-Type", "text/plain")
	if p := problemIn(t, res, body); p.Status != http.StatusUnsupportedMediaType {
		t.Errorf("text/plain: got %d", p.Status)
	}
}

func TestPagesOfOtherOriginsMayChangeNothing(t *testing.T) {
	s := admintest.Start(t, nil, nil)
	res, body := call(t, s.URL+"/api/v1/tenants", "POST", `{"name":"a"}`, "Sec-Fetch-Site", "cross-site")
	if p := problemIn(t, res, body); p.Status != http.StatusForbidden {
		t.Errorf("got %d %s", p.Status, body)
	}
	if res, body := call(t, s.URL+"/api/v1/tenants", "POST", `{"name":"a"}`, "Sec-Fetch-Site", "same-origin"); res.StatusCode != http.StatusCreated {
		t.Errorf("same origin: got %d %s", res.StatusCode, body)
	}
}

func TestEveryAnswerHasTheHeadersOfSafety(t *testing.T) {
	s := admintest.Start(t, nil, nil)
	for _, path := range []string{"/livez", "/api/v1/keys", "/api/v1/nothing"} {
		res, _ := call(t, s.URL+path, "GET", "")
		for name, want := range map[string]string{
			"X-Content-Type-Options":  "nosniff",
			"Cache-Control":           "no-store",
			"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
		} {
			if got := res.Header.Get(name); got != want {
				t.Errorf("%s: %s: got %q, want %q", path, name, got, want)
			}
		}
	}
}

func TestWithoutItsDatabaseTheAPISaysSo(t *testing.T) {
	var log bytes.Buffer
	s := admintest.Start(t, func(o *admin.Options) {
		o.Database = func(context.Context) error { return errors.New("not connected yet") }
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	}, nil)
	s.Store.Close()
	res, body := call(t, s.URL+"/api/v1/channels", "GET", "")
	if p := problemIn(t, res, body); p.Status != http.StatusServiceUnavailable || p.Hint == "" || p.Instance != "" {
		t.Errorf("got %s", body)
	}
	_, body = call(t, s.URL+"/api/v1/doctor", "GET", "")
	if got := strings.Count(body, "not known without the database"); got != 2 { // channels and keys
		t.Errorf("the doctor says %s", body)
	}
	if log.Len() > 0 {
		t.Errorf("an outage that is told elsewhere is logged as a fault: %s", &log)
	}
}

func TestReadinessSaysWhatIsMissingButNotHowToMendIt(t *testing.T) {
	checks := []admin.Check{
		{Name: "database", Verdict: admin.OK, Detail: "answers"},
		{Name: "envoy", Verdict: admin.Warn, Detail: "slow", Hint: "secret hint"},
	}
	s := admintest.Start(t, func(o *admin.Options) {
		o.Ready = func(context.Context) []admin.Check { return checks }
	}, nil)
	res, body := call(t, s.URL+"/readyz", "GET", "", "Authorization", "")
	if want := `{"ready":true,"checks":[{"name":"envoy","verdict":"warn","detail":"slow"}]}` + "\n"; res.StatusCode != 200 || body != want {
		t.Errorf("warn: got %d %s", res.StatusCode, body)
	}
	checks[1].Verdict = admin.Fail
	res, body = call(t, s.URL+"/readyz", "GET", "", "Authorization", "")
	if want := `{"ready":false,"checks":[{"name":"envoy","verdict":"fail","detail":"slow"}]}` + "\n"; res.StatusCode != 503 || body != want {
		t.Errorf("fail: got %d %s", res.StatusCode, body)
	}
	if res, body := call(t, s.URL+"/livez", "GET", "", "Authorization", ""); res.StatusCode != 200 || body != `{"live":true}`+"\n" {
		t.Errorf("livez: got %d %s", res.StatusCode, body)
	}
}

func TestDoctorSaysWhyNoRequestWouldBeServed(t *testing.T) {
	s := admintest.Start(t, nil, nil)
	c := client(t, s)
	verdicts := func() map[string]admin.Verdict {
		t.Helper()
		checks, err := c.Doctor(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]admin.Verdict{}
		for _, check := range checks {
			m[check.Name] = check.Verdict
			if check.Verdict != admin.OK && check.Hint == "" {
				t.Errorf("%s: no hint", check.Name)
			}
		}
		return m
	}
	expect := func(step string, want map[string]admin.Verdict) {
		t.Helper()
		if diff := cmp.Diff(verdicts(), want); diff != "" {
			t.Errorf("%s (-got +want):\n%s", step, diff)
		}
	}
	expect("empty", map[string]admin.Verdict{"database": admin.OK, "channels": admin.Fail, "keys": admin.Fail})

	k, err := c.CreateKey(t.Context(), admin.NewKey{Name: "k"})
	if err != nil {
		t.Fatal(err)
	}
	ch := addChannel(t, c, "c")
	expect("complete", map[string]admin.Verdict{"database": admin.OK, "channels": admin.OK, "keys": admin.OK})

	yes, no := true, false
	must(t)(c.SetChannel(t.Context(), ch.Name, admin.ChannelChange{Disabled: &yes}))
	mustTenant(t)(c.SetTenant(t.Context(), "default", admin.TenantChange{Disabled: &yes}))
	expect("disabled", map[string]admin.Verdict{"database": admin.OK, "channels": admin.Fail, "keys": admin.Fail})

	mustTenant(t)(c.SetTenant(t.Context(), "default", admin.TenantChange{Disabled: &no}))
	if _, err := c.RevokeKey(t.Context(), k.Name); err != nil {
		t.Fatal(err)
	}
	expect("revoked", map[string]admin.Verdict{"database": admin.OK, "channels": admin.Fail, "keys": admin.Fail})
}

func TestCausesGoToTheLogAndNotToTheClient(t *testing.T) {
	var log bytes.Buffer
	s := admintest.Start(t, func(o *admin.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		o.Ready = func(context.Context) []admin.Check { panic("hunter2") }
	}, nil)
	res, body := call(t, s.URL+"/readyz", "GET", "")
	if p := problemIn(t, res, body); p.Status != 500 || strings.Contains(body, "hunter2") || !strings.Contains(log.String(), "hunter2") {
		t.Errorf("panic: got %d %s\nlog: %s", p.Status, body, log.String())
	}
	log.Reset()
	s.Store.Close()
	res, body = call(t, s.URL+"/api/v1/keys", "GET", "")
	p := problemIn(t, res, body)
	id := strings.TrimPrefix(p.Instance, "urn:uuid:")
	if p.Status != 500 || strings.Contains(body, "pool") || id == "" || !strings.Contains(log.String(), id) || !strings.Contains(log.String(), "closed pool") {
		t.Errorf("closed store: got %d %s\nlog: %s", p.Status, body, log.String())
	}
}

func TestPanicAfterTheHeaderAbortsTheConnection(t *testing.T) {
	h := admin.New(admin.Options{Logger: slog.New(slog.DiscardHandler), Metrics: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })})
	defer func() {
		if v := recover(); v != http.ErrAbortHandler { //nolint:errorlint // a panic's value
			t.Errorf("got %v, want the panic of the handler", v)
		}
	}()
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil))
}

func client(t *testing.T, s *admintest.Server) *admin.Client {
	t.Helper()
	c, err := admin.NewClient(s.URL, admintest.Token)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func addChannel(t *testing.T, c *admin.Client, name string) admin.Channel {
	t.Helper()
	return must(t)(c.CreateChannel(t.Context(), admin.NewChannel{
		Name: name, Provider: "openai", BaseURL: "https://provider.invalid/v1", Credential: "hunter2",
		Models: []admin.Model{{Name: "m"}, {Name: "small", Upstream: "m-mini"}},
	}))
}

func must(t *testing.T) func(admin.Channel, error) admin.Channel { //nolint:thelper // the case itself, not a helper of it
	return func(c admin.Channel, err error) admin.Channel {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}

func mustTenant(t *testing.T) func(admin.Tenant, error) { //nolint:thelper // the case itself, not a helper of it
	return func(_ admin.Tenant, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhoActsIsAName(t *testing.T) {
	s := admintest.Start(t, nil, nil)
	for name, want := range map[string]int{"ann": http.StatusOK, "Zoë": http.StatusOK, "": http.StatusOK, "a\tb": http.StatusBadRequest, strings.Repeat("a", 65): http.StatusBadRequest} {
		if res, body := call(t, s.URL+"/api/v1/tenants", "GET", "", "X-Weir-Actor", name); res.StatusCode != want {
			t.Errorf("%q: got %d %s, want %d", name, res.StatusCode, body, want)
		}
	}
}
