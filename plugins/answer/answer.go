// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"bytes"
	"errors"
	"slices"

	"github.com/weir-proxy/weir/plugins/abi"
	"github.com/weir-proxy/weir/policy"
)

// DefaultLimit is [Options.Limit] unless it is set.
const DefaultLimit = 16 << 20

// Reasons of the last event. The caller has more of them: see [Answer.Abort].
const (
	ReasonOK       = "ok"             // the response reached its end
	ReasonUpstream = "upstream_error" // the provider answered with an error, perhaps in the middle of a stream
	ReasonDenied   = "denied"         // a judge ended the response, or failed
)

// Options says what a response belongs to and who judges it.
type Options struct {
	// Common has what all events have: Exchange, Caller, Operation and Model. The operation says what a response looks like.
	Common abi.Event
	// Judges judge in this order. Each sees what the one before has left.
	Judges []Judge
	// StripUsage takes the event of a stream out that tells of usage alone: the gateway asked for it, not the client.
	StripUsage bool
	// Limit is how many bytes may be held at a time: of one event of a stream, of a response that is no stream, and of the texts of a stream of responses. 0 means [DefaultLimit].
	Limit int
}

// Headers is what becomes of the head of a response.
type Headers struct {
	Set    []abi.Header
	Remove []string
	// Held says that nothing of the body goes out before all of it has come: what an [Output] has as its status can still be the status of the response.
	Held bool
}

// Output is what becomes of a part of a response.
type Output struct {
	// Body goes to the client in the place of what came. It is valid until the next call, and as long as what came is.
	Body []byte
	// Status, if it is not 0, is that of a response that takes the place of the provider's, of which nothing has gone out. Its body is Body, JSON.
	Status int
	// Denied is the denial by which the response ends; nil if it does not.
	Denied *abi.Denial
	// Judge is who has denied, or has failed so that the response is denied; empty if the response could not be read.
	Judge string
	// End says that nothing more goes to the client. The judges know.
	End bool
}

// stage is how far a response is, and what is done with its body.
type stage uint8

const (
	waiting   stage = iota // for the head
	passing                // the body goes out as it comes
	streaming              // event by event
	holding                // until it is whole
	over
)

var (
	errEventSize = unreadable("an event of the stream is too large")
	errBodySize  = unreadable("the response is too large")
	errNoHead    = errors.New("answer: the body came before the head")
)

// dialect is how the responses of an operation are read.
type dialect interface {
	// judge judges what is on a page.
	judge(p *page) error
	// finish ends what a stream has left open.
	finish(p *page) error
	// denial appends the event by which a stream ends early.
	denial(b []byte, eol string, d abi.Denial) []byte
}

// Answer is the response of one exchange. It is used by one goroutine.
type Answer struct {
	chain   chain
	dialect dialect // nil: no texts
	stage   stage
	frames  frames
	page    page
	join    []byte // data of several lines
	out     []byte
	body    []byte // that is held, or the end of one that passes
	counts  []byte // the last usage object
	counted bool   // judges know of it
	failed  bool   // the provider reports an error
	passed  bool   // the last event went out
	gap     string // what is missing of the blank line behind the last event
	strip   bool
	limit   int
}

// New returns the answer to an exchange. It keeps the options' judges.
func New(o Options) *Answer {
	a := &Answer{strip: o.StripUsage, limit: o.Limit}
	if a.limit <= 0 {
		a.limit = DefaultLimit
	}
	a.chain.common, a.chain.judges = o.Common, slices.Clone(o.Judges)
	a.frames.limit = a.limit
	switch policy.Operation(o.Common.Operation) {
	case policy.OpChat:
		a.dialect = &chat{chain: &a.chain, main: partContent}
	case policy.OpCompletions:
		a.dialect = &chat{chain: &a.chain, main: partText}
	case policy.OpResponses:
		a.dialect = &responses{chain: &a.chain, limit: a.limit}
	}
	return a
}

// Tags returns what the judges want noted of the exchange: the last value of each name.
func (a *Answer) Tags() []abi.Tag { return a.chain.tags }

// Write takes a chunk of the body, cut anywhere; last says that the body ends with it.
func (a *Answer) Write(chunk []byte, last bool) (Output, error) {
	if a.stage == waiting {
		return Output{}, errNoHead
	}
	a.out, a.chain.errs = a.out[:0], nil
	var out Output
	var err error
	switch a.stage {
	case over:
		return Output{End: true}, nil
	case streaming:
		err = a.stream(chunk, last)
		out.Body = a.out
	case holding:
		out.Body, err = a.hold(chunk, last)
	default:
		out.Body, err = a.pass(chunk, last)
	}
	if err != nil {
		out = a.refuse(err)
	} else if last {
		a.close(ReasonOK)
		out.End = true
	}
	return out, errors.Join(a.chain.errs...)
}

// Abort ends a response that will not come to its end: the reason is "client_closed", "upstream_error", or another word for the plugins. What is held is lost. After the end it does nothing.
func (a *Answer) Abort(reason string) error {
	if a.stage == over {
		return nil
	}
	a.chain.errs = nil
	if err := a.count(); err != nil && !isDenied(err) {
		a.chain.errs = append(a.chain.errs, err)
	}
	a.failed = false
	a.close(reason)
	return errors.Join(a.chain.errs...)
}

func (a *Answer) close(reason string) {
	if a.failed && reason == ReasonOK {
		reason = ReasonUpstream
	}
	a.stage, a.body = over, nil
	a.chain.close(reason)
}

// refuse ends the response with an error.
func (a *Answer) refuse(err error) Output {
	if !isDenied(err) {
		a.chain.errs = append(a.chain.errs, err)
	}
	d := denial(err)
	out := Output{Denied: &d, Judge: judgeOf(err), End: true}
	switch a.stage {
	case streaming:
		a.out = a.dialect.denial(append(a.out, a.gap...), a.page.end(), d)
		out.Body = a.out
	case holding:
		out.Status, out.Body = d.Status, body(d)
	default: // what has gone out breaks off
	}
	a.close(ReasonDenied)
	return out
}

// hold collects a body that is no stream, and returns it when it is whole and judged.
func (a *Answer) hold(chunk []byte, last bool) ([]byte, error) {
	a.body = append(a.body, chunk...)
	if len(a.body) > a.limit {
		return a.let(errBodySize, last)
	}
	if !last {
		return nil, nil
	}
	if len(bytes.TrimSpace(a.body)) == 0 {
		return a.body, nil
	}
	p := &a.page
	p.reset(a.body, false, "\n")
	err := a.dialect.judge(p)
	if err == nil {
		err = a.note(p)
	}
	if err == nil {
		err = a.count()
	}
	if err != nil {
		return a.let(err, last)
	}
	if len(p.edits) > 0 {
		return p.edits.Apply(a.body), nil
	}
	return a.body, nil
}

// let passes on what cannot be judged, if all judges are open.
func (a *Answer) let(err error, last bool) ([]byte, error) {
	if !isUnreadable(err) || a.chain.closed() {
		return nil, err
	}
	a.chain.errs = append(a.chain.errs, err)
	out := a.body
	a.body, a.stage, a.dialect = nil, passing, nil
	if last {
		return out, a.count()
	}
	return out, nil
}

func isUnreadable(err error) bool { _, ok := errors.AsType[*UnreadableError](err); return ok }

func isDenied(err error) bool { _, ok := errors.AsType[*denied](err); return ok }
