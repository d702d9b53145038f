// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// field appends a field of bytes to a message.
func field(b []byte, n protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
}

// sentRecord is a LogRecord with attributes, given as keys and values in turn, and with what else Envoy puts into one.
func sentRecord(attributes ...string) []byte {
	b := protowire.AppendFixed64(protowire.AppendTag(nil, 1, protowire.Fixed64Type), 1795372895896283000) // time_unix_nano
	for i := 0; i < len(attributes); i += 2 {
		value := field(nil, 1, []byte(attributes[i+1]))
		b = field(b, 6, field(field(nil, 1, []byte(attributes[i])), 2, value))
	}
	return b
}

// sentMessage is an ExportLogsServiceRequest with these records.
func sentMessage(records ...[]byte) []byte {
	scope := field(nil, 1, nil)
	for _, r := range records {
		scope = field(scope, 2, r)
	}
	return field(nil, 1, field(field(nil, 1, nil), 2, scope))
}

func TestLinesAreThoseOfAFile(t *testing.T) {
	exchange := sentRecord("kind", "exchange", "exchange", "01a1", "ticket", "AQ", "usage", `{"a":"\"`+"\n\x01\x7fä", "cluster", "channel-1", "status", "200",
		"flags", "-", "attempts", "2", "rx", "10", "tx", "0", "start", "1795372895.896283", "duration", "-", "log_type", "DownstreamEnd", "other", "x")
	attempt := sentRecord("kind", "attempt", "exchange", "01a2", "cluster", "channel-2", "status", "0429", "flags", "UF\xff", "retry_after", "3")
	before := "before\n"
	got, n, unknown, err := appendLines([]byte(before), sentMessage(exchange, attempt))
	want := before +
		`{"attempts":2,"cluster":"channel-1","details":null,"duration":null,"exchange":"01a1","first_byte":null,"flags":"-","kind":"exchange",` +
		`"log_type":"DownstreamEnd","rx":10,"status":200,"tags":null,"ticket":"AQ","tx":0,` +
		`"usage":"{\"a\":\"\\\"\n\u0001\u007fä"}` + "\n" +
		`{"cluster":"channel-2","duration":null,"exchange":"01a2","flags":"UF\u00ff","kind":"attempt","retry_after":"3","status":null}` + "\n"
	if string(got) != want || n != 2 || unknown != 0 || err != nil {
		t.Errorf("got %d lines, %d unknown, %v:\n%s\nwant:\n%s", n, unknown, err, got, want)
	}
}

// What only Envoys that make traces send is in their lines alone.
func TestTheTraceIsInTheLineOfWhoSendsOne(t *testing.T) {
	for trace, want := range map[string]string{
		"1795372895896283 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01": `,"ticket":"AQ","trace":"1795372895896283 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","tx":0,`,
		"": `,"ticket":"AQ","trace":null,"tx":0,`,
	} {
		got, _, _, err := appendLines(nil, sentMessage(sentRecord("kind", "exchange", "ticket", "AQ", "tx", "0", "trace", trace)))
		if err != nil || !strings.Contains(string(got), want) {
			t.Errorf("got %s, %v; want %s", got, err, want)
		}
	}
}

func TestRecordOfNoKindIsLeftOutAndCounted(t *testing.T) {
	good := sentRecord("kind", "attempt", "exchange", "1")
	got, n, unknown, err := appendLines(nil, sentMessage(sentRecord("kind", "other"), good, sentRecord(), sentRecord("kind", "attempt\n")))
	if n != 1 || unknown != 3 || err != nil || strings.Count(string(got), "\n") != 1 {
		t.Errorf("got %d lines, %d unknown, %v: %q", n, unknown, err, got)
	}
	if got, n, unknown, err := appendLines(nil, sentMessage()); len(got) > 0 || n+unknown > 0 || err != nil {
		t.Errorf("without records: got %q, %d, %d, %v", got, n, unknown, err)
	}
}

func TestCutMessageGivesNoLine(t *testing.T) {
	whole := sentMessage(sentRecord("kind", "attempt", "exchange", "1"), sentRecord("kind", "attempt", "exchange", "2"))
	for i := 1; i < len(whole); i++ {
		if got, n, _, err := appendLines(nil, whole[:i]); !errors.Is(err, errMessage) || n != 0 || len(got) != 0 {
			t.Errorf("cut at %d of %d: got %d lines %q, %v", i, len(whole), n, got, err)
		}
	}
}

// FuzzLines feeds anything as a message: each line is whole, one line, and JSON.
func FuzzLines(f *testing.F) {
	f.Add(sentMessage(sentRecord("kind", "exchange", "usage", "\xff\n\"\\", "status", "1"), sentRecord("kind", "attempt")))
	f.Add(sentMessage(sentRecord("kind", "x")))
	f.Add([]byte{0x0a, 0xff})
	f.Fuzz(func(t *testing.T, message []byte) {
		got, n, _, err := appendLines(nil, message)
		if err != nil && len(got) > 0 {
			t.Fatalf("got lines and %v", err)
		}
		lines := strings.SplitAfter(string(got), "\n")
		if len(lines) != n+1 || lines[n] != "" {
			t.Fatalf("%d lines, want %d: %q", len(lines)-1, n, got)
		}
		for _, l := range lines[:n] {
			if !json.Valid([]byte(l)) {
				t.Errorf("not JSON: %q", l)
			}
		}
	})
}

func BenchmarkLines(b *testing.B) {
	usage := `{"prompt_tokens":10,"completion_tokens":27,"total_tokens":37,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0}}`
	r := sentRecord("attempts", "1", "cluster", "channel-1", "details", "via_upstream", "duration", "123", "exchange", "01a204a5-641f-7c55-9d62-b5df7fe85c1d",
		"first_byte", "3", "flags", "-", "kind", "exchange", "log_type", "DownstreamEnd", "rx", "76", "start", "1795374277.662326", "status", "200",
		"ticket", "AQGiBK6WyXqYuJRvvkNzLNQBAQEAC2dwdC00by1taW5pAgEAAgA", "tx", "707", "usage", usage)
	message := sentMessage(r, r, r, r, r, r, r, r, r, r)
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst, _, _, _ = appendLines(dst[:0], message)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/10, "ns/line")
}
