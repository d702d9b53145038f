// SPDX-License-Identifier: Apache-2.0

package weir_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/plugins/abi"
	weir "github.com/weir-proxy/weir/plugins/sdk/go"
)

func TestRequestsAreReadAsTheHostWritesThem(t *testing.T) {
	t.Parallel()
	budget := int64(5)
	sent := abi.Exchange{
		ID: "id", Caller: abi.Caller{Tenant: 1, TenantName: "acme", Key: 2, KeyName: "ci", Address: "::1"},
		Asked:  abi.Asked{Operation: "chat", Model: "m", Stream: true, MaxOutput: 50, Choices: 3},
		Budget: &budget, Headers: []abi.Header{{Name: "x-a", Value: "b"}},
		Messages: []abi.Message{
			{Role: "user", Name: "jo", Texts: []abi.Text{{ID: 0, Text: "hi"}, {ID: 1, Text: "there"}}, Media: []string{"image", "odd"}},
			{Role: "assistant", Calls: []abi.ToolCall{{ID: "c1", Name: "f", Arguments: abi.Text{ID: 2, Text: "{}"}}}},
			{Role: "tool", Answers: "c1"},
		},
		Tools: []abi.Tool{{Name: "f", Description: "does f", Parameters: "{}"}}, Channels: []string{"east", "west"}, Body: []byte("{raw}"), State: []byte("s"),
	}
	x := weir.NewExchange(sent.Append(nil))
	left, ok := x.BudgetLeft()
	most, _ := x.MaxOutputTokens()
	got := []any{
		x.ID(), x.Tenant(), x.TenantName(), x.Key(), x.KeyName(), x.Address(), x.Operation(), x.Model(), x.Stream(), x.Choices(), most, left, ok,
		x.Headers(), x.Texts(), x.Messages()[0].Role(), x.Messages()[0].Name(), x.Messages()[0].Media(), x.Messages()[2].Answers(), x.Messages()[1].Calls(), x.Tools(), x.Channels(), string(x.Body()), string(x.State()),
	}
	want := []any{
		"id", int64(1), "acme", int64(2), "ci", "::1", "chat", "m", true, int64(3), int64(50), int64(5), true,
		[]weir.Header{{Name: "x-a", Value: "b"}},
		[]weir.Text{{ID: 0, Text: "hi"}, {ID: 1, Text: "there"}},
		"user", "jo",
		[]string{"image", "odd"},
		"c1",
		[]weir.ToolCall{{ID: "c1", Name: "f", Arguments: weir.Text{ID: 2, Text: "{}"}}},
		[]weir.Tool{{Name: "f", Description: "does f", Parameters: "{}"}},
		[]string{"east", "west"},
		"{raw}", "s",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if empty := weir.NewExchange([]byte{1, 0, 0, 0, 255, 255, 255, 255}); empty.ID() != "" || len(empty.Texts()) != 0 {
		t.Error("what is cut off is read")
	}
}

func TestEventsAreReadAsTheHostWritesThem(t *testing.T) {
	t.Parallel()
	for want, e := range map[string]abi.Event{
		"2 1 hi 0   0 {0 0 0 0}  summary 2":   {Kind: abi.KindText, Choice: 1, Text: "hi", Part: abi.Part{Name: abi.PartSummary, Number: 2}},
		"3 0 { 4 c f 0 {0 0 0 0}   0":         {Kind: abi.KindToolCall, Text: "{", Tool: abi.CallPart{Number: 4, ID: "c", Name: "f"}},
		"5 0  0   0 {10 2 20 4}   0":          {Kind: abi.KindUsage, Usage: abi.Usage{Input: 10, Cached: 2, Output: 20, Reasoning: 4}},
		"1 0  0   200 {0 0 0 0}   0":          {Kind: abi.KindHead, Status: 200},
		"4 0  0   0 {0 0 0 0} stop content 0": {Kind: abi.KindFinish, Reason: "stop", Part: abi.Part{Name: abi.PartContent}},
		"6 0  0   0 {0 0 0 0} other  0":       {Kind: abi.KindEnd, Reason: "other"},
	} {
		got := weir.NewEvent(e.Append(nil))
		number, id, name := got.Tool()
		part, which := got.Part()
		line := fmt.Sprintf("%d %d %s %d %s %s %d %v %s %s %d", got.Kind(), got.Choice(), got.New(), number, id, name, got.Status(), got.Tokens(), got.Reason(), part, which)
		if line != want {
			t.Errorf("%q, want %q", line, want)
		}
	}
}

func TestVerdictsAreWrittenAsTheHostReadsThem(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		sent *weir.Verdict
		want *abi.Verdict
	}{
		{weir.GoOn(), &abi.Verdict{}},
		{weir.DropEvent(), &abi.Verdict{Action: abi.Drop}},
		{weir.Deny(403, "no", "Not here."), &abi.Verdict{Action: abi.Deny, Denial: abi.Denial{Status: 403, Code: "no", Message: "Not here."}}},
		{
			weir.GoOn().Edit(1, 2, 3, "x").SetHeader("x-a", "b").RemoveHeader("x-c").Model("m").Channel("east").Channel("west").Tag("t", "v").
				State([]byte("s")).Insert(0, "system", "Be kind.").MaxOutputTokens(9),
			&abi.Verdict{
				Edits: []abi.Edit{{Text: 1, Start: 2, End: 3, With: "x"}}, Set: []abi.Header{{Name: "x-a", Value: "b"}}, Remove: []string{"x-c"}, Model: "m",
				Channels: []string{"east", "west"}, Tags: []abi.Tag{{Name: "t", Value: "v"}}, State: []byte("s"),
				Inserts: []abi.Insert{{Before: 0, Role: "system", Text: "Be kind."}}, MaxOutput: 9,
			},
		},
	} {
		got, err := abi.ReadVerdict(tt.sent.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Error(diff)
		}
	}
}
