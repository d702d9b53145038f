// SPDX-License-Identifier: Apache-2.0

package tokens

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/internal/jsonscan"
	"github.com/weir-proxy/weir/internal/tokens/bpe"
)

func chatOf(model, body string) Size {
	return Request{Operation: Chat, Model: model, Body: []byte(body)}.Count()
}

// cookbook is the example of OpenAI's cookbook, How_to_count_tokens_with_tiktoken, section 6.
const cookbook = `{"messages":[
{"role":"system","content":"You are a helpful, pattern-following assistant that translates corporate jargon into plain English."},
{"role":"system","name":"example_user","content":"New synergies will help drive top-line growth."},
{"role":"system","name":"example_assistant","content":"Things working well together will increase revenue."},
{"role":"system","name":"example_user","content":"Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage."},
{"role":"system","name":"example_assistant","content":"Let's talk later when we're less busy about how to do better."},
{"role":"user","content":"This late pivot means we don't have time to boil the ocean for the client deliverable."}]}`

// weather is its example of section 7.
const weather = `{"messages":[
{"role":"system","content":"You are a helpful assistant that can answer to questions about the weather."},
{"role":"user","content":"What's the weather like in San Francisco?"}],
"tools":[{"type":"function","function":{"name":"get_current_weather","description":"Get the current weather in a given location",
"parameters":{"type":"object","properties":{"location":{"type":"string","description":"The city and state, e.g. San Francisco, CA"},
"unit":{"type":"string","description":"The unit of temperature to return","enum":["celsius","fahrenheit"]}},"required":["location"]}}}]}`

func TestChatsCountAsOpenAISaysTheyDo(t *testing.T) {
	t.Parallel()
	// The cookbook shows what the API billed.
	for _, tt := range []struct {
		model, body string
		want        int64
		grade       Grade
	}{
		{"gpt-3.5-turbo", cookbook, 129, Exact},
		{"gpt-4", cookbook, 129, Exact},
		{"gpt-4-0613", cookbook, 129, Exact},
		{"gpt-4o", cookbook, 124, Exact},
		{"gpt-4o-mini-2024-07-18", cookbook, 124, Exact},
		{"ft:gpt-4o-mini-2024-07-18:weir::abc", cookbook, 124, Exact},
		{"openai/gpt-4o", cookbook, 124, Exact},
		{"gpt-4.1", cookbook, 124, Estimated},
		{"claude-sonnet-4-5", cookbook, 124, Estimated},
		{"gpt-3.5-turbo", weather, 105, Estimated},
		{"gpt-4", weather, 105, Estimated},
		{"gpt-4o", weather, 101, Estimated},
		{"gpt-4o-mini", weather, 101, Estimated},
	} {
		got := chatOf(tt.model, tt.body)
		if got.Input != tt.want || got.Grade != tt.grade || got.Open {
			t.Errorf("%s: %+v, want %d tokens, %s", tt.model, got, tt.want, tt.grade)
		}
		if bound := (Request{Chat, tt.model, []byte(tt.body)}).Bound(); bound.Most < got.Most || bound.Input != bound.Most {
			t.Errorf("%s: bound %+v, but %+v", tt.model, bound, got)
		}
	}
}

