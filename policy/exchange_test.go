// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAdmitGivesTicketAndChannelsInOrder(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil)
	x, _, denial := e.Begin(post("/v1/chat/completions"))
	if denial != nil {
		t.Fatal(denial)
	}
	body := `{"messages":[], "model" : "gpt-4o" ,"unknown":{"x":1}}`
	got, denial := x.Admit([]byte(body))
	if denial != nil {
		t.Fatal(denial)
	}
	choices := []Choice{{Channel: 11, Upstream: "deploy/4o"}, {Channel: 10, Upstream: "gpt-4o"}}
	ticket := Ticket{Exchange: x.ID, Tenant: 1, Key: 1, Operation: OpChat, Model: "gpt-4o", Choices: choices}
	want := &Admission{
		Exchange: x.ID, Ticket: ticket.String(), Choices: choices, Model: "gpt-4o",
		ModelStart: 26, ModelEnd: 34, FirstByteTimeout: DefaultFirstByte,
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("admission differs (-got +want):\n%s", diff)
	}
	if at := body[got.ModelStart:got.ModelEnd]; at != `"gpt-4o"` {
		t.Errorf("the model is said to be at %s", at)
	}
}

func TestAdmitWorksOnceOnly(t *testing.T) {
	t.Parallel()
	x, _, _ := newEngine(t, nil).Begin(post("/v1/chat/completions"))
	if _, denial := x.Admit([]byte(`{"model":"gpt-4o"}`)); denial != nil {
		t.Fatal(denial)
	}
	_, denial := x.Admit([]byte(`{"model":"gpt-4o"}`))
	checkDenial(t, denial, 500, CodeInternal)
}

