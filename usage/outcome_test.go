// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/weir-proxy/weir/policy"
)

// testTicket is a ticket of channels 1 and 2, of which the second has another name for the model.
func testTicket(stream bool) *policy.Ticket {
	return &policy.Ticket{
		Exchange: uuid.MustParse("0190163d-8694-739b-aea5-966c26f8ad91"), Tenant: 3, Key: 4, Operation: policy.OpChat, Stream: stream,
		Model: "gpt-x", Choices: []policy.Choice{{Channel: 1, Upstream: "gpt-x"}, {Channel: 2, Upstream: "gpt-x-0613"}},
	}
}

const usage19and10 = `{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29}`

// outcome is what these tests compare of a record.
type outcome struct {
	Status    Status
	Channel   policy.ChannelID
	Input     int64
	Output    int64
	Estimated bool
}

func outcomeOf(r Record) outcome {
	return outcome{Status: r.Status, Channel: r.Channel, Input: r.Input, Output: r.Output, Estimated: r.Estimated}
}

func TestStatusChannelAndTokensFollowFromTheLine(t *testing.T) {
	const none = time.Duration(-1)
	answered := func(change func(*Line)) Line {
		l := Line{
			Kind: KindExchange, Cluster: "channel-1", Status: 200, Details: "via_upstream", Attempts: 1,
			RequestBytes: 400, ResponseBytes: 2000, Usage: usage19and10,
		}
		change(&l)
		return l
	}
	unanswered := func(change func(*Line)) Line {
		return answered(func(l *Line) {
			l.Usage, l.FirstByte, l.Details, l.ResponseBytes = "", none, "", 100
			change(l)
		})
	}
	for name, c := range map[string]struct {
		line   Line
		stream bool
		want   outcome
	}{
		"answered": {answered(func(*Line) {}), false, outcome{StatusOK, 1, 19, 10, false}},
		"201":      {answered(func(l *Line) { l.Status = 201 }), false, outcome{StatusOK, 1, 19, 10, false}},
		"answered without usage": {
			answered(func(l *Line) { l.Usage = "" }), false,
			outcome{StatusOK, 1, 100, 500, true},
		},
		"stream without usage": {
			answered(func(l *Line) { l.Usage = "" }), true,
			outcome{StatusOK, 1, 100, 10, true},
		},
		"unreadable usage": {
			answered(func(l *Line) { l.Usage = `{"prompt_tokens":-1}` }), false,
			outcome{StatusOK, 1, 100, 500, true},
		},
		"client left behind [DONE]": {
			answered(func(l *Line) { l.Flags, l.Details = "DC", "downstream_remote_disconnect" }), true,
			outcome{StatusOK, 1, 19, 10, false},
		},
		"client left a JSON answer": {
			answered(func(l *Line) { l.Flags, l.Details = "DC", "downstream_remote_disconnect" }), false,
			outcome{StatusClientClosed, 1, 19, 10, false},
		},
		"withheld when it was whole": {
			answered(func(l *Line) { l.Status, l.Details, l.ResponseBytes = 451, "weir_withheld", 90 }), false,
			outcome{StatusUpstreamError, 1, 19, 10, false},
		},
		"withheld by its head": {
			answered(func(l *Line) { l.Status, l.Details, l.ResponseBytes, l.Usage = 451, "weir_withheld", 90, "" }), false,
			outcome{StatusUpstreamError, 1, 100, 500, true},
		},
		"a stream withheld by its head": {
			answered(func(l *Line) { l.Status, l.Details, l.ResponseBytes, l.Usage = 451, "weir_withheld", 90, "" }), true,
			outcome{StatusUpstreamError, 1, 100, 0, true},
		},
		"an error in other words": {
			answered(func(l *Line) { l.Status, l.Details, l.ResponseBytes, l.Usage = 451, "weir_denied", 90, "" }), false,
			outcome{StatusUpstreamError, 1, 0, 0, false},
		},
		"client left while the answer was held": {
			unanswered(func(l *Line) { l.Status, l.Flags, l.Usage = 0, "DC", usage19and10 }), false,
			outcome{StatusClientClosed, 1, 19, 10, false},
		},
		"the processor was gone when the answer came": {
			answered(func(l *Line) { l.Status, l.Details = 503, "ext_proc_error_grpc_error_14" }), false,
			outcome{StatusUpstreamError, 1, 19, 10, false},
		},
		"client left in a stream": {
			answered(func(l *Line) { l.Flags, l.Usage = "DC", "" }), true,
			outcome{StatusClientClosed, 1, 100, 10, true},
		},
		"client reset an HTTP/2 stream": {
			answered(func(l *Line) { l.Flags, l.Usage = "DR", "" }), true,
			outcome{StatusClientClosed, 1, 100, 10, true},
		},
		"client left, details only": {
			answered(func(l *Line) { l.Details, l.Usage = "downstream_remote_disconnect", "" }), true,
			outcome{StatusClientClosed, 1, 100, 10, true},
		},
		"client left before the answer": {
			unanswered(func(l *Line) { l.Status, l.Flags = 0, "DC" }), true,
			outcome{StatusClientClosed, 1, 100, 0, true},
		},
		"client left before an attempt": {
			unanswered(func(l *Line) { l.Status, l.Flags, l.Attempts, l.Cluster = 0, "DC", 0, "" }), true,
			outcome{StatusClientClosed, 0, 0, 0, false},
		},
		"client left an error": {
			answered(func(l *Line) { l.Status, l.Flags, l.Usage = 429, "DC", "" }), true,
			outcome{StatusUpstreamError, 1, 0, 0, false},
		},
		"client broke HTTP": {
			unanswered(func(l *Line) { l.Status, l.Flags, l.Attempts, l.Details = 400, "DPE", 0, "http1.codec_error" }), false,
			outcome{StatusClientClosed, 0, 0, 0, false},
		},
		"stream cut": {answered(func(l *Line) {
			l.Usage, l.Flags, l.Details = "", "UC", "upstream_reset_after_response_started{connection_termination}"
		}), true, outcome{StatusUpstreamError, 1, 100, 10, true}},
		"stream cut behind its usage": {
			answered(func(l *Line) { l.Flags = "UR" }), true,
			outcome{StatusUpstreamError, 1, 19, 10, false},
		},
		"stream idle": {
			answered(func(l *Line) { l.Usage, l.Flags, l.Details = "", "SI", "stream_idle_timeout" }), true,
			outcome{StatusTimeout, 1, 100, 10, true},
		},
		"no answer in time": {
			unanswered(func(l *Line) { l.Status, l.Flags, l.Details = 504, "UT", "response_timeout" }), false,
			outcome{StatusTimeout, 1, 0, 0, false},
		},
		"overall timeout, details only": {
			unanswered(func(l *Line) { l.Status, l.Details = 408, "request_overall_timeout" }), false,
			outcome{StatusTimeout, 1, 0, 0, false},
		},
		"timeout and a client that left": {
			unanswered(func(l *Line) { l.Status, l.Flags = 504, "DC,UT" }), false,
			outcome{StatusTimeout, 1, 0, 0, false},
		},
		"provider's 504": {
			answered(func(l *Line) { l.Status, l.Usage = 504, "" }), false,
			outcome{StatusUpstreamError, 1, 0, 0, false},
		},
		"provider's error with usage": {
			answered(func(l *Line) { l.Status = 500 }), false,
			outcome{StatusUpstreamError, 1, 0, 0, false},
		},
		"provider's redirect": {
			answered(func(l *Line) { l.Status = 307 }), false,
			outcome{StatusUpstreamError, 1, 0, 0, false},
		},
		"429, retry refused by the circuit breaker": {
			answered(func(l *Line) { l.Status, l.Flags, l.Usage = 429, "UO", "" }), false,
			outcome{StatusUpstreamError, 1, 0, 0, false},
		},
		"second channel answered": {
			answered(func(l *Line) { l.Cluster, l.Attempts = "channel-2", 2 }), false,
			outcome{StatusOK, 2, 19, 10, false},
		},
		"refused connection": {
			unanswered(func(l *Line) { l.Status, l.Flags, l.Cluster = 503, "URX,UF", "channel-2" }), false,
			outcome{StatusUpstreamError, 0, 0, 0, false},
		},
		"connection timed out": {unanswered(func(l *Line) {
			l.Status, l.Flags, l.Details = 503, "UF", "upstream_reset_before_response_started{connection_timeout}"
		}), false, outcome{StatusUpstreamError, 0, 0, 0, false}},
		"no healthy upstream behind a 500": {unanswered(func(l *Line) {
			l.Status, l.Flags, l.Details, l.Attempts, l.FirstByte = 503, "UH", "no_healthy_upstream", 2, 9
		}), false, outcome{StatusUpstreamError, 0, 0, 0, false}},
		"closed default": {
			unanswered(func(l *Line) { l.Status, l.Flags, l.Details, l.Cluster = 503, "UH", "no_healthy_upstream", "denied" }), false,
			outcome{StatusUpstreamError, 0, 0, 0, false},
		},
		"no cluster": {
			unanswered(func(l *Line) { l.Status, l.Flags, l.Attempts, l.Cluster = 503, "NC", 0, "" }), false,
			outcome{StatusUpstreamError, 0, 0, 0, false},
		},
		"nothing known":    {unanswered(func(l *Line) { l.Status = 0 }), false, outcome{StatusUpstreamError, 1, 0, 0, false}},
		"flag of a filter": {answered(func(l *Line) { l.Flags = "XYZ" }), false, outcome{StatusOK, 1, 19, 10, false}},
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(c.want, outcomeOf(NewRecord(&c.line, testTicket(c.stream), NewEstimator()))); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// TestBilledIsWhatTheTicketSaysUnlessTheChannelCounted: the tokens stay what they are, whatever is billed of them.
// TestCountWithinAnAnswerOfResponsesIsNotBelievedBelowAnEstimate: the provider repeats the client's tools before it says what they cost, and the client may leave in
// between.
func TestCountWithinAnAnswerOfResponsesIsNotBelievedBelowAnEstimate(t *testing.T) {
	const forged = `{"input_tokens":0,"output_tokens":0}`
	for name, c := range map[string]struct {
		usage, flags string
		want         outcome
	}{
		"whole":                {usage19and10, "", outcome{StatusOK, 1, 19, 10, false}},
		"client left":          {forged, "DC", outcome{StatusClientClosed, 1, 100, 10, true}},
		"reset":                {forged, "DR", outcome{StatusClientClosed, 1, 100, 10, true}},
		"cut":                  {forged, "UC", outcome{StatusUpstreamError, 1, 100, 10, true}},
		"left with a true one": {`{"input_tokens":5000,"output_tokens":700}`, "DC", outcome{StatusClientClosed, 1, 5000, 700, true}},
	} {
		ticket := testTicket(true)
		ticket.Operation = policy.OpResponses
		l := Line{
			Kind: KindExchange, Cluster: "channel-1", Status: 200, Details: "via_upstream", Attempts: 1, RequestBytes: 400, ResponseBytes: 2000,
			Usage: c.usage, Flags: c.flags,
		}
		e := NewEstimator()
		r := NewRecord(&l, ticket, e)
		if diff := cmp.Diff(outcomeOf(r), c.want); diff != "" {
			t.Errorf("%s (-got +want):\n%s", name, diff)
		}
		if r.BilledInput != r.Input || r.BilledOutput != r.Output {
			t.Errorf("%s: billed %+v", name, r.Billed)
		}
	}
}

func TestBilledIsWhatTheTicketSaysUnlessTheChannelCounted(t *testing.T) {
	left := Line{
		Kind: KindExchange, Cluster: "channel-1", Status: 200, Flags: "DC", Details: "downstream_remote_disconnect", Attempts: 1,
		RequestBytes: 400, ResponseBytes: 2000,
	}
	counted, elsewhere := left, left
	counted.Usage, elsewhere.Cluster = usage19and10, "channel-2"
	for name, c := range map[string]struct {
		line    Line
		partial policy.Partial
		want    Billed
	}{
		"the usual":                  {left, "", Billed{100, 10}},
		"the estimate":               {left, policy.BillEstimate, Billed{100, 10}},
		"the input":                  {left, policy.BillInput, Billed{100, 0}},
		"nothing":                    {left, policy.BillNone, Billed{}},
		"counted, so billed":         {counted, policy.BillNone, Billed{19, 10}},
		"another channel's business": {elsewhere, policy.BillNone, Billed{100, 10}},
	} {
		ticket := testTicket(true)
		ticket.Choices[0].Partial = c.partial
		r := NewRecord(&c.line, ticket, NewEstimator())
		if r.Billed != c.want || !r.Estimated && r.Tokens != (Tokens{Input: 19, Output: 10}) || r.Estimated && r.Tokens != (Tokens{Input: 100, Output: 10}) {
			t.Errorf("%s: got %+v of %+v, want %+v", name, r.Billed, r.Tokens, c.want)
		}
	}
	ticket := testTicket(false)
	ticket.Choices[0].Partial = policy.BillInput
	if r := NewUnresolved(ticket, 400, NewEstimator()); r.Billed != (Billed{100, 0}) || r.Output != defaultOutput {
		t.Errorf("unresolved: got %+v of %+v", r.Billed, r.Tokens)
	}
}

func TestEnvoysOwnLinesBecomeRecords(t *testing.T) {
	want := map[string]outcome{
		"plain":       {StatusOK, 1, 1, 0, false},
		"bad8":        {StatusOK, 1, 0, 1, true},
		"refused":     {StatusUpstreamError, 0, 0, 0, false},
		"blackhole":   {StatusUpstreamError, 4, 0, 0, false},
		"none":        {StatusUpstreamError, 0, 0, 0, false},
		"nocluster":   {StatusUpstreamError, 0, 0, 0, false},
		"429":         {StatusUpstreamError, 1, 0, 0, false},
		"hang/to":     {StatusTimeout, 1, 0, 0, false},
		"slow/idle":   {StatusTimeout, 1, 0, 1, true},
		"slow/max":    {StatusTimeout, 1, 0, 1, true},
		"cut":         {StatusUpstreamError, 1, 0, 1, true},
		"drop":        {StatusUpstreamError, 1, 0, 0, false},
		"dc-before":   {StatusClientClosed, 1, 0, 0, true},
		"dc-mid":      {StatusClientClosed, 1, 0, 1, true},
		"h2-mid-conn": {StatusClientClosed, 1, 0, 1, true},
		"badchunk":    {StatusClientClosed, 1, 0, 0, true},
	}
	b, err := os.ReadFile("testdata/envoy-1.40.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]outcome)
	for line := range bytes.Lines(b) {
		l, err := ParseLine(line)
		if err != nil {
			t.Fatal(err)
		}
		got[l.Ticket] = outcomeOf(NewRecord(&l, testTicket(l.Ticket != "plain" && l.Ticket != "bad8"), NewEstimator()))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestRecordCarriesTicketAndLine(t *testing.T) {
	ticket := testTicket(true)
	ticket.Price, ticket.Service = 6, policy.Flex
	l := Line{
		Kind: KindExchange, Cluster: "channel-2", Status: 200, Details: "via_upstream", Attempts: 2, RequestBytes: 5, ResponseBytes: 6,
		FirstByte: 7 * time.Millisecond, Duration: 8 * time.Millisecond, Usage: usage19and10,
		Names: Names{Trace: "1795372895896283 -"},
	}
	want := Record{
		Exchange: ticket.Exchange, Time: ticket.Time(), Tenant: 3, Key: 4, Channel: 2, Model: "gpt-x", UpstreamModel: "gpt-x-0613",
		Operation: policy.OpChat, Status: StatusOK, HTTPStatus: 200, Attempts: 2, Stream: true, Tokens: Tokens{Input: 19, Output: 10}, Billed: Billed{19, 10},
		RequestBytes: 5, ResponseBytes: 6, FirstByte: 7 * time.Millisecond, Duration: 8 * time.Millisecond,
		Cost: Cost{PriceVersion: 6}, Service: policy.Flex, Trace: "1795372895896283 -",
	}
	if d := cmp.Diff(want, NewRecord(&l, ticket, NewEstimator())); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestNamesThatPostgresRefusesAreMended(t *testing.T) {
	ticket := testTicket(false)
	ticket.Model = "a\x00b\xff"
	if got, want := NewRecord(&Line{Status: 200}, ticket, NewEstimator()).Model, "a\uFFFDb\uFFFD"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEveryFlagOfEnvoyIsKnown(t *testing.T) {
	// The short names in the documentation of Envoy 1.40, in its order.
	for _, short := range []string{
		"UH", "UF", "UO", "NR", "URX", "NC", "DT", "DC", "LH", "UT", "LR", "UR", "UC", "DI", "FI", "RL", "UAEX", "RLSE", "IH", "SI", "DPE",
		"UPE", "UMSDR", "RFCF", "NFCF", "OM", "DF", "DO", "DR", "UDO",
	} {
		if _, ok := flags[short]; !ok {
			t.Errorf("%s is not in the table", short)
		}
	}
}

func TestOnlyChannelClustersNameAChannel(t *testing.T) {
	for cluster, want := range map[string]policy.ChannelID{
		"channel-12": 12, "channel-9223372036854775807": 1<<63 - 1, "": 0, "denied": 0, "channel-": 0, "channel-0": 0, "channel-01": 0,
		"channel-+1": 0, "channel--1": 0, "channel-1x": 0, "channel-9223372036854775808": 0, "xchannel-1": 0,
	} {
		if got := ChannelOf(cluster); got != want {
			t.Errorf("%q: got %d, want %d", cluster, got, want)
		}
	}
}

func TestAttemptSaysWhatTheChannelDid(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	l := Line{Kind: KindAttempt, Cluster: "channel-2", Status: 429, Attempts: 1, Duration: time.Second, RetryAfter: "Fri, 02 Jan 2026 03:04:15 GMT"}
	exchange := testTicket(false).Exchange
	want := Attempt{Exchange: exchange, Channel: 2, Number: 1, Status: 429, RetryAfter: 10 * time.Second, Duration: time.Second}
	if d := cmp.Diff(want, NewAttempt(&l, exchange, now)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for flag, want := range map[string]bool{"UF": true, "UH": true, "UC": false, "UR": false, "": false} {
		if got := NewAttempt(&Line{Flags: flag}, exchange, now).Unreached; got != want {
			t.Errorf("flag %q: got unreached %v, want %v", flag, got, want)
		}
	}
}

func TestRetryAfterIsReadOrIgnored(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"": 0, "3": 3 * time.Second, "0.5": 500 * time.Millisecond, "-3": 0, "NaN": 0, "Inf": 24 * time.Hour, "1e18": 24 * time.Hour,
		"soon": 0, "Fri, 02 Jan 2026 03:04:00 GMT": 0, "Sat, 02 Jan 2100 03:04:00 GMT": 24 * time.Hour,
	} {
		if got := retryAfter(s, now); got != want {
			t.Errorf("%q: got %v, want %v", s, got, want)
		}
	}
}

func TestTagsOfTheResponseJoinThoseOfTheRequest(t *testing.T) {
	ticket := &policy.Ticket{Tags: []policy.Tag{{Name: "a", Value: "request"}, {Name: "b", Value: "request"}}}
	for word, want := range map[string]string{
		policy.EncodeTags([]policy.Tag{{Name: "b", Value: "response"}, {Name: "c", Value: "response"}}): "[{a request} {b response} {c response}]",
		"":         "[{a request} {b request}]",
		"nonsense": "[{a request} {b request}]",
	} {
		r := NewRecord(&Line{Kind: KindExchange, Names: Names{Tags: word}}, ticket, NewEstimator())
		if got := fmt.Sprint(r.Tags); got != want {
			t.Errorf("%q: %s, want %s", word, got, want)
		}
	}
	if ticket.Tags[1].Value != "request" {
		t.Error("the ticket was changed")
	}
}
