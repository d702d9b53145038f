// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/plugins/abi"
)

func responsesStream(data ...string) *record {
	return &record{operation: responsesOp, media: "text/event-stream", body: sse(data...)}
}

const outputDelta = `{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"to a@b.cd","logprobs":[{"token":"a"}]}`

func TestLogProbabilitiesOfAChangedTextGo(t *testing.T) {
	t.Parallel()
	part := `{"type":"output_text","text":"to a@b.cd","logprobs":[{"token":"a"}]}`
	r := responsesStream(outputDelta, `{"type":"response.output_text.done","output_index":0,"content_index":0,"text":"to a@b.cd","logprobs":[{"token":"a"}]}`,
		`{"type":"response.content_part.done","output_index":0,"content_index":0,"part":`+part+`}`, `{"type":"response.completed","response":{"output":[{"content":[`+part+`]}]}}`)
	got := r.play(t, r.options(redactor()), r.whole())
	if n := strings.Count(got.body, `"logprobs":[]`); strings.Contains(got.body, "token") || n != 5 { // one is of the event that brings what was held back
		t.Errorf("%d times without log probabilities:\n%s", n, got.body)
	}
}

// TestTextsThatNothingRepeatsEndBeforeTheResponse has a last event that does not have the output that came before.
func TestTextsThatNothingRepeatsEndBeforeTheResponse(t *testing.T) {
	t.Parallel()
	last := `{"type":"response.completed","response":{"output":[]}}`
	r := responsesStream(outputDelta, last)
	got := r.play(t, r.options(redactor()), r.whole())
	if !strings.HasSuffix(got.body, string(sse(last))) {
		t.Errorf("what was held back comes behind the end:\n%s", got.body)
	}
	c, err := readStream(got.body)
	if err != nil || c.texts["0.0"] != "to [REDACTED]" {
		t.Errorf("the text is %q (%v)", c.texts["0.0"], err)
	}
}

// TestTextsThatComeWholeAreNotToldInPieces has a provider that sends items alone.
func TestTextsThatComeWholeAreNotToldInPieces(t *testing.T) {
	t.Parallel()
	item := func(text string) string {
		return `{"type":"response.output_item.done","output_index":0,"item":{"type":"message","content":[{"type":"output_text","text":"` + text + `"}]}}`
	}
	r := responsesStream(item("to a@b.cd"))
	got := r.play(t, r.options(redactor()), r.whole())
	if want := string(sse(item("to [REDACTED]"))); got.body != want {
		t.Errorf("got %q, want %q", got.body, want)
	}
}

// TestPartsOfAnItemAreTextsOfTheirOwn has two parts of an item by turns: none goes on in the other.
func TestPartsOfAnItemAreTextsOfTheirOwn(t *testing.T) {
	t.Parallel()
	piece := func(part, text string) string {
		return `{"type":"response.output_text.delta","output_index":4,"content_index":` + part + `,"delta":"` + text + `"}`
	}
	r := responsesStream(piece("0", "one two"), piece("1", "three"), piece("1", " four"), piece("0", " five"))
	w := &watcher{t: t}
	got := r.play(t, r.options(redactor(), w.judge("w")), r.whole())
	c, err := readStream(got.body)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c.texts, map[string]string{"4.0": "one two five", "4.1": "three four"}); diff != "" {
		t.Errorf("texts (-got +want):\n%s", diff)
	}
	want := []string{`text 4 "one "`, `text 4 "two"`, `finish 4 ""`, `text 4 1 "three "`, `text 4 1 "four"`, `finish 4 1 ""`, `text 4 " "`, `text 4 "five"`, `finish 4 ""`, "end ok"}
	if diff := cmp.Diff(w.seen[1:], want); diff != "" {
		t.Errorf("events (-got +want):\n%s", diff)
	}
}

func TestAStateStaysUntilAnotherIsGiven(t *testing.T) {
	t.Parallel()
	r := chatStream(delta(0, `"content":"a"`, "null"), delta(0, `"content":"b"`, "null"), delta(0, `"content":"c"`, `"stop"`))
	var got []string
	j := judging("j", func(e *abi.Event) *abi.Verdict {
		got = append(got, string(e.State))
		switch e.Text {
		case "a":
			return &abi.Verdict{State: []byte("second")}
		case "c":
			return &abi.Verdict{State: []byte{}}
		}
		return nil
	})
	j.State = []byte("first")
	r.play(t, r.options(j), r.whole())
	if want := []string{"first", "first", "second", "second", "", ""}; !slices.Equal(got, want) {
		t.Errorf("states are %q, want %q", got, want)
	}
}

func TestAByteOrderMarkStandsInFrontAlone(t *testing.T) {
	t.Parallel()
	text := delta(0, `"content":"a@b.cd "`, "null")
	const mark = "\uFEFF"
	r := &record{operation: chatOp, media: "text/event-stream", body: []byte(mark + string(sse(text)) + mark + string(sse(text)))}
	got := r.play(t, r.options(redactor()), r.whole())
	// The second one makes the name of its field another one, which clients pass over.
	if want := mark + string(sse(delta(0, `"content":"[REDACTED] "`, "null"))) + mark + string(sse(text)); got.body != want {
		t.Errorf("got %q, want %q", got.body, want)
	}
}