func TestAdmitRefusesBodies(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		body   string
		status int
		code   string
		param  string
		want   string // in the message
	}{
		"empty":              {``, 400, CodeInvalidRequest, "", "no body"},
		"not JSON":           {`hello`, 400, CodeInvalidJSON, "", "expected a JSON object at byte 0"},
		"form":               {`model=gpt-4o`, 400, CodeInvalidJSON, "", "at byte 0"},
		"array":              {`[{"model":"gpt-4o"}]`, 400, CodeInvalidJSON, "", "expected a JSON object at byte 0"},
		"cut":                {`{"model":"gpt-4o"`, 400, CodeInvalidJSON, "", "unexpected end of the text at byte 17"},
		"two objects":        {`{"model":"gpt-4o"}{}`, 400, CodeInvalidJSON, "", "at byte 18"},
		"gzip":               {"\x1f\x8b\x08", 400, CodeInvalidJSON, "", "at byte 0"},
		"nested":             {`{"x":` + strings.Repeat("[", 1<<19), 400, CodeInvalidJSON, "", "nested too deeply at byte 516"},
		"model twice":        {`{"model":"gpt-4o","model":"private"}`, 400, CodeInvalidJSON, "model", `duplicate key at byte 18. Write "model" once`},
		"model, escaped":     {`{"model":"gpt-4o","mod\u0065l":"private"}`, 400, CodeInvalidJSON, "model", "ambiguous spelling"},
		"model, upper case":  {`{"model":"gpt-4o","MODEL":"private"}`, 400, CodeInvalidJSON, "model", "ambiguous spelling"},
		"stream twice":       {`{"model":"gpt-4o","stream":true,"stream":false}`, 400, CodeInvalidJSON, "stream", "duplicate key"},
		"stream, long s":     {`{"model":"gpt-4o","ſtream":true}`, 400, CodeInvalidJSON, "stream", "ambiguous spelling"},
		"usage twice":        {`{"model":"gpt-4o","stream_options":{"include_usage":true,"include_usage":false}}`, 400, CodeInvalidJSON, "stream_options.include_usage", "duplicate key at byte 57"},
		"usage, upper case":  {`{"model":"gpt-4o","stream_options":{"Include_usage":true}}`, 400, CodeInvalidJSON, "stream_options.include_usage", "ambiguous spelling"},
		"no model":           {`{}`, 400, CodeInvalidRequest, "model", "must provide a model"},
		"model null":         {`{"model":null}`, 400, CodeInvalidRequest, "model", "expected a string"},
		"model number":       {`{"model":1}`, 400, CodeInvalidRequest, "model", "expected a string"},
		"model list":         {`{"model":["gpt-4o"]}`, 400, CodeInvalidRequest, "model", "expected a string"},
		"model empty":        {`{"model":""}`, 400, CodeInvalidRequest, "model", "empty string"},
		"model long":         {`{"model":"` + strings.Repeat("m", 513) + `"}`, 400, CodeInvalidRequest, "model", "longer than 512 bytes"},
		"model very long":    {`{"model":"` + strings.Repeat(`m`, 100_000) + `"}`, 400, CodeInvalidRequest, "model", "longer than 512 bytes"},
		"background":         {`{"model":"gpt-4o","background":true}`, 400, CodeInvalidRequest, "background", "fetched later"},
		"background, not no": {`{"model":"gpt-4o","background":1}`, 400, CodeInvalidRequest, "background", "fetched later"},
		"background twice":   {`{"model":"gpt-4o","background":false,"background":true}`, 400, CodeInvalidJSON, "background", "duplicate key"},
		"deferred":           {`{"model":"gpt-4o","deferred":true}`, 400, CodeInvalidRequest, "deferred", "fetched later"},
		"stream string":      {`{"model":"gpt-4o","stream":"true"}`, 400, CodeInvalidRequest, "stream", "expected a boolean"},
		"stream number":      {`{"model":"gpt-4o","stream":1}`, 400, CodeInvalidRequest, "stream", "expected a boolean"},
		"options list":       {`{"model":"gpt-4o","stream":true,"stream_options":[]}`, 400, CodeInvalidRequest, "stream_options", "expected an object"},
		"options true":       {`{"model":"gpt-4o","stream_options":true}`, 400, CodeInvalidRequest, "stream_options", "expected an object"},
		"usage string":       {`{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":"yes"}}`, 400, CodeInvalidRequest, "stream_options.include_usage", "expected a boolean"},
		"unknown model":      {`{"model":"nope"}`, 404, CodeModelNotFound, "model", "The model `nope` does not exist or you do not have access to it."},
		"odd unknown model":  {`{"model":"\u0000\"<b>"}`, 404, CodeModelNotFound, "model", "does not exist"},
		"case of a model":    {`{"model":"GPT-4o"}`, 404, CodeModelNotFound, "model", "does not exist"},
		"another's model":    {`{"model":"private"}`, 404, CodeModelNotFound, "model", "does not exist"},
		"another's, off":     {`{"model":"off-private"}`, 404, CodeModelNotFound, "model", "does not exist"},
		"model switched off": {`{"model":"off"}`, 503, CodeNoChannel, "", "No channel is enabled for the model `off`"},
		"over the limit":     {`{"model":"gpt-4o","x":"` + strings.Repeat("x", 1<<20) + `"}`, 413, CodeTooLarge, "", "1048576 bytes"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, denial := admit(t, newEngine(t, nil), post("/v1/chat/completions"), tt.body)
			checkDenial(t, denial, tt.status, tt.code)
			if a != nil || denial.Param != tt.param || !strings.Contains(denial.Message, tt.want) {
				t.Errorf("param %q, message %q, want %q, %q", denial.Param, denial.Message, tt.param, tt.want)
			}
		})
	}
}

func TestAdmitHoldsTheKeysModels(t *testing.T) {
	t.Parallel()
	for body, code := range map[string]string{
		`{"model":"gpt-4o-mini"}`:            "",
		`{"model":"text-embedding-3-small"}`: "",
		`{"model":"gpt\u002d4o-mini"}`:       "",
		`{"model":"gpt-4o"}`:                 CodeModelNotAllowed,
		`{"model":"gpt-4o-mini "}`:           CodeModelNotAllowed,
		`{"model":"unknown"}`:                CodeModelNotAllowed, // a limited key learns nothing of what else there is
		`{"model":"text-unknown"}`:           CodeModelNotFound,
	} {
		h := post("/v1/embeddings")
		h.Authorization = "Bearer sk-limited"
		_, denial := admit(t, newEngine(t, nil), h, body)
		if code == "" {
			if denial != nil {
				t.Errorf("%s: %v, want admission", body, denial)
			}
			continue
		}
		if denial == nil || denial.Code != code {
			t.Errorf("%s: %v, want %s", body, denial, code)
		}
	}
}

