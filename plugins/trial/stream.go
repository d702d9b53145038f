// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"

	"github.com/weir-proxy/weir/plugins/abi"
	"github.com/weir-proxy/weir/plugins/answer"
)

func answerOptions(c *Case, event func(*abi.Event) (*abi.Verdict, error)) answer.Options {
	return answer.Options{
		Common: abi.Event{Operation: string(c.asked.operation), Model: "m"},
		Judges: []answer.Judge{{Name: "reader", Event: event}},
	}
}

// play has one judge hear a whole response.
func play(o answer.Options, status int, media string, body []byte) (errs []error) {
	a := answer.New(o)
	if _, _, err := a.Head(status, []abi.Header{{Name: "content-type", Value: media}}); err != nil {
		return []error{err}
	}
	if _, err := a.Write(body, true); err != nil {
		errs = append(errs, err)
	}
	return errs
}

// tell makes the stream of a chat that answers with a text in pieces.
func tell(pieces ...string) []byte {
	var b bytes.Buffer
	event := func(delta map[string]any, finish any) {
		v := map[string]any{
			"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
			"choices": []any{map[string]any{"index": 0, "delta": delta, "finish_reason": finish}},
		}
		line, err := json.Marshal(v)
		if err != nil {
			panic(err) // maps, texts and numbers
		}
		b.WriteString("data: " + string(line) + "\n\n")
	}
	event(map[string]any{"role": "assistant", "content": ""}, nil)
	for _, p := range pieces {
		event(map[string]any{"content": p}, nil)
	}
	event(map[string]any{}, "stop")
	b.WriteString("data: [DONE]\n\n")
	return b.Bytes()
}

// runes cuts a text into its characters.
func runes(text string) []string {
	var out []string
	for text != "" {
		_, n := utf8.DecodeRuneInString(text)
		out = append(out, text[:n])
		text = text[n:]
	}
	return out
}

// everywhere returns the offsets of cuts after each byte.
func everywhere(n int) []int {
	var cuts []int
	for i := 1; i < n; i++ {
		cuts = append(cuts, i)
	}
	return cuts
}
