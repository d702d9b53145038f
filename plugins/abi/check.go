// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// CheckHeaderName refuses the name of a header that plugins may not change: one of the gateway, or no name at all.
func CheckHeaderName(name string) error { return checkHeaderName(name) }

// checkHeaderName refuses what is no name, and what belongs to the gateway.
func checkHeaderName(name string) error {
	const token = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
	if name == "" || len(name) > maxName || strings.Trim(name, token) != "" {
		return fmt.Errorf("%.40q is not the name of a header in lower case", name)
	}
	switch name {
	case "host", "content-length", "transfer-encoding", "connection", "authorization", "api-key", "x-api-key", "cookie", "set-cookie", "te", "upgrade":
		return fmt.Errorf("the header %s is not for plugins to change", name)
	}
	if strings.HasPrefix(name, "x-weir-") || strings.HasPrefix(name, "x-envoy-") || name == "x-client-request-id" { // attempts are known by the last
		return fmt.Errorf("the header %s is the gateway's own", name)
	}
	return nil
}

// CheckRequest holds the verdict against the request that it judges, and brings its edits into order.
func (v *Verdict) CheckRequest(x *Exchange) error {
	if v.Action == Drop {
		return errors.New("it drops a request; only events can be dropped")
	}
	for _, c := range v.Channels {
		if !slices.Contains(x.Channels, c) {
			return fmt.Errorf("it chooses the channel %.80q, which was not offered", c)
		}
	}
	for _, i := range v.Inserts {
		if i.Before < 0 || i.Before > int64(len(x.Messages)) {
			return fmt.Errorf("it inserts a message before message %d of %d", i.Before, len(x.Messages))
		}
	}
	if len(v.Edits) == 0 {
		return nil
	}
	texts := map[int64]string{}
	for _, m := range x.Messages {
		for _, t := range m.Texts {
			texts[t.ID] = t.Text
		}
		for _, c := range m.Calls {
			texts[c.Arguments.ID] = c.Arguments.Text
		}
	}
	return v.checkEdits(texts)
}

// CheckEvent holds the verdict against the event that it judges, and brings its edits into order.
func (v *Verdict) CheckEvent(e *Event) error {
	switch {
	case v.Model != "" || len(v.Channels) > 0 || len(v.Inserts) > 0 || v.MaxOutput != 0:
		return errors.New("it changes the request, which has been sent")
	case v.Action == Drop && e.Kind != KindText && e.Kind != KindToolCall:
		return errors.New("it drops an event that is neither text nor a tool call")
	case len(v.Set)+len(v.Remove) > 0 && e.Kind != KindHead:
		return errors.New("it changes headers that have been sent")
	case v.Action == Deny && e.Kind == KindEnd:
		return errors.New("it denies what is over")
	}
	if len(v.Edits) == 0 {
		return nil
	}
	if e.Kind != KindText && e.Kind != KindToolCall && e.Kind != KindFinish {
		return errors.New("it edits the text of an event that has none")
	}
	return v.checkEdits(map[int64]string{0: e.Text})
}

func (v *Verdict) checkEdits(texts map[int64]string) error {
	slices.SortStableFunc(v.Edits, func(a, b Edit) int {
		return cmp.Or(cmp.Compare(a.Text, b.Text), cmp.Compare(a.Start, b.Start), cmp.Compare(a.End, b.End))
	})
	for i, e := range v.Edits {
		t, ok := texts[e.Text]
		switch {
		case !ok:
			return fmt.Errorf("it edits text %d, which it was not given", e.Text)
		case e.Start < 0 || e.End < e.Start || e.End > int64(len(t)):
			return fmt.Errorf("it edits bytes %d to %d of text %d, which has %d", e.Start, e.End, e.Text, len(t))
		case !boundary(t, e.Start) || !boundary(t, e.End):
			return fmt.Errorf("it cuts a character of text %d: bytes %d to %d", e.Text, e.Start, e.End)
		case i > 0 && v.Edits[i-1].Text == e.Text && v.Edits[i-1].End > e.Start:
			return fmt.Errorf("its edits of text %d overlap at byte %d", e.Text, e.Start)
		}
	}
	return nil
}

func boundary(t string, at int64) bool { return at == int64(len(t)) || utf8.RuneStart(t[at]) }

// Apply returns a text with the edits made that are for it. The verdict must have been checked.
func (v *Verdict) Apply(id int64, text string) string {
	var b strings.Builder
	at := int64(0)
	for _, e := range v.Edits {
		if e.Text == id {
			b.WriteString(text[at:e.Start])
			b.WriteString(e.With)
			at = e.End
		}
	}
	if at == 0 && b.Len() == 0 {
		return text
	}
	b.WriteString(text[at:])
	return b.String()
}
