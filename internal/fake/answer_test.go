// SPDX-License-Identifier: Apache-2.0

package fake_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"flag"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/weir-proxy/weir/internal/fake"
)

var update = flag.Bool("update", false, "write what the provider answers into testdata")

// TestAnswersHaveOpenAIsShape plays the conversations of testdata: a request as on the wire, without its length, and the whole
// response body. The official SDKs parse the same answers in test/e2e/sdk.
func TestAnswersHaveOpenAIsShape(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no conversations: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			ar, err := txtar.ParseFile(file)
			if err != nil || len(ar.Files) != 2 || ar.Files[0].Name != "request" || ar.Files[1].Name != "response" {
				t.Fatalf("%s has not a request and a response: %v", file, err)
			}
			head, body, _ := strings.Cut(string(ar.Files[0].Data), "\n\n")
			body = strings.TrimSuffix(body, "\n")
			wire := strings.ReplaceAll(head, "\n", "\r\n") + "\r\nHost: fake\r\nContent-Length: " + itoa(len(body)) + "\r\n\r\n" + body
			req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(wire)))
			if err != nil {
				t.Fatal(err)
			}
			w := httptest.NewRecorder()
			fake.New(fake.Options{}).ServeHTTP(w, req)
			got := w.Body.Bytes()
			if w.Header().Get("Content-Type") == "application/json" {
				var indented bytes.Buffer
				if err := json.Indent(&indented, got, "", "  "); err != nil {
					t.Fatal(err)
				}
				got = append(indented.Bytes(), '\n')
			}
			if *update {
				ar.Files[1].Data = got
				if err := os.WriteFile(file, txtar.Format(ar), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(got), string(ar.Files[1].Data)); diff != "" {
				t.Errorf("response (-got +want):\n%s", diff)
			}
		})
	}
}

// usageOf finds the usage that a JSON answer or any event of a stream reports, and the count of events that hold one.
func usageOf(t *testing.T, body string) (u fake.Tokens, reports int) {
	t.Helper()
	blocks := []string{body}
	if strings.Contains(body, "data: ") {
		blocks = events(t, body)
	}
	type details struct {
		Cached    int64 `json:"cached_tokens"`
		Reasoning int64 `json:"reasoning_tokens"`
	}
	type reported struct {
		Prompt            int64   `json:"prompt_tokens"`
		Completion        int64   `json:"completion_tokens"`
		Input             int64   `json:"input_tokens"`
		Output            int64   `json:"output_tokens"`
		Total             int64   `json:"total_tokens"`
		PromptDetails     details `json:"prompt_tokens_details"`
		CompletionDetails details `json:"completion_tokens_details"`
		InputDetails      details `json:"input_tokens_details"`
		OutputDetails     details `json:"output_tokens_details"`
	}
	for _, block := range blocks {
		var o struct {
			Usage    *reported
			Response struct{ Usage *reported }
		}
		if block == "[DONE]" {
			continue
		}
		if err := json.Unmarshal([]byte(block), &o); err != nil {
			t.Fatalf("%v: %s", err, block)
		}
		r := o.Usage
		if r == nil {
			r = o.Response.Usage
		}
		if r == nil {
			continue
		}
		reports++
		u = fake.Tokens{
			Input: r.Prompt + r.Input, CachedInput: r.PromptDetails.Cached + r.InputDetails.Cached,
			Output: r.Completion + r.Output, Reasoning: r.CompletionDetails.Reasoning + r.OutputDetails.Reasoning,
		}
		if u.Input+u.Output != r.Total {
			t.Errorf("total = %d of %+v", r.Total, u)
		}
	}
	return u, reports
}

