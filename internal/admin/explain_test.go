// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
)

// These causes cannot be had from a server on this machine in a moment.
func TestNoAnswerIsExplainedByItsCause(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"no name":    {&net.OpError{Op: "dial", Err: &net.DNSError{Name: "provider.invalid", IsNotFound: true}}, `the name "provider.invalid" cannot be resolved`},
		"timeout":    {context.DeadlineExceeded, "no answer within 10s"},
		"TLS record": {tls.RecordHeaderError{Msg: "x"}, "does not speak TLS"},
		"unknown":    {errors.New("x"), "did not get an answer"},
	} {
		detail, hint := explainNoAnswer(&url.Error{Op: "Get", URL: "http://x", Err: c.err})
		if !strings.Contains(detail, c.want) || hint == "" {
			t.Errorf("%s: got %q, %q, want %q", name, detail, hint, c.want)
		}
	}
}
