// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

func TestBeginFindsTheKeyInEachHeader(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Head){
		"bearer":          func(h *Head) { h.Authorization = "Bearer " + secret },
		"scheme's case":   func(h *Head) { h.Authorization = "bEARER " + secret },
		"spaces":          func(h *Head) { h.Authorization = "Bearer   " + secret + " " },
		"azure":           func(h *Head) { h.APIKey = secret },
		"anthropic":       func(h *Head) { h.XAPIKey = secret },
		"all agree":       func(h *Head) { h.Authorization, h.APIKey, h.XAPIKey = "Bearer "+secret, secret, secret },
		"empty bearer":    func(h *Head) { h.Authorization, h.APIKey = "Bearer ", secret },
		"not yet expired": func(h *Head) { h.APIKey = "sk-lasting" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &Head{Method: "POST", Path: "/v1/chat/completions"}
			change(h)
			if _, denial := admit(t, newEngine(t, nil), h, `{"model":"gpt-4o"}`); denial != nil {
				t.Errorf("denied: %v", denial)
			}
		})
	}
}

func TestBeginRefusesCredentials(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		head Head
		want string // in the message
	}{
		"none":           {Head{}, "You didn't provide an API key"},
		"empty bearer":   {Head{Authorization: "Bearer "}, "You didn't provide an API key"},
		"bearer only":    {Head{Authorization: "Bearer"}, "You didn't provide an API key"},
		"unknown":        {Head{Authorization: "Bearer sk-wrong"}, "Incorrect API key provided"},
		"unknown, azure": {Head{APIKey: "sk-wrong"}, "Incorrect API key provided"},
		"basic":          {Head{Authorization: "Basic " + secret}, "must have the form"},
		"no scheme":      {Head{Authorization: secret}, "must have the form"},
		"differ":         {Head{Authorization: "Bearer " + secret, XAPIKey: "sk-limited"}, "Several different"},
		"differ, others": {Head{APIKey: secret, XAPIKey: "sk-limited"}, "Several different"},
		"two lines":      {Head{Authorization: "Bearer " + secret + ",Bearer " + secret}, "one key, in one header"},
		"two lines same": {Head{APIKey: secret + "," + secret}, "one key, in one header"},
		"disabled":       {Head{APIKey: "sk-disabled"}, "is disabled"},
		"revoked":        {Head{APIKey: "sk-revoked"}, "has been revoked"},
		"expired":        {Head{APIKey: "sk-expired"}, "has expired"},
		"tenant gone":    {Head{APIKey: "sk-of-gone"}, "account of this API key is disabled"},
		"dev's key":      {Head{APIKey: DevSecret}, "Incorrect API key provided"},
		"a hash":         {Head{APIKey: string(func() []byte { h := HashKey(secret); return h[:] }())}, "Incorrect API key provided"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t, nil)
			// Who has no key gets the same answer on every path.
			for _, path := range []string{"/v1/chat/completions", "/v1/models", "/nothing", ""} {
				h := tt.head
				h.Method, h.Path = "POST", path
				x, reply, denial := e.Begin(&h)
				if reply != nil {
					t.Fatalf("%s replied", path)
				}
				checkDenial(t, denial, 401, CodeInvalidKey)
				if !strings.Contains(denial.Message, tt.want) {
					t.Errorf("message %q, want %q in it", denial.Message, tt.want)
				}
				for _, s := range []string{secret, "sk-"} {
					if strings.Contains(denial.Message, s) {
						t.Errorf("message %q repeats a key", denial.Message)
					}
				}
				if _, denial := x.Admit([]byte(`{"model":"gpt-4o"}`)); denial == nil {
					t.Fatal("a refused exchange was admitted")
				}
			}
		})
	}
}

func TestDevKeyWorksOnlyInDevelopment(t *testing.T) {
	t.Parallel()
	h := post("/v1/chat/completions")
	h.Authorization = "Bearer " + DevSecret
	if _, denial := admit(t, newEngine(t, func(o *Options) { o.Dev = true }), h, `{"model":"gpt-4o"}`); denial != nil {
		t.Errorf("denied in development: %v", denial)
	}
}

