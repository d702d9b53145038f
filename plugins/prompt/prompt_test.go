// SPDX-License-Identifier: Apache-2.0

package prompt

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/plugins/abi"
	"github.com/weir-proxy/weir/policy"
)

func read(t *testing.T, op policy.Operation, body string) *Prompt {
	t.Helper()
	p, err := Read(op, []byte(body))
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return p
}

func texts(list ...abi.Text) []abi.Text { return list }

const conversation = `{"model":"m","messages":[
 {"role":"system","content":"Be \u00fcber \"kind\"."},
 {"role":"user","name":"ann","content":[{"type":"text","text":"Look"},{"type":"image_url","image_url":{"url":"data:x"}},{"type":"input_audio","input_audio":{}},"bare",{"type":"odd"}]},
 {"role":"assistant","content":null,"refusal":"no","reasoning_content":"hm","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},{"id":"c2","type":"custom","custom":{"name":"g","input":"raw"}}]},
 {"role":"tool","tool_call_id":"c1","content":"42"}],
 "prediction":{"type":"content","content":"guess"},
 "tools":[{"type":"function","function":{"name":"f","description":"does","parameters":{"type":"object"}}},{"type":"web_search"}],
 "functions":[{"name":"old","parameters":{}}],"max_tokens":50,"max_completion_tokens":70}`

func TestChatIsReadWithAllThatTheModelIsTold(t *testing.T) {
	p := read(t, policy.OpChat, conversation)
	want := []abi.Message{
		{Role: "system", Texts: texts(abi.Text{ID: 1, Text: `Be über "kind".`})},
		{Role: "user", Name: "ann", Texts: texts(abi.Text{ID: 2, Text: "Look"}, abi.Text{ID: 3, Text: "bare"}), Media: []string{"image", "audio", "odd"}},
		{
			Role: "assistant", Texts: texts(abi.Text{ID: 4, Text: "no"}, abi.Text{ID: 5, Text: "hm"}),
			Calls: []abi.ToolCall{{ID: "c1", Name: "f", Arguments: abi.Text{ID: 6, Text: `{"a":1}`}}, {ID: "c2", Name: "g", Arguments: abi.Text{ID: 7, Text: "raw"}}},
		},
		{Role: "tool", Answers: "c1", Texts: texts(abi.Text{ID: 8, Text: "42"})},
		{Role: "assistant", Texts: texts(abi.Text{ID: 9, Text: "guess"})},
	}
	if diff := cmp.Diff(p.Messages, want); diff != "" {
		t.Errorf("messages: got, want: %s", diff)
	}
	tools := []abi.Tool{{Name: "f", Description: "does", Parameters: `{"type":"object"}`}, {Name: "web_search"}, {Name: "old", Parameters: "{}"}}
	if diff := cmp.Diff(p.Tools, tools); diff != "" {
		t.Errorf("tools: got, want: %s", diff)
	}
	if p.MaxOutput != 70 || p.Texts() != 9 {
		t.Errorf("limit %d, %d texts", p.MaxOutput, p.Texts())
	}
}