func TestAdmitOpensATenantsOwnChannelsToItOnly(t *testing.T) {
	t.Parallel()
	h := post("/v1/chat/completions")
	h.Authorization = "Bearer sk-of-other"
	a, denial := admit(t, newEngine(t, nil), h, `{"model":"gpt-4o"}`)
	if denial != nil {
		t.Fatal(denial)
	}
	want := []Choice{{Channel: 13, Upstream: "gpt-4o"}, {Channel: 11, Upstream: "deploy/4o"}, {Channel: 10, Upstream: "gpt-4o"}}
	if diff := cmp.Diff(a.Choices, want); diff != "" {
		t.Errorf("choices differ (-got +want):\n%s", diff)
	}
	_, denial = admit(t, newEngine(t, nil), h, `{"model":"off-private"}`)
	checkDenial(t, denial, 503, CodeNoChannel)
}

func TestAdmitAsksForTheUsageOfStreams(t *testing.T) {
	t.Parallel()
	const chat, responses, embeddings = "/v1/chat/completions", "/v1/responses", "/v1/embeddings"
	tests := map[string]struct {
		path, body string
		want       string // the body forwarded; empty when it is the client's
		stream     bool
	}{
		"no stream":           {chat, `{"model":"gpt-4o"}`, "", false},
		"stream false":        {chat, `{"model":"gpt-4o","stream":false}`, "", false},
		"stream null":         {chat, `{"stream":null,"model":"gpt-4o"}`, "", false},
		"false with options":  {chat, `{"model":"gpt-4o","stream_options":{"include_usage":false}}`, "", false},
		"no options":          {chat, `{"model":"gpt-4o","stream":true}`, `{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true}}`, true},
		"white space":         {chat, "{\n  \"model\": \"gpt-4o\", \"stream\": true\n}\n", "{\n  \"model\": \"gpt-4o\", \"stream\": true\n,\"stream_options\":{\"include_usage\":true}}\n", true},
		"asked":               {chat, `{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true}}`, "", true},
		"asked not":           {chat, `{"stream_options":{"include_usage":false},"model":"gpt-4o","stream":true}`, `{"stream_options":{"include_usage":true},"model":"gpt-4o","stream":true}`, true},
		"asked null":          {chat, `{"stream":true,"stream_options":{"include_usage":null},"model":"gpt-4o"}`, `{"stream":true,"stream_options":{"include_usage":true},"model":"gpt-4o"}`, true},
		"options null":        {chat, `{"stream_options": null, "model":"gpt-4o","stream":true}`, `{"stream_options": {"include_usage":true}, "model":"gpt-4o","stream":true}`, true},
		"options empty":       {chat, `{"stream_options":{},"model":"gpt-4o","stream":true}`, `{"stream_options":{"include_usage":true},"model":"gpt-4o","stream":true}`, true},
		"other options":       {chat, `{"stream_options":{"x":[{}]},"model":"gpt-4o","stream":true}`, `{"stream_options":{"x":[{}],"include_usage":true},"model":"gpt-4o","stream":true}`, true},
		"completions":         {"/v1/completions", `{"model":"gpt-4o","stream":true}`, `{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true}}`, true},
		"responses":           {responses, `{"model":"gpt-4o","stream":true}`, "", true},
		"responses, options":  {responses, `{"model":"gpt-4o","stream":true,"stream_options":{"include_obfuscation":false}}`, "", true},
		"embeddings, no such": {embeddings, `{"model":"gpt-4o","stream":true}`, "", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, denial := admit(t, newEngine(t, nil), post(tt.path), tt.body)
			if denial != nil {
				t.Fatal(denial)
			}
			if got := string(a.Body); got != tt.want || (a.Body == nil) != (tt.want == "") {
				t.Errorf("body\n got %s\nwant %s", got, tt.want)
			}
			if a.StripUsage != (tt.want != "") {
				t.Errorf("strip usage = %v with body %q", a.StripUsage, tt.want)
			}
			forwarded := tt.body
			if a.Body != nil {
				forwarded = string(a.Body)
			}
			if at := forwarded[a.ModelStart:a.ModelEnd]; at != `"gpt-4o"` {
				t.Errorf("the model is said to be at %s", at)
			}
			ticket, err := ParseTicket(a.Ticket)
			if err != nil || a.Stream != tt.stream || ticket.Stream != tt.stream {
				t.Errorf("stream = %v, in the ticket %v (%v), want %v", a.Stream, ticket.Stream, err, tt.stream)
			}
			wait := DefaultFirstByte
			if tt.stream {
				wait = DefaultFirstByteStream
			}
			if a.FirstByteTimeout != wait {
				t.Errorf("first byte within %v, want %v", a.FirstByteTimeout, wait)
			}
		})
	}
}

