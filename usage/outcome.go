// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/policy"
)

// tagsOf returns the tags of the request and of the response. Those that cannot be read are left out: they are notes, and the row is money.
func tagsOf(l *Line, t *policy.Ticket) []policy.Tag {
	more, err := policy.ParseTags(l.Tags)
	if err != nil || len(more) == 0 {
		return t.Tags
	}
	return policy.MergeTags(slices.Clone(t.Tags), more)
}

// NewRecord makes the row of the exchange whose end the line tells; t is the line's ticket. It sets everything but Seq.
//
// Where the tokens come from:
//
//	the channel's own count     whenever a good answer brought a usage object, however the exchange ended and whatever the client got of it; but
//	                            not below an estimate if it is one of Responses that did not reach its end
//	an estimate of both         a 2xx answer without one: e counts bytes, and the record says that it is Estimated
//	an estimate                 a good answer without one that a policy withheld: of the input, and of an answer in one piece, which was complete. Estimated
//	an estimate of the input    the client left before the head of an answer: the provider has the prompt, so the client owes it. Estimated
//	zero                        every other answer: an error is free of charge, whoever made it, and so is what no channel took
//
// What the channel counted is billed as counted; of an estimate, as much as the ticket says. An exact record teaches e.
func NewRecord(l *Line, t *policy.Ticket, e *Estimator) Record {
	var r Record
	var c counted
	c.tokens, c.ok = ParseCounts(l.Usage)
	r.of(l, &c, t, e)
	return r
}

// of is NewRecord for a line whose usage was read already.
func (r *Record) of(l *Line, c *counted, t *policy.Ticket, e *Estimator) {
	end := judge(l)
	*r = Record{
		Exchange: t.Exchange, Time: t.Time(), Tenant: t.Tenant, Key: t.Key,
		Model: storable(t.Model), Operation: t.Operation, Stream: t.Stream,
		HTTPStatus: l.Status, Attempts: l.Attempts,
		RequestBytes: l.RequestBytes, ResponseBytes: l.ResponseBytes,
		FirstByte: l.FirstByte, Duration: l.Duration, Tags: tagsOf(l, t), Service: t.Service, Cost: Cost{PriceVersion: t.Price},
		Charges: t.Charges, Trace: strings.Clone(l.Trace), // the memory of the line is used again
	}
	if end.sent {
		r.Channel = ChannelOf(l.Cluster)
		r.UpstreamModel = storable(t.Upstream(r.Channel))
	}
	// The tap looks at good answers alone: one that is there took the client's status from elsewhere.
	counted := c.ok && (success(l.Status) || l.Details != viaUpstream)
	if counted {
		r.Tokens = c.tokens
	}
	mayBeForged := counted && t.Operation == policy.OpResponses && end.cause != causeNone
	r.Status = end.status(l.Status, t.Stream && counted && !mayBeForged)
	switch {
	case mayBeForged:
		r.doubt(e)
	case counted && l.Details == withheld: // the bytes are not those of the answer
	case counted:
		e.Learn(r)
	case r.Channel == 0:
	case success(l.Status):
		r.Estimated = true
		r.Input, r.Output = e.Input(r), e.Output(r)
	case l.Details == withheld:
		r.Estimated = true
		if r.Input = e.Input(r); !r.Stream {
			r.Output = e.MeanOutput(r)
		}
	case r.Status == StatusClientClosed:
		r.Estimated = true
		r.Input = e.Input(r)
	}
	r.bill(t.Partial(r.Channel))
}

// doubt takes the count of an answer that did not reach its end for no more than an estimate's equal. Providers of Responses repeat JSON of the client's in
// it, such as the schemas of tools, and an object there that looks like a count is the last one that passes until the answer is complete.
func (r *Record) doubt(e *Estimator) {
	r.Estimated = true
	r.Input, r.Output = max(r.Input, e.Input(r)), max(r.Output, e.Output(r))
}

// bill sets what is billed, when the tokens are known.
func (r *Record) bill(partial policy.Partial) {
	r.Billed = Billed{r.Input, r.Output}
	switch {
	case !r.Estimated:
	case partial == policy.BillInput:
		r.BilledOutput = 0
	case partial == policy.BillNone:
		r.Billed = Billed{}
	}
}

