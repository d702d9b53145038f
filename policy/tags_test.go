// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTagsAreReadAsTheyWereEncoded(t *testing.T) {
	tags := []Tag{{Name: "a", Value: "1"}, {Name: "b", Value: strings.Repeat("x", MaxTagValue)}, {Name: "", Value: "nameless"}, {Name: "c", Value: strings.Repeat("x", MaxTagValue+1)}}
	got, err := ParseTags(EncodeTags(tags))
	if diff := cmp.Diff(got, tags[:2]); err != nil || diff != "" {
		t.Errorf("%v (-got +want):\n%s", err, diff)
	}
	if got, err := ParseTags(EncodeTags(nil)); got != nil || err != nil {
		t.Errorf("none: %v, %v", got, err)
	}
	for _, s := range []string{"!", "AA", EncodeTags(tags[:1]) + "AA", EncodeTags(tags[:1])[:3], "_____w"} {
		if got, err := ParseTags(s); !errors.Is(err, ErrTicket) {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}

func TestLastValueOfATagCounts(t *testing.T) {
	var many []Tag
	for i := range MaxTags + 3 {
		many = append(many, Tag{Name: string(rune('a' + i)), Value: "1"})
	}
	got := MergeTags(MergeTags(nil, many), []Tag{{Name: "b", Value: "2"}, {Name: "zz", Value: "3"}})
	if len(got) != MaxTags || got[1].Value != "2" || got[0].Value != "1" {
		t.Errorf("got %v", got)
	}
}
