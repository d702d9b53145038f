// SPDX-License-Identifier: Apache-2.0

package prompt

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-proxy/weir/internal/jsonscan"
	"github.com/weir-proxy/weir/plugins/abi"
	"github.com/weir-proxy/weir/policy"
)

// limitKeys are the members that bound the output, where the client has named none.
var limitKeys = map[policy.Operation]string{
	policy.OpChat:        "max_completion_tokens",
	policy.OpCompletions: "max_tokens",
	policy.OpResponses:   "max_output_tokens",
}

// Apply returns the body as a verdict wants it: with its edits, messages, model and limit. It returns the body itself if the verdict changes none of
// these. The verdict must have been held against these very messages ([abi.Verdict.CheckRequest]). The error is [ErrInsert].
func (p *Prompt) Apply(v *abi.Verdict) ([]byte, error) {
	var edits jsonscan.Edits
	for from := 0; from < len(v.Edits); {
		to := from + 1
		for to < len(v.Edits) && v.Edits[to].Text == v.Edits[from].Text {
			to++
		}
		at := p.texts[v.Edits[from].Text-1]
		edits = append(edits, jsonscan.Edit{At: at, With: quote(rewrite(jsonscan.Unquote(at.Of(p.body)), v.Edits[from:to]))})
		from = to
	}
	if len(v.Inserts) > 0 {
		var err error
		if edits, err = p.insert(edits, v.Inserts); err != nil {
			return nil, err
		}
	}
	if v.Model != "" {
		edits = append(edits, jsonscan.Edit{At: p.model, With: quote(v.Model)})
	}
	if v.MaxOutput > 0 {
		edits = p.bound(edits, v.MaxOutput)
	}
	if len(edits) == 0 {
		return p.body, nil
	}
	return edits.Apply(p.body), nil
}

// rewrite makes edits, which are in order, in one text.
func rewrite(text string, edits []abi.Edit) string {
	var b strings.Builder
	from := int64(0)
	for _, e := range edits {
		b.WriteString(text[from:e.Start])
		b.WriteString(e.With)
		from = e.End
	}
	b.WriteString(text[from:])
	return b.String()
}

// insert adds messages. A string in the place of a list of messages becomes a list.
func (p *Prompt) insert(edits jsonscan.Edits, inserts []abi.Insert) (jsonscan.Edits, error) {
	if p.op != policy.OpChat && p.op != policy.OpResponses {
		return nil, ErrInsert
	}
	if p.whole.Found() {
		return p.surround(edits, inserts), nil
	}
	if !p.is(p.list, '[') { // nothing that a provider would take either
		return edits, nil
	}
	_, filled := p.place(0)
	for _, x := range inserts {
		at, ok := p.place(int(x.Before))
		e := jsonscan.Edit{At: jsonscan.Span{Start: at, End: at}, With: turn(x) + ","}
		if !ok { // behind all others
			at = p.list.End - 1
			e = jsonscan.Edit{At: jsonscan.Span{Start: at, End: at}, With: turn(x)}
			if filled {
				e.With = "," + e.With
			}
			filled = true
		}
		edits = append(edits, e)
	}
	return edits, nil
}

// surround makes a list of the string that stands for it.
func (p *Prompt) surround(edits jsonscan.Edits, inserts []abi.Insert) jsonscan.Edits {
	before, behind := "[", "}"
	for _, x := range inserts {
		if _, ok := p.place(int(x.Before)); ok {
			before += turn(x) + ","
		} else {
			behind += "," + turn(x)
		}
	}
	return append(edits,
		jsonscan.Edit{At: jsonscan.Span{Start: p.whole.Start, End: p.whole.Start}, With: before + `{"role":"user","content":`},
		jsonscan.Edit{At: jsonscan.Span{Start: p.whole.End, End: p.whole.End}, With: behind + "]"})
}

// turn writes a message.
func turn(x abi.Insert) string {
	return `{"role":` + quote(x.Role) + `,"content":` + quote(x.Text) + `}`
}

// place returns where the first message from number n on begins that stands in the list; false if there is none.
func (p *Prompt) place(n int) (int, bool) {
	for _, at := range p.turns[min(n, len(p.turns)):] {
		if at.Found() {
			return at.Start, true
		}
	}
	return 0, false
}

// bound lowers what the client allows as output, under whatever name, and sets it where it allows any.
func (p *Prompt) bound(edits jsonscan.Edits, most int64) jsonscan.Edits {
	n := strconv.FormatInt(most, 10)
	bounded := slices.ContainsFunc(p.limits, func(l limit) bool { return l.own && !l.null })
	for _, l := range p.limits {
		switch {
		case !l.null && (l.value == 0 || l.value > most):
			edits = append(edits, jsonscan.Edit{At: l.at, With: n})
		case l.null && l.own && !bounded:
			edits = append(edits, jsonscan.Edit{At: l.at, With: n})
			bounded = true
		}
	}
	if key := limitKeys[p.op]; !bounded && key != "" {
		edits = append(edits, p.object.Insert(`"`+key+`":`+n))
	}
	return edits
}

// quote writes a JSON string.
func quote(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic(err) // a string cannot fail
	}
	return strings.TrimSuffix(b.String(), "\n")
}