func TestBeginRefusesByPathMethodAndFraming(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*Head)
		status int
		code   string
		want   string
	}{
		"unknown path":  {func(h *Head) { h.Path = "/v1/foo?x=1" }, 404, CodeUnknownURL, "Invalid URL (POST /v1/foo)"},
		"no version":    {func(h *Head) { h.Path = "/chat/completions" }, 404, CodeUnknownURL, "The base URL of a client ends in /v1."},
		"version twice": {func(h *Head) { h.Path = "/v1/v1/chat/completions" }, 404, CodeUnknownURL, "Leave /v1 out"},
		"root":          {func(h *Head) { h.Path = "/" }, 404, CodeUnknownURL, "Invalid URL (POST /)"},
		"slash behind":  {func(h *Head) { h.Path += "/" }, 404, CodeUnknownURL, "Invalid URL (POST /v1/chat/completions/)"},
		"escaped slash": {func(h *Head) { h.Path = "/v1/chat%2Fcompletions" }, 404, CodeUnknownURL, "Invalid URL"},
		"dots":          {func(h *Head) { h.Path = "/v1/x/../chat/completions" }, 404, CodeUnknownURL, "Invalid URL"},
		"long path":     {func(h *Head) { h.Path = "/" + strings.Repeat("a", 5000) }, 404, CodeUnknownURL, "aaa…)"},
		"GET":           {func(h *Head) { h.Method = "GET" }, 405, CodeMethodNotAllowed, "Use POST"},
		"POST models":   {func(h *Head) { h.Path = "/v1/models" }, 405, CodeMethodNotAllowed, "Use GET"},
		"DELETE model":  {func(h *Head) { h.Method, h.Path = "DELETE", "/v1/models/gpt-4o" }, 405, CodeMethodNotAllowed, "Use GET"},
		"no body":       {func(h *Head) { h.EndOfStream, h.ContentLength = true, "" }, 400, CodeInvalidRequest, "no body"},
		"length zero":   {func(h *Head) { h.EndOfStream, h.ContentLength = true, "0" }, 400, CodeInvalidRequest, "no body"},
		"GET with body": {func(h *Head) { h.Method, h.Path = "GET", "/v1/models" }, 400, CodeInvalidRequest, "takes no body"},
		"gzip":          {func(h *Head) { h.ContentEncoding = "gzip" }, 415, CodeUnsupportedEncoding, "uncompressed"},
		"two codings":   {func(h *Head) { h.ContentEncoding = "identity,br" }, 415, CodeUnsupportedEncoding, "uncompressed"},
		"too long":      {func(h *Head) { h.ContentLength = "1048577" }, 413, CodeTooLarge, "1048576 bytes"},
		"far too long":  {func(h *Head) { h.ContentLength = "9223372036854775807" }, 413, CodeTooLarge, "1048576 bytes"},
		"no number":     {func(h *Head) { h.ContentLength = "-1" }, 400, CodeInvalidRequest, "content-length"},
		"two lengths":   {func(h *Head) { h.ContentLength = "10,10" }, 400, CodeInvalidRequest, "content-length"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := post("/v1/chat/completions")
			tt.change(h)
			x, reply, denial := newEngine(t, nil).Begin(h)
			if reply != nil || x.ID == uuid.Nil {
				t.Fatalf("Begin = %v, %v, want an id and no reply", x.ID, reply)
			}
			checkDenial(t, denial, tt.status, tt.code)
			if !strings.Contains(denial.Message, tt.want) || len(denial.Message) > 400 {
				t.Errorf("message %q, want %q in it", denial.Message, tt.want)
			}
			if (denial.Allow != "") != (tt.status == 405) {
				t.Errorf("allow = %q with status %d", denial.Allow, tt.status)
			}
		})
	}
}

func TestBeginAcceptsOddButRightHeads(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Head){
		"chunked":     func(h *Head) { h.ContentLength = "" },
		"query":       func(h *Head) { h.Path += "?api-version=2024-10-21&x=/v1/foo" },
		"identity":    func(h *Head) { h.ContentEncoding = "Identity" },
		"just fits":   func(h *Head) { h.ContentLength = "1048576" },
		"completions": func(h *Head) { h.Path = "/v1/completions" },
		"embeddings":  func(h *Head) { h.Path = "/v1/embeddings" },
		"responses":   func(h *Head) { h.Path = "/v1/responses" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := post("/v1/chat/completions")
			change(h)
			if _, reply, denial := newEngine(t, nil).Begin(h); reply != nil || denial != nil {
				t.Errorf("Begin = %v, %v, want to go on", reply, denial)
			}
		})
	}
}

func TestExchangeIDsAreUUIDsOfVersion7(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil)
	seen := map[uuid.UUID]bool{}
	for range 1000 {
		x, _, _ := e.Begin(&Head{})
		if x.ID.Version() != 7 || x.ID.Variant() != uuid.RFC4122 || seen[x.ID] {
			t.Fatalf("%s: version %d, variant %s, seen %v", x.ID, x.ID.Version(), x.ID.Variant(), seen[x.ID])
		}
		seen[x.ID] = true
		sec, nsec := x.ID.Time().UnixTime()
		if got := time.Unix(sec, nsec); !got.Equal(noon) {
			t.Fatalf("%s: made at %v, want %v", x.ID, got, noon)
		}
	}
}