// NewUnresolved makes the row of an exchange that was admitted and of whose end nothing is known; bytes is the size of its request. Its
// tokens are estimates by e, as if the first of its channels had answered in full: most exchanges do reach their end.
func NewUnresolved(t *policy.Ticket, bytes int64, e *Estimator) Record {
	r := Record{
		Exchange: t.Exchange, Time: t.Time(), Tenant: t.Tenant, Key: t.Key, Model: storable(t.Model), Operation: t.Operation, Stream: t.Stream,
		Status: StatusUnresolved, Estimated: true, RequestBytes: bytes, FirstByte: -1, Tags: t.Tags, Service: t.Service, Cost: Cost{PriceVersion: t.Price},
		Charges: t.Charges,
	}
	if len(t.Choices) > 0 {
		r.Channel = t.Choices[0].Channel
		r.UpstreamModel = storable(t.Choices[0].Upstream)
	}
	r.Input, r.Output = e.Input(&r), e.MeanOutput(&r)
	r.bill(t.Partial(r.Channel))
	return r
}

func success(status int) bool { return status >= 200 && status < 300 }

// ending is how Envoy saw an exchange end.
type ending struct {
	cause cause
	sent  bool // a channel was given the request
	heard bool // a channel answered
}

// viaUpstream is the detail of a response whose head a channel wrote, and which nothing cut. The details are listed in
// https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/http/http_conn_man/response_code_details.
const viaUpstream = "via_upstream"

// withheld is the detail of a refusal that took the place of a channel's good answer: extproc.DetailsWithheld.
const withheld = "weir_withheld"

func judge(l *Line) ending {
	m := meanings(l.Flags)
	end := ending{cause: m.cause, heard: l.FirstByte >= 0 || l.Details == viaUpstream}
	// FirstByte does not show it: it may be of an attempt before the last.
	end.sent = l.Details == viaUpstream || success(l.Status) || l.Attempts > 0 && !m.unsent && !m.unconnected
	// In braces stands what befell the connection: a connection that timed out is a channel's failure.
	reason, _, _ := strings.Cut(l.Details, "{")
	switch {
	case strings.Contains(reason, "timeout"):
		end.cause = causeTimeout
	case reason == "downstream_remote_disconnect", reason == "downstream_remote_reset", reason == "http2.remote_reset":
		end.cause = max(end.cause, causeClient)
	case reason == "upstream_reset_after_response_started":
		end.cause = max(end.cause, causeUpstream)
	}
	return end
}

// status returns how an exchange ended. complete says that the final usage of a stream was seen: then the answer was whole, though the
// client hung up before the connection's end, as SDKs do on reading "[DONE]".
func (e ending) status(http int, complete bool) Status {
	switch e.cause {
	case causeTimeout:
		return StatusTimeout
	case causeClient:
		if success(http) && complete {
			return StatusOK
		}
		if http < 400 || !e.heard {
			return StatusClientClosed // an error without a channel is Envoy's, to a client that it could not understand
		}
	case causeNone:
		if success(http) {
			return StatusOK
		}
	}
	return StatusUpstreamError
}

// ChannelOf returns the channel that a cluster's name stands for: 12 for "channel-12", zero for every other name.
func ChannelOf(cluster string) policy.ChannelID {
	digits, ok := strings.CutPrefix(cluster, "channel-")
	if !ok {
		return 0
	}
	id, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || id <= 0 || digits[0] == '+' || digits[0] == '0' {
		return 0
	}
	return policy.ChannelID(id)
}

// storable makes a name fit for Postgres, which refuses NUL and invalid UTF-8 in text: one such row would hold up the whole log.
func storable(s string) string {
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "\uFFFD")
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// Attempt is an attempt at one channel that failed. It says something of the channel; the exchange may still have succeeded elsewhere.
type Attempt struct {
	Exchange   uuid.UUID
	Channel    policy.ChannelID
	Number     int           // 1 is the first; 0 when the line does not say
	Status     int           // 0 when the channel did not answer
	Flags      string        // Envoy's response flags; empty when there are none
	Unreached  bool          // there was no connection to the channel
	RetryAfter time.Duration // as the channel asked; zero when it did not
	Duration   time.Duration
}

// NewAttempt makes the attempt that a line of [KindAttempt] tells. The time now is what a date in RetryAfter is compared with.
func NewAttempt(l *Line, exchange uuid.UUID, now time.Time) Attempt {
	m := meanings(l.Flags)
	return Attempt{
		Exchange: exchange, Channel: ChannelOf(l.Cluster), Number: l.Attempts, Status: l.Status, Flags: strings.Clone(l.Flags),
		Unreached: m.unsent || m.unconnected, RetryAfter: retryAfter(l.RetryAfter, now), Duration: l.Duration,
	}
}

// Time returns about when the attempt failed, as if it had been the first: the exchange's id has the time of its admission.
func (a *Attempt) Time() time.Time {
	sec, nsec := a.Exchange.Time().UnixTime()
	return time.Unix(sec, nsec).UTC().Add(a.Duration)
}