func TestWhatIsCounted(t *testing.T) {
	t.Parallel()
	const hello = `"Hello, world!"` // 4 tokens
	tests := map[string]struct {
		op    Operation
		model string
		body  string
		input int64
		grade Grade
		open  bool
	}{
		"embedding":            {Embeddings, "text-embedding-3-small", `{"input":` + hello + `}`, 4, Exact, false},
		"embeddings":           {Embeddings, "text-embedding-3-small", `{"input":[` + hello + `,` + hello + `]}`, 8, Exact, false},
		"embedded tokens":      {Embeddings, "text-embedding-3-small", `{"input":[1,2,3]}`, 3, Exact, false},
		"lists of tokens":      {Embeddings, "text-embedding-3-small", `{"input":[[1,2,3],[4]]}`, 4, Exact, false},
		"unknown embedding":    {Embeddings, "bge-m3", `{"input":` + hello + `}`, 4, Estimated, false},
		"completion":           {Completions, "gpt-3.5-turbo-instruct", `{"prompt":` + hello + `}`, 4, Exact, false},
		"no prompt":            {Completions, "gpt-3.5-turbo-instruct", `{"prompt":null}`, 1, Exact, false},
		"chat":                 {Chat, "gpt-4o", `{"messages":[{"role":"user","content":` + hello + `}]}`, 11, Exact, false},
		"no content":           {Chat, "gpt-4o", `{"messages":[{"role":"assistant","content":null}]}`, 7, Exact, false},
		"escapes":              {Chat, "gpt-4o", `{"messages":[{"role":"user","content":"\u0048ello, \u0077orld\u0021"}]}`, 11, Exact, false},
		"escaped key":          {Chat, "gpt-4o", `{"m\u0065ssages":[{"ROLE":"user","\u0063ontent":` + hello + `}]}`, 11, Exact, false},
		"settings":             {Chat, "gpt-4o", `{"temperature":1,"user":"somebody","messages":[{"role":"user","content":` + hello + `}]}`, 11, Exact, false},
		"parts":                {Chat, "gpt-4o", `{"messages":[{"role":"user","content":[{"type":"text","text":` + hello + `},{"text":` + hello + `}]}]}`, 15, Estimated, false},
		"a call":               {Chat, "gpt-4o", `{"messages":[{"role":"assistant","tool_calls":[{"id":"call_1","type":"function","function":{"name":"hello","arguments":"{}"}}]}]}`, 3 + 3 + 1 + 6 + 2, Estimated, false},
		"schema":               {Chat, "gpt-4o", `{"messages":[],"response_format":{"type":"json_schema","json_schema":{"a":1}}}`, 3 + 5, Estimated, false},
		"response":             {Responses, "gpt-4o", `{"input":` + hello + `}`, 11, Exact, false},
		"instructions":         {Responses, "gpt-4o", `{"input":` + hello + `,"instructions":` + hello + `}`, 19, Exact, false},
		"items":                {Responses, "gpt-4o", `{"input":[{"type":"message","role":"user","content":[{"type":"input_text","text":` + hello + `}]}]}`, 11, Estimated, false},
		"earlier response":     {Responses, "gpt-4o", `{"input":` + hello + `,"previous_response_id":"resp_1"}`, 11, Estimated, true},
		"no earlier response":  {Responses, "gpt-4o", `{"input":` + hello + `,"previous_response_id":null}`, 11, Exact, false},
		"reference":            {Responses, "gpt-4o", `{"input":[{"type":"item_reference","id":"msg_1"}]}`, 6, Estimated, true},
		"reference, escaped":   {Responses, "gpt-4o", `{"input":[{"type":"item\u005freference","id":"msg_1"}]}`, 6, Estimated, true},
		"search":               {Responses, "gpt-4o", `{"input":` + hello + `,"tools":[{"type":"web_search"}]}`, 11 + 12 + 6, Estimated, true},
		"file elsewhere":       {Chat, "gpt-4o", `{"messages":[{"role":"user","content":[{"type":"file","file":{"file_id":"file-1"}}]}]}`, 7, Estimated, true},
		"text in a file":       {Chat, "gpt-4o", `{"messages":[{"role":"user","content":[{"type":"file","file":{"file_data":"data:text/plain;base64,SGVsbG8="}}]}]}`, 7 + 2, Estimated, false},
		"image elsewhere":      {Chat, "gpt-4o", `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://example.org/a.png"}}]}]}`, 7 + 85 + 8*170, Estimated, false},
		"image, low detail":    {Chat, "gpt-4o", `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"detail":"low","url":"https://example.org/a.png"}}]}]}`, 7 + 85, Estimated, false},
		"image of a response":  {Responses, "gpt-4o", `{"input":[{"role":"user","content":[{"type":"input_image","image_url":"https://example.org/a.png"}]}]}`, 7 + 85 + 8*170, Estimated, false},
		"uploaded image":       {Responses, "gpt-4o", `{"input":[{"role":"user","content":[{"type":"input_image","file_id":"file-1"}]}]}`, 7 + 85 + 8*170, Estimated, false},
		"nothing":              {Chat, "gpt-4o", `{}`, 3, Exact, false},
		"of the wrong kinds":   {Chat, "gpt-4o", `{"messages":{"a":1},"tools":"x","n":[]}`, 3, Exact, false},
		"messages within them": {Chat, "gpt-4o", `{"messages":[[[[{"role":"user"}]]],7,"x"]}`, 3 + 9, Exact, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := Request{tt.op, tt.model, []byte(tt.body)}
			got := r.Count()
			if got.Input != tt.input || got.Grade != tt.grade || got.Open != tt.open {
				t.Errorf("%+v, want input %d, %s, open %t", got, tt.input, tt.grade, tt.open)
			}
			if got.Most < got.Input {
				t.Errorf("at most %d, less than %d", got.Most, got.Input)
			}
			if bound := r.Bound(); bound.Most < got.Most || bound.Open != got.Open {
				t.Errorf("bound %+v, counted %+v", bound, got)
			}
		})
	}
}