func TestReportedUsageIsTheLedgers(t *testing.T) {
	t.Parallel()
	p, root := start(t, fake.Options{})
	long := strings.Repeat("many words ", 600)
	tests := map[string]struct {
		path, body string
		headers    []string
		want       fake.Tokens
	}{
		"chat":              {"chat/completions", hello, nil, fake.Tokens{Input: 10, Output: -1}},
		"chat stream":       {"chat/completions", streamed, nil, fake.Tokens{Input: 10, Output: -1}},
		"steered":           {"chat/completions", streamed, []string{"X-Fake-Tokens", "77"}, fake.Tokens{Input: 10, Output: 77}},
		"nothing":           {"chat/completions", streamed, []string{"X-Fake-Tokens", "0"}, fake.Tokens{Input: 10}},
		"limited":           {"chat/completions", strings.Replace(hello, "{", `{"max_completion_tokens":3,`, 1), nil, fake.Tokens{Input: 10, Output: 3}},
		"choices":           {"chat/completions", strings.Replace(streamed, "{", `{"n":3,`, 1), []string{"X-Fake-Tokens", "8"}, fake.Tokens{Input: 10, Output: 24}},
		"reasoning":         {"chat/completions", strings.Replace(hello, "gpt-4o-mini", "o4-mini", 1), []string{"X-Fake-Tokens", "10"}, fake.Tokens{Input: 10, Output: 10, Reasoning: 2}},
		"cached":            {"chat/completions", strings.Replace(hello, "hello there", long, 1), []string{"X-Fake-Tokens", "1"}, fake.Tokens{Input: 1657, CachedInput: 1152, Output: 1}},
		"low image":         {"chat/completions", `{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://a/b.png","detail":"low"}}]}]}`, []string{"X-Fake-Tokens", "1"}, fake.Tokens{Input: 92, Output: 1}},
		"completion":        {"completions", `{"model":"m","prompt":["abcd","abcde"]}`, []string{"X-Fake-Tokens", "4"}, fake.Tokens{Input: 3, Output: 8}},
		"completion ids":    {"completions", `{"model":"m","prompt":[1,2,3]}`, []string{"X-Fake-Tokens", "4"}, fake.Tokens{Input: 3, Output: 4}},
		"completion stream": {"completions", `{"model":"m","prompt":"abcd","stream":true,"stream_options":{"include_usage":true}}`, []string{"X-Fake-Tokens", "4"}, fake.Tokens{Input: 1, Output: 4}},
		"response":          {"responses", `{"model":"o3","input":"abcd"}`, []string{"X-Fake-Tokens", "8"}, fake.Tokens{Input: 8, Output: 8, Reasoning: 2}},
		"response stream":   {"responses", `{"model":"o3","input":"abcd","stream":true}`, []string{"X-Fake-Tokens", "8"}, fake.Tokens{Input: 8, Output: 8, Reasoning: 2}},
		"response limited":  {"responses", `{"model":"m","input":"abcd","max_output_tokens":2}`, nil, fake.Tokens{Input: 8, Output: 2}},
		"embeddings":        {"embeddings", `{"model":"m","input":["abcd","abcde"]}`, nil, fake.Tokens{Input: 3}},
		"embedded ids":      {"embeddings", `{"model":"m","input":[[1,2],[3]]}`, nil, fake.Tokens{Input: 3}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 2 { // made, and taken from the shelf
				resp, body := ask(t, root+"/v1/"+tt.path, tt.body, append(tt.headers, "X-Client-Request-Id", name)...)
				if resp.StatusCode != 200 {
					t.Fatalf("status = %d: %s", resp.StatusCode, body)
				}
				got, reports := usageOf(t, body)
				want := tt.want
				if want.Output < 0 {
					want.Output = got.Output
					if got.Output < 8 || got.Output > 32 {
						t.Errorf("output = %d, want 8 to 32", got.Output)
					}
				}
				if got != want || reports != 1 {
					t.Errorf("reported %d times %+v, want once %+v", reports, got, want)
				}
				attempts := p.Ledger().Attempts(name)
				if last := attempts[len(attempts)-1]; last.Tokens != got || last.Outcome != fake.Complete {
					t.Errorf("ledger has %+v, reported was %+v", last.Served, got)
				}
			}
		})
	}
}

func TestUsageIsReportedWhereTheHeadersSay(t *testing.T) {
	t.Parallel()
	p, root := start(t, fake.Options{})
	unasked := strings.Replace(hello, "{", `{"stream":true,`, 1)
	response := `{"model":"m","input":"a","stream":true}`
	tests := map[string]struct {
		path, body, header, value string
		reports                   int
		nulls, empty              bool
	}{
		"asked":              {"chat/completions", streamed, "X-Other", "1", 1, true, true},
		"unasked":            {"chat/completions", unasked, "X-Other", "1", 0, false, false},
		"asked, last":        {"chat/completions", streamed, "X-Fake-Usage-Last", "content", 1, true, false},
		"unasked, last":      {"chat/completions", unasked, "X-Fake-Usage-Last", "content", 1, false, false},
		"asked, never":       {"chat/completions", streamed, "X-Fake-No-Usage", "true", 0, false, false},
		"never is false":     {"chat/completions", streamed, "X-Fake-No-Usage", "false", 1, true, true},
		"json, never":        {"chat/completions", hello, "X-Fake-No-Usage", "1", 0, false, false},
		"embeddings, never":  {"embeddings", `{"model":"m","input":"a"}`, "X-Fake-No-Usage", "true", 0, false, false},
		"response":           {"responses", response, "X-Other", "1", 1, true, false},
		"response, never":    {"responses", response, "X-Fake-No-Usage", "true", 0, true, false},
		"completions, never": {"completions", `{"model":"m","prompt":"a"}`, "X-Fake-No-Usage", "true", 0, false, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, body := ask(t, root+"/v1/"+tt.path, tt.body, tt.header, tt.value, "X-Client-Request-Id", name)
			if _, reports := usageOf(t, body); reports != tt.reports {
				t.Errorf("reported %d times, want %d", reports, tt.reports)
			}
			if got := strings.Contains(body, `"usage":null`); got != tt.nulls {
				t.Errorf("null usage is %v, want %v", got, tt.nulls)
			}
			if got := strings.Contains(body, `"choices":[]`); got != tt.empty {
				t.Errorf("a chunk without choices is %v, want %v", got, tt.empty)
			}
			if a := p.Ledger().Attempts(name)[0]; a.Input == 0 {
				t.Errorf("ledger has %+v", a.Served)
			}
		})
	}
}

