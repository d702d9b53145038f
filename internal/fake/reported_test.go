// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"bytes"
	"testing"
)

func TestTokensCountOnceTheReportOfThemIsWritten(t *testing.T) {
	t.Parallel()
	head, report, rest := `{"output":[{"text":"{}"}],"usage":`, `{"input_tokens":7,"input_tokens_details":{"cached_tokens":0},"output_tokens":3}`, `,"user":null}`
	a := answer{reports: true, usage: usage{input: 7, output: 3}}
	a.event([]byte(head+report+rest), 3)
	for n := range len(a.body) + 1 {
		if got, want := a.reported(n), n >= len(head+report); got != want {
			t.Errorf("after %q: reported is %v", a.body[:n], got)
		}
	}
	silent := answer{reports: true, body: bytes.Clone(a.body[:len(head)-8])}
	if silent.reported(len(silent.body)) {
		t.Error("an answer without a report has reported")
	}
}