func TestLimitsOnTheAnswer(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		op              Operation
		body            string
		output, answers int64
	}{
		"none":              {Chat, `{}`, NoLimit, 1},
		"old":               {Chat, `{"max_tokens":100}`, 100, 1},
		"new":               {Chat, `{"max_completion_tokens":100,"n":3}`, 100, 3},
		"both":              {Chat, `{"max_completion_tokens":10,"max_tokens":20}`, 20, 1},
		"twice":             {Chat, `{"n":5,"n":1,"max_tokens":7,"max_tokens":3}`, 7, 5},
		"in another case":   {Chat, `{"N":5,"mAx_toKens":7}`, NoLimit, 5},
		"in two cases":      {Chat, `{"max_tokens":7,"MAX_TOKENS":9}`, 9, 1},
		"with escapes":      {Chat, `{"max\u005ftokens":7}`, 7, 1},
		"of another kind":   {Chat, `{"max_output_tokens":1}`, NoLimit, 1},
		"of both kinds":     {Chat, `{"max_output_tokens":10,"max_tokens":5}`, 10, 1},
		"of chats":          {Responses, `{"max_tokens":1,"max_completion_tokens":1}`, NoLimit, 1},
		"for chats alone":   {Completions, `{"prompt":"a","max_completion_tokens":1}`, NoLimit, 1},
		"lifted":            {Chat, `{"max_tokens":7,"max_tokens":null}`, NoLimit, 1},
		"lifted before":     {Chat, `{"max_tokens":0,"max_tokens":7}`, NoLimit, 1},
		"the old one null":  {Chat, `{"max_tokens":null,"max_completion_tokens":7}`, 7, 1},
		"null":              {Chat, `{"n":null,"max_tokens":null}`, NoLimit, 1},
		"zero":              {Chat, `{"n":0,"max_tokens":0}`, NoLimit, 1},
		"negative":          {Chat, `{"n":-4,"max_tokens":-1}`, NoLimit, 1},
		"fractions":         {Chat, `{"n":2.1,"max_tokens":1.5e1}`, 15, 3},
		"a string":          {Chat, `{"n":"4","max_tokens":"9"}`, 9, 4},
		"huge":              {Chat, `{"n":1e400,"max_tokens":99999999999999999999}`, math.MaxInt32, math.MaxInt32},
		"nested":            {Chat, `{"metadata":{"n":9,"max_tokens":9}}`, NoLimit, 1},
		"response":          {Responses, `{"max_output_tokens":64}`, 64, 1},
		"best of":           {Completions, `{"prompt":"a","n":2,"best_of":5,"max_tokens":10}`, 10, 5},
		"best of, prompts":  {Completions, `{"best_of":5,"prompt":["a","b"],"max_tokens":10}`, 10, 10},
		"prompts of tokens": {Completions, `{"prompt":[[1],[2],[3]]}`, NoLimit, 3},
		"embeddings":        {Embeddings, `{"input":["a","b"],"n":4,"max_tokens":3}`, 0, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, s := range []Size{(Request{tt.op, "gpt-4o", []byte(tt.body)}).Count(), (Request{tt.op, "gpt-4o", []byte(tt.body)}).Bound()} {
				if s.Output != tt.output || s.Answers != tt.answers {
					t.Errorf("output %d of %d answers, want %d of %d", s.Output, s.Answers, tt.output, tt.answers)
				}
			}
		})
	}
}