func TestStreamedPiecesMakeTheWholeContent(t *testing.T) {
	t.Parallel()
	_, root := start(t, fake.Options{})
	for name, more := range map[string]string{
		"text":  `{`,
		"json":  `{"response_format":{"type":"json_object"},`,
		"tools": `{"tools":[{"type":"function","function":{"name":"f","parameters":{}}}],`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body := strings.Replace(hello, "{", more, 1)
			_, whole := ask(t, root+"/v1/chat/completions", body, "X-Fake-Tokens", "9")
			_, stream := ask(t, root+"/v1/chat/completions", strings.Replace(body, "{", `{"stream":true,`, 1), "X-Fake-Tokens", "9")
			type text struct {
				Content   string
				ToolCalls []struct{ Function struct{ Arguments string } } `json:"tool_calls"`
			}
			read := func(data string) (s string, pieces int) {
				var o struct {
					Choices []struct{ Message, Delta text }
				}
				if err := json.Unmarshal([]byte(data), &o); err != nil {
					t.Fatal(err)
				}
				for _, p := range []text{o.Choices[0].Message, o.Choices[0].Delta} {
					s += p.Content
					for _, c := range p.ToolCalls {
						s += c.Function.Arguments
					}
				}
				return s, min(len(s), 1)
			}
			want, _ := read(whole)
			var got string
			var pieces int
			for _, data := range events(t, stream) {
				if data == "[DONE]" {
					continue
				}
				s, n := read(data)
				got, pieces = got+s, pieces+n
			}
			// The words differ, since the body is another; their count and what frames them do not.
			if len(strings.Fields(got)) != len(strings.Fields(want)) || pieces != 9 {
				t.Errorf("got %q in %d pieces, want %q in 9", got, pieces, want)
			}
			if name != "text" && !json.Valid([]byte(got)) {
				t.Errorf("not JSON: %s", got)
			}
		})
	}
}

func TestBase64EmbeddingIsTheFloatEmbedding(t *testing.T) {
	t.Parallel()
	_, root := start(t, fake.Options{})
	vectors := func(format string) (vs []json.RawMessage) {
		_, body := ask(t, root+"/v1/embeddings", `{"model":"m","input":["a","b"],"dimensions":16,"encoding_format":"`+format+`"}`)
		var o struct {
			Data []struct{ Embedding json.RawMessage }
		}
		if err := json.Unmarshal([]byte(body), &o); err != nil || len(o.Data) != 2 {
			t.Fatalf("%v: %s", err, body)
		}
		return []json.RawMessage{o.Data[0].Embedding, o.Data[1].Embedding}
	}
	floats, encoded := vectors("float"), vectors("base64")
	for i := range floats {
		var want []float32
		var s string
		if err := json.Unmarshal(floats[i], &want); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(encoded[i], &s); err != nil {
			t.Fatal(err)
		}
		raw, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]float32, len(raw)/4)
		if err := binary.Read(bytes.NewReader(raw), binary.LittleEndian, got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got, want); diff != "" || len(got) != 16 {
			t.Errorf("vector %d (-base64 +float):\n%s", i, diff)
		}
		var norm float64
		for _, x := range want {
			norm += float64(x) * float64(x)
		}
		if math.Abs(norm-1) > 1e-4 {
			t.Errorf("vector %d has length %f", i, norm)
		}
	}
	if bytes.Equal(floats[0], floats[1]) {
		t.Error("two inputs have one vector")
	}
}
