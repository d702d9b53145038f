// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/plugins/abi"
	"github.com/weir-proxy/weir/plugins/chain"
	"github.com/weir-proxy/weir/policy"
)

// outcome is what became of an exchange: the sections of a case that begin with want.
type outcome struct {
	facts    []string // of want
	forward  string   // want.request; empty: the client's body, or none
	client   string   // want.response
	replied  bool     // there is a response
	whole    bool     // it was asked for in one piece
	response bool     // the request was let through, so that a response comes
	local    bool     // client is what the plugin has answered itself
	calls    string   // want.calls
}

// stage is an exchange on its way: first its request is judged, then its response played.
type stage struct {
	c        *Case
	judge    policy.Judge
	question *policy.Question
	recorder *recorder
	out      outcome
}

var exchangeID = uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057")

// begin judges the request of a case.
func begin(c *Case, r *recorder) *stage {
	a := &c.asked
	link := chain.Link{ID: 1, Name: "plugin", Headers: names(slices.Concat(a.headers, c.reply.headers)), Body: a.showBody}
	if r.filter != nil {
		link.Filter = r.filter.link(r)
	} else {
		link.Plugin = r
	}
	if len(c.reply.headers) == 0 {
		link.Headers = append(link.Headers, "content-type")
	}
	o := chain.Options{}
	if a.tokens > 0 {
		o.Count = func(policy.Operation, string, []byte) int64 { return a.tokens }
	}
	if a.budget != nil {
		o.Budget = func(policy.TenantID, policy.KeyID) (int64, bool) { return *a.budget, true }
	}
	s := &stage{c: c, recorder: r, question: &policy.Question{
		Exchange: exchangeID, Path: paths[a.operation], Tenant: &a.tenant, Key: &a.key, Address: a.address, Headers: a.headers, Operation: a.operation,
		Body: a.body, Channels: func(string) []string { return a.channels },
	}}
	s.question.Model, s.question.Stream = modelOf(a.body)
	s.judge = chain.NewTable([]chain.Link{link}, o).Judge(&a.tenant, &a.key)
	ruling, denial := s.judge.Request(s.question)
	s.ruled(ruling, denial)
	return s
}

// paths are where clients ask for operations.
var paths = map[policy.Operation]string{
	policy.OpChat: "/v1/chat/completions", policy.OpCompletions: "/v1/completions", policy.OpEmbeddings: "/v1/embeddings", policy.OpResponses: "/v1/responses",
}

func modelOf(body []byte) (model string, stream bool) {
	var v struct {
		Model  string `json:"model"`
		Stream bool   `json:"stream"`
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return "", false
	}
	return v.Model, v.Stream
}

// ruled notes what became of the request.
func (s *stage) ruled(r *policy.Ruling, d *policy.Denial) {
	if d != nil && d.Reply != nil {
		s.answered("request", d.Reply)
		return
	}
	if d != nil {
		s.fact("request denied %d %s: %s", d.Status, d.Code, d.Message)
		return
	}
	s.out.response = true
	s.fact("request goes on")
	if r == nil {
		return
	}
	if r.Body != nil {
		s.out.forward = string(r.Body)
		s.question.Body = r.Body
		if model, _ := modelOf(r.Body); model != s.question.Model {
			s.question.Model = model
			s.fact("model %s", model)
		}
	}
	for _, h := range r.Set {
		s.fact("set header %s: %s", h.Name, h.Value)
	}
	for _, name := range r.Remove {
		s.fact("remove header %s", name)
	}
	if len(r.Channels) > 0 {
		s.fact("channels %s", strings.Join(r.Channels, ", "))
	}
}

// fact adds a line. What is said in it stays on it.
func (s *stage) fact(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	s.out.facts = append(s.out.facts, strings.NewReplacer("\n", `\n`, "\r", `\r`).Replace(line))
}

// watch plays a response in chunks that end at the given offsets, and at its end.
func (s *stage) watch(body []byte, cuts []int) {
	if s.c.reply.media == "" || !s.out.response || !s.judge.Watches() {
		s.judge.Abandon()
		return
	}
	w := s.judge.Watch(s.question)
	defer w.Close()
	s.out.replied = true
	status := s.c.reply.status
	headers := append([]policy.Header{{Name: "content-type", Value: s.c.reply.media}}, s.c.reply.headers...)
	head, whole := w.Head(status, headers)
	s.out.whole = whole
	if head != nil {
		for _, h := range head.Set {
			s.fact("set response header %s: %s", h.Name, h.Value)
		}
		for _, name := range head.Remove {
			if name != "content-length" { // which the gateway itself takes out of what may change
				s.fact("remove response header %s", name)
			}
		}
		if head.Denial != nil {
			s.replaced(head.Denial)
			return
		}
	}
	s.pour(w, body, cuts)
}