func TestMostOutputDoesNotOverflow(t *testing.T) {
	t.Parallel()
	tests := []struct {
		s           Size
		limit, want int64
	}{
		{Size{Output: NoLimit, Answers: 1}, 4096, 4096},
		{Size{Output: 100, Answers: 3, Predicted: 7}, 4096, 307},
		{Size{Output: 100, Answers: 3}, -1, 0},
		{Size{Output: NoLimit, Answers: 2}, NoLimit, math.MaxInt64},
		{Size{Output: math.MaxInt32, Answers: math.MaxInt64}, NoLimit, math.MaxInt64},
		{Size{Output: NoLimit, Answers: 1, Predicted: 1}, NoLimit, math.MaxInt64},
		{Size{Answers: 1}, NoLimit, 0},
	}
	for _, tt := range tests {
		if got := tt.s.MostOutput(tt.limit); got != tt.want {
			t.Errorf("%+v.MostOutput(%d) = %d, want %d", tt.s, tt.limit, got, tt.want)
		}
	}
}

func TestAPredictionIsOutput(t *testing.T) {
	t.Parallel()
	got := chatOf("gpt-4o", `{"messages":[],"prediction":{"type":"content","content":"Hello, world!"}}`)
	if got.Input != 3 || got.Predicted != 4 {
		t.Errorf("%+v, want 3 tokens of input and 4 predicted", got)
	}
}

// TestEscapedTextsCountAsTheirDecodedForm is about the parts that a long string with escapes is decoded in.
func TestEscapedTextsCountAsTheirDecodedForm(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"lines":   strings.Repeat("The weir keeps the level of the river, \"more or less\",\n\tand measures it 24 times a day.\n", 1000),
		"no seam": strings.Repeat("\n\"", 30_000),
		"chinese": strings.Repeat("堰保持着河流的水位，并测量它的流量。\n", 3000),
		"blanks":  strings.Repeat("a          \n", 5000),
	} {
		want := int64(bpe.O200k.Count([]byte(text)))
		for _, q := range []string{ascii(text), quote(text)} {
			if got := (Request{Embeddings, "gpt-4o", []byte(`{"input":` + q + `}`)}).Count(); got.Input != want || got.Grade != Exact {
				t.Errorf("%s: %+v, want %d", name, got, want)
			}
		}
	}
}

func quote(s string) string {
	q, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(q)
}

// ascii quotes as Python's json.dumps does.
func ascii(s string) string {
	var b strings.Builder
	for _, r := range quote(s) {
		switch {
		case r < 0x80:
			b.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xD800+(r-0x10000)>>10, 0xDC00+(r-0x10000)&0x3FF)
		}
	}
	return b.String()
}

func TestLargeTextsAreEstimatedFromTheirBeginning(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("The weir keeps the level of the river, and measures it.\n", 60_000) // 3.4 MB
	want := int64(bpe.O200k.Count([]byte(text)))
	for name, body := range map[string]string{
		"one":  `{"messages":[{"role":"user","content":` + quote(text) + `}]}`,
		"many": `{"messages":[` + strings.Repeat(`{"role":"user","content":`+quote(text[:5600])+`},`, 600) + `{}]}`,
	} {
		if !json.Valid([]byte(body)) {
			t.Fatalf("%s: the test is wrong", name)
		}
		got := chatOf("gpt-4o", body)
		if got.Grade != Estimated || got.Input < want*97/100 || got.Input > want*103/100 {
			t.Errorf("%s: %+v, want about %d", name, got, want)
		}
		if got.Most < int64(len(text)-CountedText) {
			t.Errorf("%s: at most %d, of %d bytes", name, got.Most, len(text))
		}
	}
}