func TestPromptsOfOtherOperationsAreMessages(t *testing.T) {
	for _, c := range []struct {
		op   policy.Operation
		body string
		want []abi.Message
	}{
		{policy.OpCompletions, `{"model":"m","prompt":"a","suffix":"z"}`, []abi.Message{{Role: "user", Texts: texts(abi.Text{ID: 1, Text: "a"})}, {Role: "user", Texts: texts(abi.Text{ID: 2, Text: "z"})}}},
		{policy.OpCompletions, `{"model":"m","prompt":["a","b"]}`, []abi.Message{{Role: "user", Texts: texts(abi.Text{ID: 1, Text: "a"})}, {Role: "user", Texts: texts(abi.Text{ID: 2, Text: "b"})}}},
		{policy.OpCompletions, `{"model":"m","prompt":[1,2]}`, []abi.Message{{Role: "user", Media: []string{"tokens"}}}},
		{policy.OpEmbeddings, `{"model":"m","input":[[1],[2]]}`, []abi.Message{{Role: "user", Media: []string{"tokens"}}}},
		{policy.OpEmbeddings, `{"model":"m","input":"a"}`, []abi.Message{{Role: "user", Texts: texts(abi.Text{ID: 1, Text: "a"})}}},
		{policy.OpEmbeddings, `{"model":"m"}`, nil},
		{policy.OpResponses, `{"model":"m","instructions":"i","input":"a"}`, []abi.Message{{Role: "system", Texts: texts(abi.Text{ID: 1, Text: "i"})}, {Role: "user", Texts: texts(abi.Text{ID: 2, Text: "a"})}}},
		{
			policy.OpResponses,
			`{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_image"},{"type":"input_file"}]},
			  {"type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":"custom_tool_call","call_id":"d","name":"g","input":"in"},
			  {"type":"function_call_output","call_id":"c","output":"o"},{"type":"function_call_output","call_id":"d","output":[{"type":"input_text","text":"p"}]},
			  {"type":"reasoning","summary":[{"type":"summary_text","text":"s"}],"content":[{"type":"reasoning_text","text":"r"}]},
			  {"type":"item_reference","id":"x"},{"type":"computer_call_output","output":{"type":"screenshot"}}],
			  "prompt":{"id":"p","variables":{"city":"Bern","photo":{"type":"input_image"},"note":{"type":"input_text","text":"n"}}}}`,
			[]abi.Message{
				{Role: "user", Texts: texts(abi.Text{ID: 1, Text: "a"}), Media: []string{"image", "file"}},
				{Role: "assistant", Calls: []abi.ToolCall{{ID: "c", Name: "f", Arguments: abi.Text{ID: 2, Text: "{}"}}}},
				{Role: "assistant", Calls: []abi.ToolCall{{ID: "d", Name: "g", Arguments: abi.Text{ID: 3, Text: "in"}}}},
				{Role: "tool", Answers: "c", Texts: texts(abi.Text{ID: 4, Text: "o"})},
				{Role: "tool", Answers: "d", Texts: texts(abi.Text{ID: 5, Text: "p"})},
				{Role: "assistant", Texts: texts(abi.Text{ID: 6, Text: "r"}, abi.Text{ID: 7, Text: "s"})},
				{Media: []string{"item_reference"}},
				{Media: []string{"computer_call_output"}},
				{Role: "user", Texts: texts(abi.Text{ID: 8, Text: "Bern"}, abi.Text{ID: 9, Text: "n"}), Media: []string{"prompt", "image"}},
			},
		},
	} {
		if diff := cmp.Diff(read(t, c.op, c.body).Messages, c.want); diff != "" {
			t.Errorf("%s: got, want: %s", c.body, diff)
		}
	}
}

func TestBodiesThatTwoReadersReadDifferentlyAreRefused(t *testing.T) {
	for body, param := range map[string]string{
		`{"model":"m","messages":[{"role":"user","content":"safe","content":"evil"}]}`:                       "messages[0]",
		`{"model":"m","messages":[{"role":"user","Content":"evil"}]}`:                                        "messages[0]",
		`{"model":"m","messages":[],"messages":[{"role":"user","content":"evil"}]}`:                          "",
		`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a","text":"b"}]}]}`:       "messages[0].content[0]",
		`{"model":"m","messages":[{},{"tool_calls":[{"function":{"arguments":"a","\u0061rguments":"b"}}]}]}`: "messages[1].tool_calls[0]",
		`{"model":"m","messages":["a"]}`:                                                               "messages[0]",
		`{"model":"m","messages":[{"role":"user","content":5}]}`:                                       "messages[0].content",
		`{"model":"m","messages":[{"role":"user","content":[5]}]}`:                                     "messages[0].content[0]",
		`{"model":"m","messages":[],"tools":[{"type":"function","function":{"name":"a","name":"b"}}]}`: "tools[0]",
		`{"model":"m","messages":[],"tools":["a"]}`:                                                    "tools[0]",
	} {
		_, err := Read(policy.OpChat, []byte(body))
		var e *Error
		if !errors.As(err, &e) || e.Param != param || !strings.HasSuffix(e.Reason, ".") {
			t.Errorf("%s: %#v, want param %q", body, err, param)
		}
	}
	if _, err := Read(policy.OpEmbeddings, []byte(`{"model":"m","input":[{"text":"a"}]}`)); err == nil {
		t.Error("an object among the inputs is accepted")
	}
	if _, err := Read("dance", []byte(`{}`)); err == nil {
		t.Error("an unknown operation is accepted")
	}
}