func (s *stage) pour(w policy.Watcher, body []byte, cuts []int) {
	var client bytes.Buffer
	if s.out.whole {
		cuts = nil
	}
	from, over := 0, false
	for i := 0; i <= len(cuts) && !over; i++ {
		to := len(body)
		if i < len(cuts) {
			to = cuts[i]
		}
		chunk := bytes.Clone(body[from:to]) // so that what keeps a view of it is found out
		out, end, denial := w.Body(chunk, to == len(body))
		client.Write(out)
		clear(chunk)
		if denial != nil {
			s.replaced(denial)
			return
		}
		from, over = to, end
	}
	s.out.client = client.String()
	if d := s.recorder.denial; d != nil {
		s.fact("response ended %d %s: %s", d.Status, d.Code, d.Message)
	} else if s.recorder.cut {
		s.fact("response ended")
	} else {
		s.fact("response goes on")
	}
}

func (s *stage) replaced(d *policy.Denial) {
	if d.Reply != nil {
		s.answered("response", d.Reply)
		return
	}
	s.fact("response denied %d %s: %s", d.Status, d.Code, d.Message)
}

// end returns what became of the exchange.
func (s *stage) end() *outcome {
	for _, t := range s.recorder.tags {
		s.fact("tag %s=%s", t.Name, t.Value)
	}
	if f := s.recorder.filter; f != nil {
		s.facts(f)
	}
	return &s.out
}

// sections returns the outcome as the sections of a case.
func (o *outcome) sections(c *Case) map[string]string {
	got := map[string]string{wantOutcome: strings.Join(o.facts, "\n") + "\n"}
	if o.forward != "" {
		got[wantRequest] = pretty(o.forward)
	}
	if o.calls != "" {
		got[wantCalls] = o.calls
	}
	if o.local {
		got[wantResponse] = pretty(o.client)
		return got
	}
	if o.replied && o.client != "" {
		got[wantResponse] = o.client
		if c.reply.media == mediaJSON {
			got[wantResponse] = pretty(o.client)
		}
		got[wantText] = read(c, o.client)
	}
	return got
}

// pretty puts JSON on lines of its own, so that a difference can be read. Nothing but white space changes.
func pretty(body string) string {
	var b bytes.Buffer
	if json.Indent(&b, []byte(strings.TrimSpace(body)), "", "  ") != nil {
		return body
	}
	return b.String() + "\n"
}

// heard are the texts of a response as a client reads them.
type heard struct {
	lines []string
	open  map[string]int // lines by what they belong to
}

// read reads what the client got.
func read(c *Case, body string) string {
	h := &heard{open: map[string]int{}}
	p := toClient{h}
	o := answerOptions(c, p.event)
	ended := play(o, c.reply.status, c.reply.media, []byte(body))
	for _, e := range ended {
		h.lines = append(h.lines, "unreadable: "+e.Error())
	}
	var b strings.Builder
	for _, l := range h.lines {
		b.WriteString(strings.ReplaceAll(strings.TrimRight(l, "\n"), "\n", "\n  ") + "\n")
	}
	return b.String()
}

// toClient hears events.
type toClient struct{ *heard }

func (h toClient) event(e *abi.Event) (*abi.Verdict, error) {
	choice := fmt.Sprintf("%d", e.Choice)
	switch e.Kind {
	case abi.KindText:
		h.say(choice, choice+": ", e.Text)
	case abi.KindToolCall:
		key := fmt.Sprintf("%d call %d", e.Choice, e.Tool.Number)
		h.say(key, key+" "+e.Tool.Name+": ", e.Text)
	case abi.KindFinish:
		delete(h.open, choice)
		if e.Reason != "" {
			h.lines = append(h.lines, choice+" ends: "+e.Reason)
		}
	case abi.KindUsage:
		h.lines = append(h.lines, fmt.Sprintf("usage: input %d, output %d", e.Usage.Input, e.Usage.Output))
	case abi.KindEnd:
		if e.Reason != "ok" {
			h.lines = append(h.lines, "ends: "+e.Reason)
		}
	case abi.KindHead:
	}
	return nil, nil
}

func (h *heard) say(key, begin, text string) {
	at, ok := h.open[key]
	if !ok {
		at = len(h.lines)
		h.open[key] = at
		h.lines = append(h.lines, begin)
	}
	h.lines[at] += text
}
