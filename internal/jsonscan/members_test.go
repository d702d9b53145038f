// SPDX-License-Identifier: Apache-2.0

package jsonscan

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMembersAreFoundWithWhatIsInThem(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text string
		want []string
	}{
		"nothing":  {`{"a": { } }`, nil},
		"members":  {`{"a": {"b":1 , "c" : {"d":[2]},"\u0062":"x,}"}}`, []string{`"b"`, `1`, `"c"`, `{"d":[2]}`, `"\u0062"`, `"x,}"`}},
		"repeated": {`{"a":{"b":1,"b":null}}`, []string{`"b"`, `1`, `"b"`, `null`}},
		"no object": {
			`{"a":[{"b":1}]}`, nil,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := []byte(tt.text)
			var o Object
			if err := NewKeys("a").Scan(text, &o); err != nil {
				t.Fatal(err)
			}
			var got []string
			for k, v := range Members(text, o.Values[0]) {
				got = append(got, string(k.Of(text)), string(v.Of(text)))
			}
			if diff := cmp.Diff(got, tt.want); diff != "" {
				t.Errorf("members differ (-got +want):\n%s", diff)
			}
		})
	}
	for range Members([]byte(`{"a":1}`), Span{}) {
		t.Error("a span that is none has a member")
	}
}
