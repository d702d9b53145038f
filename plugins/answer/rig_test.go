// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/plugins/abi"
	"github.com/weir-proxy/weir/policy"
)

// Operations.
const (
	chatOp        = string(policy.OpChat)
	completionsOp = string(policy.OpCompletions)
	responsesOp   = string(policy.OpResponses)
)

// record is a response as a provider sent it.
type record struct {
	name      string
	operation string
	media     string
	body      []byte
}

// stream reports whether it is one.
func (r *record) stream() bool { return r.media == "text/event-stream" }

func records(t testing.TB) []record {
	t.Helper()
	files, err := filepath.Glob("testdata/*.*s*")
	if err != nil {
		t.Fatal(err)
	}
	var out []record
	for _, f := range files {
		r := record{name: filepath.Base(f)}
		switch filepath.Ext(f) {
		case ".sse":
			r.media = "text/event-stream"
		case ".json":
			r.media = "application/json"
		default:
			continue
		}
		r.operation = chatOp
		for _, op := range []string{completionsOp, responsesOp, "embeddings"} {
			if strings.HasPrefix(r.name, op) {
				r.operation = op
			}
		}
		if r.body, err = os.ReadFile(f); err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	if len(out) < 15 {
		t.Fatalf("only %d records", len(out))
	}
	return out
}

// options are for the record.
func (r *record) options(judges ...Judge) Options {
	return Options{Common: abi.Event{Exchange: "x", Operation: r.operation, Model: "m"}, Judges: judges}
}

func (r *record) headers() []abi.Header {
	return []abi.Header{{Name: "content-type", Value: r.media + "; charset=utf-8"}, {Name: "content-length", Value: "7"}}
}

// played is what came of a response.
type played struct {
	body   string
	status int
	denied *abi.Denial
	err    error
	rest   int // chunks that were not taken, because the response had ended
}

// play gives a response to an answer in chunks.
func (r *record) play(t testing.TB, o Options, chunks [][]byte) played {
	t.Helper()
	a := New(o)
	_, out, err := a.Head(200, r.headers())
	p := played{status: out.Status, denied: out.Denied, err: err}
	body := bytes.Clone(out.Body)
	for i, c := range chunks {
		if out.End {
			p.rest = len(chunks) - i
			break
		}
		out, err = a.Write(bytes.Clone(c), i == len(chunks)-1)
		if err != nil {
			p.err = err
		}
		body = append(body, out.Body...)
		p.status, p.denied = out.Status, out.Denied
	}
	if !out.End {
		t.Fatal("the response has no end")
	}
	if more, err := a.Write([]byte("data: more"), true); len(more.Body) > 0 || !more.End || err != nil {
		t.Fatalf("after its end the response goes on: %+v, %v", more, err)
	}
	p.body = string(body)
	return p
}

// whole is the response in one chunk.
func (r *record) whole() [][]byte { return [][]byte{r.body} }

// watcher is a judge that notes what it sees, changes nothing, and holds the order of events to the rules of weir/1.
type watcher struct {
	t    testing.TB
	seen []string
	last abi.Kind
}

func (w *watcher) judge(name string) Judge {
	return Judge{Name: name, Event: func(e *abi.Event) (*abi.Verdict, error) {
		w.note(e)
		return nil, nil
	}}
}

func (w *watcher) note(e *abi.Event) {
	if w.last == 0 && e.Kind != abi.KindHead && e.Reason != ReasonDenied && w.t != nil { // whom a denial of the head precedes sees the end alone
		w.t.Errorf("the first event has kind %d", e.Kind)
	}
	if w.last == abi.KindEnd && w.t != nil {
		w.t.Errorf("an event of kind %d comes after the end", e.Kind)
	}
	if e.Kind == abi.KindHead && w.last != 0 && w.t != nil {
		w.t.Error("a second head")
	}
	w.last = e.Kind
	w.seen = append(w.seen, describe(e))
}

// describe writes an event as a line.
func describe(e *abi.Event) string {
	switch e.Kind {
	case abi.KindHead:
		return fmt.Sprintf("head %d %v", e.Status, e.Headers)
	case abi.KindText:
		return fmt.Sprintf("text %d%s %q", e.Choice, partOf(e), e.Text)
	case abi.KindToolCall:
		return fmt.Sprintf("call %d %d %q %q %q", e.Choice, e.Tool.Number, e.Tool.ID, e.Tool.Name, e.Text)
	case abi.KindFinish:
		return fmt.Sprintf("finish %d%s %q", e.Choice, partOf(e), e.Reason)
	case abi.KindUsage:
		return fmt.Sprintf("usage %+v", e.Usage)
	default:
		return "end " + e.Reason
	}
}

// partOf says which text of a choice an event belongs to, unless it is the answer.
func partOf(e *abi.Event) string {
	s := ""
	if e.Part.Name != abi.PartContent {
		s = " " + e.Part.Name
	}
	if e.Part.Number > 0 {
		s += fmt.Sprintf(" %d", e.Part.Number)
	}
	return s
}

// secret is what the redactor takes out.
var secret = regexp.MustCompile(`[a-z0-9.]+@[a-z0-9]+\.[a-z]+|sk-[A-Za-z0-9]{4,}`)

// redact is what a text should become.
func redact(s string) string { return secret.ReplaceAllString(s, "[REDACTED]") }

// redactor returns a judge as a plugin has to be: it keeps nothing itself, and holds back the end of each text that may go on to be a secret, in its state, which
// has a line "key\x00text\x01" for each text.
func redactor() Judge {
	return Judge{Name: "redactor", Event: func(e *abi.Event) (*abi.Verdict, error) {
		var key string
		ends := e.Kind == abi.KindFinish
		switch e.Kind {
		case abi.KindText, abi.KindFinish:
			key = strconv.FormatInt(e.Choice, 10)
		case abi.KindToolCall:
			key = strconv.FormatInt(e.Choice, 10) + "." + strconv.FormatInt(e.Tool.Number, 10)
			ends = e.Text == "" && e.Tool.ID == "" && e.Tool.Name == ""
		default:
			return nil, nil
		}
		state, held := []byte{}, ""
		for line := range strings.SplitSeq(string(e.State), "\x01") {
			if k, v, ok := strings.Cut(line, "\x00"); ok && k == key {
				held = v
			} else if ok {
				state = append(append(state, line...), 1)
			}
		}
		all := held + e.Text
		cut := len(all)
		if !ends {
			cut = strings.LastIndexAny(all, " \n") + 1
		}
		if cut < len(all) {
			state = append(append(append(append(state, key...), 0), all[cut:]...), 1)
		}
		v := &abi.Verdict{State: state}
		if out := redact(all[:cut]); out != e.Text {
			v.Edits = []abi.Edit{{End: int64(len(e.Text)), With: out}}
		}
		return v, nil
	}}
}

// cuts yields ways to cut a body: in each two, in pieces of some sizes, and into bytes.
func cuts(body []byte, yield func(name string, chunks [][]byte)) {
	for i := range len(body) + 1 {
		yield(fmt.Sprintf("in two at %d", i), [][]byte{body[:i], body[i:]})
	}
	for _, size := range []int{1, 2, 3, 5, 17, 100, 1000} {
		var chunks [][]byte
		for at := 0; at < len(body); at += size {
			chunks = append(chunks, body[at:min(at+size, len(body))])
		}
		yield(fmt.Sprintf("in pieces of %d", size), append(chunks, nil))
	}
}
