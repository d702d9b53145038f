// SPDX-License-Identifier: Apache-2.0

package fake_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/internal/fake"
)

func itoa(i int) string { return strconv.Itoa(i) }

func TestSteeringOutsideItsLimitsIsRefused(t *testing.T) {
	t.Parallel()
	_, root := start(t, fake.Options{})
	for header, values := range map[string][]string{
		"X-Fake-Delay-Ms":    {"-1", "600001", "1.5", "", "soon"},
		"X-Fake-Interval-Ms": {"-1", "60001", "0x1"},
		"X-Fake-Tokens":      {"-1", "100001", "99999999999999999999"},
		"X-Fake-Status":      {"200", "399", "600", "-429"},
		"X-Fake-Retry-After": {"-1", "86401"},
		"X-Fake-Cut-After":   {"-1", "1000001"},
		"X-Fake-Frame":       {"0", "-1", "1048577"},
		"X-Fake-No-Usage":    {"yes", ""},
		"X-Fake-Usage-Last":  {"true", ""},
	} {
		for _, v := range values {
			resp, body := ask(t, root+"/v1/chat/completions", hello, header, v)
			message, kind, _, _ := errorOf(t, body)
			if resp.StatusCode != 400 || kind != "invalid_request_error" || !strings.Contains(message, header) || !strings.Contains(message, strconv.Quote(v)) {
				t.Errorf("%s: %q: status = %d, %s: %s", header, v, resp.StatusCode, kind, message)
			}
		}
	}
}

func TestSteeredStatusHasOpenAIsShape(t *testing.T) {
	t.Parallel()
	p, root := start(t, fake.Options{})
	for status, want := range map[int][2]string{
		400: {"invalid_request_error", ""}, 401: {"invalid_request_error", "invalid_api_key"}, 403: {"invalid_request_error", "permission_denied"},
		404: {"invalid_request_error", "model_not_found"}, 418: {"invalid_request_error", ""}, 429: {"requests", "rate_limit_exceeded"},
		500: {"server_error", ""}, 503: {"server_error", "service_unavailable"}, 599: {"server_error", ""},
	} {
		id := itoa(status)
		resp, body := ask(t, root+"/v1/chat/completions", streamed, "X-Fake-Status", id, "X-Fake-Retry-After", "7", "X-Client-Request-Id", id)
		message, kind, code, _ := errorOf(t, body)
		if resp.StatusCode != status || message == "" || kind != want[0] || code != want[1] {
			t.Errorf("%d: status = %d, type = %q, code = %q, message = %q", status, resp.StatusCode, kind, code, message)
		}
		if resp.Header.Get("Retry-After") != "7" || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%d: headers = %v", status, resp.Header)
		}
		a := p.Ledger().Attempts(id)[0]
		if a.Outcome != fake.Failed || a.Status != status || !a.Stream || a.Tokens != (fake.Tokens{}) {
			t.Errorf("%d: ledger has %+v", status, a)
		}
	}
}