func TestModelsListsWhatTheKeyMayUse(t *testing.T) {
	t.Parallel()
	object := func(id string) string {
		return `{"id":"` + id + `","object":"model","created":0,"owned_by":"weir"}`
	}
	list := func(ids ...string) string {
		for i, id := range ids {
			ids[i] = object(id)
		}
		return `{"object":"list","data":[` + strings.Join(ids, ",") + `]}`
	}
	tests := map[string]struct {
		key, path string
		want      string // empty for 404
	}{
		"all":          {secret, "/v1/models", list("gpt-4o", "gpt-4o-mini", "meta/llama", "text-embedding-3-small")},
		"query":        {secret, "/v1/models?limit=1", list("gpt-4o", "gpt-4o-mini", "meta/llama", "text-embedding-3-small")},
		"limited":      {"sk-limited", "/v1/models", list("gpt-4o-mini", "text-embedding-3-small")},
		"own channels": {"sk-of-other", "/v1/models", list("gpt-4o", "gpt-4o-mini", "meta/llama", "private", "text-embedding-3-small")},
		"one":          {secret, "/v1/models/gpt-4o", object("gpt-4o")},
		"slash":        {secret, "/v1/models/meta/llama", object("meta/llama")},
		"escaped":      {secret, "/v1/models/meta%2Fllama", object("meta/llama")},
		"unknown":      {secret, "/v1/models/nope", ""},
		"not its own":  {secret, "/v1/models/private", ""},
		"disabled":     {secret, "/v1/models/off", ""},
		"not allowed":  {"sk-limited", "/v1/models/gpt-4o", ""},
		"bad escape":   {secret, "/v1/models/%zz", ""},
		"nothing":      {secret, "/v1/models/", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &Head{Method: "GET", Path: tt.path, XAPIKey: tt.key, EndOfStream: true}
			_, reply, denial := newEngine(t, nil).Begin(h)
			if tt.want == "" {
				checkDenial(t, denial, 404, CodeModelNotFound)
				return
			}
			if denial != nil {
				t.Fatal(denial)
			}
			if diff := cmp.Diff(string(reply.Body), tt.want); diff != "" || reply.Status != 200 {
				t.Errorf("status %d, body differs (-got +want):\n%s", reply.Status, diff)
			}
		})
	}
}

func TestModelsOfNobodyIsAnEmptyList(t *testing.T) {
	t.Parallel()
	data := testData()
	data.Channels = nil
	e := newEngine(t, nil)
	e.SetSnapshot(mustSnapshot(t, data))
	_, reply, denial := e.Begin(&Head{Method: "GET", Path: "/v1/models", APIKey: secret, EndOfStream: true})
	if denial != nil || string(reply.Body) != `{"object":"list","data":[]}` {
		t.Errorf("reply = %s, %v, want an empty list", reply.Body, denial)
	}
}

func TestClosedGateRefusesWhatIsBilledAndNothingElse(t *testing.T) {
	t.Parallel()
	var closed *Denial
	e := newEngine(t, func(o *Options) { o.Gate = func() *Denial { return closed } })
	if _, denial := admit(t, e, post("/v1/chat/completions"), `{"model":"gpt-4o"}`); denial != nil {
		t.Fatalf("open: %v", denial)
	}
	x, _, denial := e.Begin(post("/v1/chat/completions"))
	if denial != nil {
		t.Fatal(denial)
	}

	closed = Unavailable()
	_, denial = x.Admit([]byte(`{"model":"gpt-4o"}`))
	checkDenial(t, denial, 503, CodeUnavailable)
	if denial.RetryAfter == 0 {
		t.Error("the client is not told when to come back")
	}
	for path := range endpoints {
		if path == "/v1/models" {
			continue
		}
		_, _, denial := e.Begin(post(path))
		checkDenial(t, denial, 503, CodeUnavailable)
	}
	_, reply, denial := e.Begin(&Head{Method: "GET", Path: "/v1/models", Authorization: "Bearer " + secret, EndOfStream: true})
	if denial != nil || reply == nil || reply.Status != 200 {
		t.Errorf("models: got %+v, %v", reply, denial)
	}
	h := post("/v1/chat/completions")
	h.Authorization = "Bearer sk-nobody"
	_, _, denial = e.Begin(h)
	checkDenial(t, denial, 401, CodeInvalidKey) // who has no key learns nothing

	closed = nil
	if _, denial := admit(t, e, post("/v1/chat/completions"), `{"model":"gpt-4o"}`); denial != nil {
		t.Errorf("open again: %v", denial)
	}
}