// value decodes a body, for comparisons that do not hang on spaces.
func value(t *testing.T, body []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return v
}

func TestEditsChangeOnlyTheirStrings(t *testing.T) {
	p := read(t, policy.OpChat, conversation)
	out, err := p.Apply(&abi.Verdict{Edits: []abi.Edit{
		{Text: 1, Start: 0, End: 2, With: "Stay"},
		{Text: 1, Start: 3, End: 9, With: ""},
		{Text: 1, Start: 9, End: 9, With: "<&\n"},
		{Text: 6, Start: 5, End: 6, With: `"x"`},
		{Text: 8, Start: 2, End: 2, With: "!"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer(`"Be \u00fcber \"kind\"."`, `"Stay <&\n\"kind\"."`, `"{\"a\":1}"`, `"{\"a\":\"x\"}"`, `"42"`, `"42!"`).Replace(conversation)
	if diff := cmp.Diff(string(out), want); diff != "" {
		t.Errorf("got, want: %s", diff)
	}
	same, err := p.Apply(&abi.Verdict{Tags: []abi.Tag{{Name: "a", Value: "b"}}})
	if err != nil || string(same) != conversation {
		t.Errorf("a verdict without edits made %s (%v)", same, err)
	}
}

func TestMessagesAreInsertedWhereTheyBelong(t *testing.T) {
	at := func(n int64, text string) abi.Insert { return abi.Insert{Before: n, Role: "system", Text: text} }
	for _, c := range []struct {
		op         policy.Operation
		body, want string
		inserts    []abi.Insert
		edits      []abi.Edit
	}{
		{
			op: policy.OpChat, body: `{"model":"m","messages":[ {"role":"user","content":"a"} , {"role":"user","content":"b"} ]}`, inserts: []abi.Insert{at(0, "x"), at(0, "y"), at(1, "z"), at(2, "e"), at(2, "f")},
			want: `{"model":"m","messages":[{"role":"system","content":"x"},{"role":"system","content":"y"},{"role":"user","content":"a"},{"role":"system","content":"z"},{"role":"user","content":"b"},{"role":"system","content":"e"},{"role":"system","content":"f"}]}`,
		},
		{
			op: policy.OpChat, body: `{"model":"m","messages":[ ]}`, inserts: []abi.Insert{at(0, "x"), at(0, "y")},
			want: `{"model":"m","messages":[{"role":"system","content":"x"},{"role":"system","content":"y"}]}`,
		},
		{
			op: policy.OpResponses, body: `{"model":"m","input":"a"}`, inserts: []abi.Insert{at(0, "x"), at(1, "y")}, edits: []abi.Edit{{Text: 1, Start: 0, End: 1, With: "A"}},
			want: `{"model":"m","input":[{"role":"system","content":"x"},{"role":"user","content":"A"},{"role":"system","content":"y"}]}`,
		},
		{
			op: policy.OpResponses, body: `{"model":"m","instructions":"i","input":[{"role":"user","content":"a"}]}`, inserts: []abi.Insert{at(0, "x"), at(2, "y")},
			want: `{"model":"m","instructions":"i","input":[{"role":"system","content":"x"},{"role":"user","content":"a"},{"role":"system","content":"y"}]}`,
		},
		{op: policy.OpChat, body: `{"model":"m"}`, inserts: []abi.Insert{at(0, "x")}, want: `{"model":"m"}`},
	} {
		out, err := read(t, c.op, c.body).Apply(&abi.Verdict{Inserts: c.inserts, Edits: c.edits})
		if err != nil {
			t.Fatalf("%s: %v", c.body, err)
		}
		if diff := cmp.Diff(value(t, out), value(t, []byte(c.want))); diff != "" {
			t.Errorf("%s: got, want: %s", c.body, diff)
		}
	}
	_, err := read(t, policy.OpEmbeddings, `{"model":"m","input":"a"}`).Apply(&abi.Verdict{Inserts: []abi.Insert{at(0, "x")}})
	if !errors.Is(err, ErrInsert) {
		t.Errorf("an insert into embeddings: %v", err)
	}
}

func TestModelAndLimitAreReplacedOrSet(t *testing.T) {
	v := &abi.Verdict{Model: `m"2`, MaxOutput: 60}
	for _, c := range []struct {
		op         policy.Operation
		body, want string
	}{
		{policy.OpChat, `{"model":"m"}`, `{"model":"m\"2","max_completion_tokens":60}`},
		{policy.OpChat, `{"model":"m","max_tokens":50}`, `{"model":"m\"2","max_tokens":50}`},
		{policy.OpChat, `{"model":"m","max_tokens":61,"max_completion_tokens":null}`, `{"model":"m\"2","max_tokens":60,"max_completion_tokens":null}`},
		{policy.OpChat, `{"model":"m","max_completion_tokens":null,"max_tokens":null}`, `{"model":"m\"2","max_completion_tokens":null,"max_tokens":60}`},
		{policy.OpChat, `{"model":"m","max_tokens":1e9}`, `{"model":"m\"2","max_tokens":60}`},
		{policy.OpCompletions, `{"model":"m"}`, `{"model":"m\"2","max_tokens":60}`},
		{policy.OpResponses, `{"model":"m","max_output_tokens":100}`, `{"model":"m\"2","max_output_tokens":60}`},
		{policy.OpEmbeddings, `{"model":"m"}`, `{"model":"m\"2"}`},
	} {
		out, err := read(t, c.op, c.body).Apply(v)
		if err != nil || string(out) != c.want {
			t.Errorf("%s: got %s (%v), want %s", c.body, out, err, c.want)
		}
	}
}

func FuzzPrompt(f *testing.F) {
	f.Add(conversation, "with", int64(3))
	f.Add(`{"model":"m","input":[{"type":"reasoning"}],"messages":[{}],"prompt":["a"]}`, "", int64(0))
	f.Fuzz(func(t *testing.T, body, with string, n int64) {
		if !json.Valid([]byte(body)) {
			t.Skip("policy validates the body first")
		}
		for _, op := range []policy.Operation{policy.OpChat, policy.OpCompletions, policy.OpEmbeddings, policy.OpResponses} {
			p, err := Read(op, []byte(body))
			if err != nil || !p.model.Found() {
				continue
			}
			for _, m := range p.Messages {
				for _, x := range m.Texts {
					if !utf8.ValidString(x.Text) {
						t.Fatalf("%q is handed in as a text", x.Text)
					}
				}
			}
			v := &abi.Verdict{Model: "other", MaxOutput: n & 0xFFFF, Inserts: []abi.Insert{{Before: n & 3 % int64(len(p.Messages)+1), Role: "user", Text: with}}}
			for i := range p.Texts() {
				v.Edits = append(v.Edits, abi.Edit{Text: int64(i + 1), With: with})
			}
			out, err := p.Apply(v)
			if errors.Is(err, ErrInsert) {
				v.Inserts = nil
				out, err = p.Apply(v)
			}
			if err != nil {
				t.Fatal(err)
			}
			if !json.Valid(out) {
				t.Fatalf("%s %s became %s", op, body, out)
			}
			again, err := Read(op, out)
			if err != nil {
				t.Fatalf("%s cannot be read again: %v", out, err)
			}
			if got := again.str(again.model); got != "other" {
				t.Fatalf("the model is %q", got)
			}
		}
	})
}

func TestAnswersThatAreAskedForAreCounted(t *testing.T) {
	for body, want := range map[string]int64{
		`"n":3`: 3, `"n":2,"best_of":5`: 5, `"best_of":0,"n":null`: 0, `"n":1.5`: 2, `"n":1e99`: 1<<31 - 1, `"n":"4"`: 0, `"x":1`: 0,
	} {
		p, err := Read(policy.OpCompletions, []byte(`{"model":"m","prompt":"hi",`+body+`}`))
		if err != nil || p.Choices != want {
			t.Errorf("%s: %d answers, want %d: %v", body, p.Choices, want, err)
		}
	}
	p, err := Read(policy.OpChat, []byte(`{"model":"m","messages":[],"n":7,"best_of":9}`))
	if err != nil || p.Choices != 7 {
		t.Errorf("a chat: %d answers: %v", p.Choices, err)
	}
}