func TestAdmitDecodesTheModelButForwardsItAsItCame(t *testing.T) {
	t.Parallel()
	body := `{"model":"meta\/ll\u0061ma"}`
	a, denial := admit(t, newEngine(t, nil), post("/v1/responses"), body)
	if denial != nil {
		t.Fatal(denial)
	}
	if a.Model != "meta/llama" || a.Body != nil || body[a.ModelStart:a.ModelEnd] != `"meta\/ll\u0061ma"` {
		t.Errorf("model %q at %d-%d, body %s", a.Model, a.ModelStart, a.ModelEnd, a.Body)
	}
}

// An exchange ends by the snapshot that it began with: a key that was authorised at the head does not meet channels of another world. Only that it
// still works is looked at again.
func TestExchangeKeepsItsSnapshot(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil)
	x, _, denial := e.Begin(post("/v1/chat/completions"))
	if denial != nil {
		t.Fatal(denial)
	}
	next := testData()
	next.Channels = nil
	e.SetSnapshot(mustSnapshot(t, next))
	if _, denial := x.Admit([]byte(`{"model":"gpt-4o"}`)); denial != nil {
		t.Errorf("denied by the next snapshot: %v", denial)
	}
}

// FuzzAdmit holds that what is forwarded is valid, asks for usage when it should, and has the model that was authorised where the
// admission says, whoever parses it.
func FuzzAdmit(f *testing.F) {
	for _, s := range []string{
		`{"model":"gpt-4o","stream":true}`, `{"stream_options":{"include_usage":false,"a":[]},"stream":true,"model":"gpt-4o"}`,
		`{"stream":true,"stream_options":null,"model":"gpt\u002d4o"}`, `{"model":"gpt-4o","Stream":true}`, `{"a":{"model":1},"model":"off"}`,
	} {
		f.Add([]byte(s))
	}
	e := newEngine(f, nil)
	f.Fuzz(func(t *testing.T, body []byte) {
		x, _, _ := e.Begin(post("/v1/chat/completions"))
		a, denial := x.Admit(body)
		if (a == nil) == (denial == nil) {
			t.Fatalf("Admit = %v, %v, want one of them", a, denial)
		}
		if denial != nil {
			if !json.Valid(denial.Body()) {
				t.Fatalf("the body of the denial is not JSON: %s", denial.Body())
			}
			return
		}
		forwarded := body
		if a.Body != nil {
			forwarded = a.Body
		}
		var got struct {
			Model   string
			Stream  *bool
			Options *struct {
				Usage *bool `json:"include_usage"`
			} `json:"stream_options"`
		}
		if err := json.Unmarshal(forwarded, &got); err != nil {
			t.Fatalf("forwards what encoding/json refuses: %v: %s", err, forwarded)
		}
		var at string
		if err := json.Unmarshal(forwarded[a.ModelStart:a.ModelEnd], &at); err != nil || at != got.Model || at != a.Model {
			t.Fatalf("model %q, at its place %q, read %q (%v): %s", a.Model, at, got.Model, err, forwarded)
		}
		asks := got.Options != nil && got.Options.Usage != nil && *got.Options.Usage
		if stream := got.Stream != nil && *got.Stream; stream != a.Stream || stream && !asks {
			t.Fatalf("stream %v, read %v, asks for usage %v: %s", a.Stream, stream, asks, forwarded)
		}
	})
}