// zipped compresses a text.
func zipped(t *testing.T, s string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestBadInputIsRefused(t *testing.T) {
	t.Parallel()
	p, root := start(t, fake.Options{MaxBody: 1 << 20})
	const chat, responses = "/v1/chat/completions", "/v1/responses"
	tests := map[string]struct {
		path, body string
		status     int
		param      string
	}{
		"not JSON":             {chat, `hello`, 400, ""},
		"not an object":        {chat, `[1]`, 400, ""},
		"null":                 {chat, `null`, 400, ""},
		"deeply nested":        {chat, strings.Repeat("[", 1<<19), 400, ""},
		"compressed":           {chat, zipped(t, hello), 400, ""},
		"too large":            {chat, strings.Repeat(" ", 1<<20+1), 413, ""},
		"no model":             {chat, `{"messages":[{"role":"user","content":"a"}]}`, 400, "model"},
		"model in other case":  {chat, `{"Model":"m","messages":[{"role":"user","content":"a"}]}`, 400, "model"},
		"model is a number":    {chat, `{"model":1}`, 400, "model"},
		"stream is a string":   {chat, `{"model":"m","stream":"true"}`, 400, "stream"},
		"no messages":          {chat, `{"model":"m"}`, 400, "messages"},
		"no message":           {chat, `{"model":"m","messages":[]}`, 400, "messages"},
		"unknown role":         {chat, `{"model":"m","messages":[{"role":"king","content":"a"}]}`, 400, "messages[0].role"},
		"content is a number":  {chat, `{"model":"m","messages":[{"role":"user","content":1}]}`, 400, "messages[0].content"},
		"unknown part":         {chat, `{"model":"m","messages":[{"role":"user","content":[{"type":"smell"}]}]}`, 400, "messages[0].content[0].type"},
		"image without a URL":  {chat, `{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"cat"}}]}]}`, 400, "messages[0].content[0].image_url"},
		"n is 0":               {chat, strings.Replace(hello, "{", `{"n":0,`, 1), 400, "n"},
		"n is a string":        {chat, strings.Replace(hello, "{", `{"n":"2",`, 1), 400, "n"},
		"max_tokens below 1":   {chat, strings.Replace(hello, "{", `{"max_tokens":-1,`, 1), 400, "max_tokens"},
		"options, no stream":   {chat, strings.Replace(hello, "{", `{"stream_options":{"include_usage":true},`, 1), 400, "stream_options"},
		"include_usage is 1":   {chat, strings.Replace(streamed, `"include_usage":true`, `"include_usage":1`, 1), 400, "stream_options.include_usage"},
		"tools is an object":   {chat, strings.Replace(hello, "{", `{"tools":{},`, 1), 400, "tools"},
		"completion, nothing":  {"/v1/completions", `{"model":"m"}`, 400, "prompt"},
		"completion, number":   {"/v1/completions", `{"model":"m","prompt":1}`, 400, "prompt"},
		"embedding, empty":     {"/v1/embeddings", `{"model":"m","input":""}`, 400, "input"},
		"embedding, no input":  {"/v1/embeddings", `{"model":"m","input":[]}`, 400, "input"},
		"embedding, mixed":     {"/v1/embeddings", `{"model":"m","input":["a",1]}`, 400, "input"},
		"embedding, format":    {"/v1/embeddings", `{"model":"m","input":"a","encoding_format":"hex"}`, 400, "encoding_format"},
		"embedding, too large": {"/v1/embeddings", `{"model":"m","input":"a","dimensions":1537}`, 400, "dimensions"},
		"response, no input":   {responses, `{"model":"m"}`, 400, "input"},
		"response, a number":   {responses, `{"model":"m","input":1}`, 400, "input"},
		"unknown path":         {"/v1/chat", hello, 404, ""},
		"get of chat":          {chat, "", 405, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, body := ask(t, root+tt.path, tt.body, "X-Client-Request-Id", name)
			message, kind, _, param := errorOf(t, body)
			if resp.StatusCode != tt.status || kind != "invalid_request_error" || param != tt.param || message == "" {
				t.Errorf("status = %d, want %d; param = %q, want %q; %s: %s", resp.StatusCode, tt.status, param, tt.param, kind, message)
			}
			if a := p.Ledger().Attempts(name)[0]; a.Outcome != fake.Failed || a.Tokens != (fake.Tokens{}) {
				t.Errorf("ledger has %+v", a.Served)
			}
		})
	}
}

func TestOutputHasALimit(t *testing.T) {
	t.Parallel()
	_, root := start(t, fake.Options{})
	many := `{"model":"m","n":100,"prompt":[` + strings.Repeat(`"a",`, 99) + `"a"]}`
	tests := map[string][3]string{
		"tokens":  {"chat/completions", strings.Replace(hello, "{", `{"n":11,`, 1), "100000"},
		"choices": {"completions", many, "0"},
	}
	for name, tt := range tests {
		resp, body := ask(t, root+"/v1/"+tt[0], tt[1], "X-Fake-Tokens", tt[2])
		if _, _, _, param := errorOf(t, body); resp.StatusCode != 400 || param != "n" {
			t.Errorf("%s: status = %d, param = %q", name, resp.StatusCode, param)
		}
	}
}

func TestDelayComesBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	p, root := start(t, fake.Options{})
	resp, body := ask(t, root+"/v1/chat/completions", hello, "X-Fake-Delay-Ms", "1", "X-Client-Request-Id", "x")
	if resp.StatusCode != 200 || !json.Valid([]byte(body)) {
		t.Errorf("status = %d: %s", resp.StatusCode, body)
	}
	if a := p.Ledger().Attempts("x")[0]; a.Outcome != fake.Complete {
		t.Errorf("ledger has %+v", a.Served)
	}
}
