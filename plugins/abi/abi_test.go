// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"encoding/binary"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// dump shows a message as text, with the fields whose values are messages opened.
func dump(t *testing.T, b []byte, nested map[uint32]map[uint32]map[uint32]bool) string {
	t.Helper()
	var out strings.Builder
	show(t, &out, b, "", func(tag uint32) (func(uint32) bool, bool) {
		inner, ok := nested[tag]
		return func(tag uint32) bool { return inner[tag] != nil }, ok
	})
	return out.String()
}

func show(t *testing.T, out *strings.Builder, b []byte, indent string, opens func(uint32) (func(uint32) bool, bool)) {
	t.Helper()
	err := fields(b, func(tag uint32, v []byte) error {
		out.WriteString(indent)
		out.WriteString(string(rune('0'+tag/10)) + string(rune('0'+tag%10)) + " ")
		if inner, ok := opens(tag); ok {
			out.WriteString("\n")
			show(t, out, v, indent+"  ", func(tag uint32) (func(uint32) bool, bool) {
				return func(uint32) bool { return false }, inner(tag)
			})
			return nil
		}
		if len(v) == 8 && v[7] == 0 {
			out.WriteString("#")
			v = []byte(string(rune('0'+binary.LittleEndian.Uint64(v)/10)) + string(rune('0'+binary.LittleEndian.Uint64(v)%10)))
		}
		out.WriteString(string(v) + "\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestExchangeIsWrittenAsSpecified(t *testing.T) {
	t.Parallel()
	budget := int64(77)
	x := Exchange{
		ID: "id", Caller: Caller{Tenant: 1, TenantName: "acme", Key: 2, KeyName: "ci", Address: "::1"},
		Asked:  Asked{Operation: "chat", Model: "m", Stream: true, MaxOutput: 50},
		Budget: &budget, Headers: []Header{{"x-a", "b"}},
		Messages: []Message{
			{Role: "user", Name: "jo", Texts: []Text{{0, "hi"}, {1, "there"}}, Media: []string{"image"}},
			{Role: "assistant", Calls: []ToolCall{{ID: "c1", Name: "f", Arguments: Text{2, "{}"}}}},
			{Role: "tool", Answers: "c1"},
		},
		Tools: []Tool{{"f", "does f", "{}"}}, Channels: []string{"east", "west"}, Body: []byte("{raw}"), State: []byte("s"),
	}
	got := dump(t, x.Append(nil), map[uint32]map[uint32]map[uint32]bool{13: {}, 14: {3: {}, 4: {}}, 15: {}})
	want := `01 id
02 #01
03 acme
04 #02
05 ci
06 ::1
07 chat
08 m
09 #01
11 #50
12 #77
13 
  01 x-a
  02 b
14 
  01 user
  02 jo
  03 
    01 #00
    02 hi
  03 
    01 #01
    02 there
  05 image
14 
  01 assistant
  04 
    01 c1
    02 f
    03 ` + string(Text{2, "{}"}.append(nil)) + `
14 
  01 tool
  06 c1
15 
  01 f
  02 does f
  03 {}
16 east
16 west
17 {raw}
18 s
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestEventIsWrittenAsSpecified(t *testing.T) {
	t.Parallel()
	for want, e := range map[string]Event{
		"08 m\n32 #02\n33 #01\n34 hi\n":                               {Model: "m", Kind: KindText, Choice: 1, Text: "hi"},
		"32 #03\n34 {\n35 \n  01 #00\n  02 c\n  03 f\n":               {Kind: KindToolCall, Text: "{", Tool: CallPart{0, "c", "f"}},
		"32 #04\n37 stop\n":                                           {Kind: KindFinish, Reason: "stop"},
		"18 s\n32 #05\n38 \n  01 #10\n  02 #02\n  03 #20\n  04 #04\n": {Kind: KindUsage, Usage: Usage{10, 2, 20, 4}, State: []byte("s")},
		"13 \n  01 a\n  02 b\n32 #01\n36 #99\n":                       {Kind: KindHead, Status: 99, Headers: []Header{{"a", "b"}}},
		"32 #06\n37 ok\n":                                             {Kind: KindEnd, Reason: "ok"},
		"32 #02\n34 hm\n39 \n  01 summary\n  02 #02\n":                {Kind: KindText, Text: "hm", Part: Part{PartSummary, 2}},
		"32 #04\n33 #01\n37 stop\n39 \n  01 content\n":                {Kind: KindFinish, Choice: 1, Reason: "stop", Part: Part{Name: PartContent}},
	} {
		got := dump(t, e.Append(nil), map[uint32]map[uint32]map[uint32]bool{13: {}, 35: {}, 38: {}, 39: {}})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

// message is a field that holds fields.
func message(tag uint32, inner ...[]byte) []byte {
	return AppendMessage(nil, tag, func(b []byte) []byte {
		for _, i := range inner {
			b = append(b, i...)
		}
		return b
	})
}

func num(tag uint32, v int64) []byte { return AppendNumber(nil, tag, v) }

func str(tag uint32, v string) []byte { return AppendBytes(nil, tag, v) }

func edit(id, start, end int64, with string) []byte {
	return message(3, num(1, id), num(2, start), num(3, end), str(4, with))
}

func TestVerdictIsRead(t *testing.T) {
	t.Parallel()
	var b []byte
	for _, f := range [][]byte{
		num(1, 1), message(2, num(1, 403), str(2, "no_secrets"), str(3, "Take it out.")), edit(5, 1, 2, "x"),
		message(4, str(1, "x-a"), str(2, "v")), str(5, "x-b"), str(6, "gpt"), str(7, "east"), message(8, str(1, "team"), str(2, "red")),
		str(9, "state"), message(10, num(1, 0), str(2, "system"), str(3, "Be kind.")), num(11, 100), str(999, "of a later version"),
	} {
		b = append(b, f...)
	}
	got, err := ReadVerdict(b)
	if err != nil {
		t.Fatal(err)
	}
	want := &Verdict{
		Action: Deny, Denial: Denial{403, "no_secrets", "Take it out."}, Edits: []Edit{{5, 1, 2, "x"}}, Set: []Header{{"x-a", "v"}}, Remove: []string{"x-b"},
		Model: "gpt", Channels: []string{"east"}, Tags: []Tag{{"team", "red"}}, State: []byte("state"),
		Inserts: []Insert{{0, "system", "Be kind."}}, MaxOutput: 100,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if v, err := ReadVerdict(nil); err != nil || !v.Empty() {
		t.Errorf("no bytes are %+v, %v", v, err)
	}
}

func TestBrokenVerdictsAreRefused(t *testing.T) {
	t.Parallel()
	many := func(n int, f []byte) []byte { return []byte(strings.Repeat(string(f), n)) }
	for name, tt := range map[string]struct {
		b    []byte
		want string
	}{
		"cut":             {[]byte{1, 0, 0}, "ends inside a field"},
		"long":            {[]byte{1, 0, 0, 0, 255, 255, 255, 255, 0}, "ends inside a field"},
		"nested long":     {message(3, []byte{1, 0, 0, 0, 9, 0, 0, 0}), "ends inside a field"},
		"short number":    {str(1, "1234"), "8 bytes"},
		"action":          {num(1, 7), "unknown action 7"},
		"no status":       {num(1, 1), "without a status"},
		"status":          {append(num(1, 1), message(2, num(1, 200))...), "400 to 599"},
		"code":            {append(num(1, 1), message(2, num(1, 400), str(2, "Not OK"))...), "a-z"},
		"message":         {append(num(1, 1), message(2, num(1, 400), str(2, "a"), str(3, strings.Repeat("x", 2000)))...), "2000 bytes"},
		"denial":          {message(2, num(1, 400)), "does not deny"},
		"text":            {edit(0, 0, 0, "\xff"), "UTF-8"},
		"edits":           {many(MaxEdits+1, edit(0, 0, 0, "")), "more than 10000 edits"},
		"header":          {message(4, str(1, "X-A")), "lower case"},
		"header value":    {message(4, str(1, "x"), str(2, "a\r\nb: c")), "control characters"},
		"key":             {message(4, str(1, "authorization"), str(2, "Bearer x")), "not for plugins"},
		"ours":            {str(5, "x-weir-exchange-id"), "gateway's own"},
		"of attempts":     {str(5, "x-client-request-id"), "gateway's own"},
		"pseudo":          {str(5, ":path"), "not the name of a header"},
		"model":           {str(6, "a\nb"), "control characters"},
		"tag":             {message(8, str(2, "v")), "1 to 64"},
		"tags":            {many(17, message(8, str(1, "a"))), "more than 16 tags"},
		"state":           {str(9, strings.Repeat("x", MaxState+1)), "4096"},
		"role":            {message(10, str(2, "tool")), "speak as"},
		"max":             {num(11, 0), "positive"},
		"drop a request":  {num(1, 2), "only events"},
		"channel":         {str(7, "north"), "not offered"},
		"insert":          {message(10, num(1, 3), str(2, "user")), "before message 3 of 2"},
		"edit of nothing": {edit(9, 0, 0, ""), "not given"},
		"edit outside":    {edit(0, 0, 6, ""), "which has 5"},
		"edit backwards":  {edit(0, 3, 2, ""), "bytes 3 to 2"},
		"edit negative":   {edit(0, -1, 2, ""), "bytes -1 to 2"},
		"edit of half":    {edit(1, 0, 1, ""), "cuts a character"},
		"overlap":         {append(edit(0, 2, 4, ""), edit(0, 0, 3, "")...), "overlap"},
	} {
		v, err := ReadVerdict(tt.b)
		if err == nil {
			err = v.CheckRequest(&Exchange{Channels: []string{"east"}, Messages: []Message{{Texts: []Text{{0, "hello"}, {1, "ä"}}}, {}}})
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want something of %q", name, err, tt.want)
		}
	}
	for name, tt := range map[string]struct {
		v    Verdict
		e    Event
		want string
	}{
		"model":   {Verdict{Model: "m"}, Event{Kind: KindHead}, "has been sent"},
		"drop":    {Verdict{Action: Drop}, Event{Kind: KindUsage}, "neither text"},
		"headers": {Verdict{Remove: []string{"a"}}, Event{Kind: KindText}, "headers"},
		"deny":    {Verdict{Action: Deny}, Event{Kind: KindEnd}, "over"},
		"edit":    {Verdict{Edits: []Edit{{}}}, Event{Kind: KindUsage}, "has none"},
		"text":    {Verdict{Edits: []Edit{{Text: 1}}}, Event{Kind: KindText}, "not given"},
	} {
		if err := tt.v.CheckEvent(&tt.e); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("event, %s: %v; want something of %q", name, err, tt.want)
		}
	}
}

func TestEditsAreMadeInOrder(t *testing.T) {
	t.Parallel()
	v := Verdict{Edits: []Edit{{0, 5, 5, "!"}, {1, 0, 1, "no"}, {0, 0, 1, "J"}, {0, 0, 0, ">"}, {0, 5, 5, "?"}}}
	x := Exchange{Messages: []Message{{Texts: []Text{{0, "hello"}, {2, "same"}}, Calls: []ToolCall{{Arguments: Text{1, "x"}}}}}}
	if err := v.CheckRequest(&x); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[int64]string{0: ">Jello!?", 1: "no", 2: "same"} {
		text := map[int64]string{0: "hello", 1: "x", 2: "same"}[id]
		if got := v.Apply(id, text); got != want {
			t.Errorf("text %d became %q, want %q", id, got, want)
		}
	}
}

// FuzzReadVerdict looks for answers that make the host panic or that it takes although they break a rule.
func FuzzReadVerdict(f *testing.F) {
	f.Add(edit(0, 1, 3, "x"))
	f.Add(append(num(1, 1), message(2, num(1, 403), str(2, "a"), str(3, "b"))...))
	f.Add(append(message(4, str(1, "x-a"), str(2, "b")), message(10, num(1, 0), str(2, "user"), str(3, "t"))...))
	const given = "hällo wörld"
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := ReadVerdict(b)
		if err != nil {
			return
		}
		x := Exchange{Channels: []string{"east"}, Messages: []Message{{Texts: []Text{{0, given}}}}}
		if v.CheckRequest(&x) == nil {
			if got := v.Apply(0, given); !utf8.ValidString(got) {
				t.Fatalf("edits make %q", got)
			}
			if v.Action == Deny && (v.Denial.Status < 400 || v.Denial.Code == "") {
				t.Fatalf("denial %+v", v.Denial)
			}
		}
		_ = v.CheckEvent(&Event{Kind: KindText, Text: given})
	})
}