func TestSizingAllocatesNothing(t *testing.T) {
	for name, body := range map[string]string{"cookbook": cookbook, "weather": weather} {
		r := Request{Chat, "gpt-4o", []byte(body)}
		r.Count()
		if got := testing.AllocsPerRun(100, func() { r.Count() }); got != 0 {
			t.Errorf("%s: %v allocations to count", name, got)
		}
		if got := testing.AllocsPerRun(100, func() { r.Bound() }); got != 0 {
			t.Errorf("%s: %v allocations to bound", name, got)
		}
	}
}

func TestEncodingsOfModels(t *testing.T) {
	t.Parallel()
	got := map[string]string{}
	for _, model := range []string{"gpt-4o", "gpt-4", "gpt-4-32k", "gpt-4.1", "gpt-5-mini", "o1-preview", "o3", "o4-mini", "gpt-3.5-turbo", "gpt-35-turbo", "text-embedding-3-large", "gpt-oss-120b", "azure/gpt-4o", "llama-3", ""} {
		r := rulesOf(model)
		got[model] = fmt.Sprint(r.encoding, " ", r.known)
	}
	o, c := "o200k_base true", "cl100k_base true"
	want := map[string]string{
		"gpt-4o": o, "gpt-4": c, "gpt-4-32k": c, "gpt-4.1": o, "gpt-5-mini": o, "o1-preview": o, "o3": o, "o4-mini": o, "gpt-3.5-turbo": c, "gpt-35-turbo": c,
		"text-embedding-3-large": c, "gpt-oss-120b": o, "azure/gpt-4o": o, "llama-3": "o200k_base false", "": "o200k_base false",
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("(-got +want)\n%s", diff)
	}
}

func FuzzSize(f *testing.F) {
	for _, body := range []string{
		cookbook, weather, `{"input":["a",[1]],"n":3}`, `{"prompt":[1,2],"best_of":1e9}`, `{"messages":[{"content":[{"image_url":{"url":"data:image/png;base64,AAAA"}}]}]}`,
		`{"tools":[{"function":{"function":{}}}],"messages":[{"audio":{"id":1},"tool_calls":[{}]}]}`, `{"messages":[{"content":[{"input_audio":{"data":"UklGRg=="}}]}]}`, `{"a\`, `{"\u`, `{"input":"\ud800"`,
	} {
		for op := Chat; op <= Responses; op++ {
			f.Add(byte(op), body)
		}
	}
	keys := jsonscan.NewKeys("model")
	f.Fuzz(func(t *testing.T, op byte, body string) {
		r := Request{Operation(op % 4), []string{"gpt-4o", "gpt-4.1-mini", "other"}[len(body)%3], []byte(body)}
		count, bound := r.Count(), r.Bound()
		var o jsonscan.Object
		if keys.Scan(r.Body, &o) != nil {
			return
		}
		if count.Input < 0 || count.Most < count.Input || bound.Most < count.Most || count.Output < 0 || count.Answers < 1 || count.Predicted < 0 {
			t.Errorf("%q: counted %+v, bound %+v", body, count, bound)
		}
		if count.Open != bound.Open || count.Output != bound.Output || count.Answers != bound.Answers {
			t.Errorf("%q: counted %+v, bound %+v", body, count, bound)
		}
	})
}

func BenchmarkSize(b *testing.B) {
	text := strings.Repeat("The weir keeps the level of the river, \"more or less\", and measures it.\n", 56)
	body := []byte(`{"model":"gpt-4o","messages":[{"role":"system","content":"You are terse."},{"role":"user","content":` + quote(text) + `}],"stream":true}`)
	for name, f := range map[string]func(Request) Size{"count-4KB": Request.Count, "bound-4KB": Request.Bound} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			bpe.O200k.Load()
			for b.Loop() {
				f(Request{Chat, "gpt-4o", body})
			}
		})
	}
}
