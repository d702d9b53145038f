// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestCostsAreExact(t *testing.T) {
	for nano, want := range map[int64]string{
		0: "$0.00", 1: "$0.000000001", 10_000_000: "$0.01", 1_500_000_000: "$1.50", 1_234_567_890: "$1.23456789",
		-2_000_000_000: "-$2.00", math.MinInt64: "-$9223372036.854775808", math.MaxInt64: "$9223372036.854775807",
	} {
		if got := usd(&nano); got != want {
			t.Errorf("%d: got %s, want %s", nano, got, want)
		}
	}
	if got := usd(nil); got != "" {
		t.Errorf("unpriced: got %q", got)
	}
}

func TestSpansAreInTheirLargestUnit(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 59 * time.Second: "59s", time.Minute: "1m", 119 * time.Minute: "1h", 47 * time.Hour: "1d", 800 * time.Hour: "33d",
	} {
		if got := span(d); got != want {
			t.Errorf("%s: got %s, want %s", d, got, want)
		}
	}
}

func TestExpiryIsSaid(t *testing.T) {
	past := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	if got, want := expiry(&past), localTime(past)+" (expired)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	future := time.Now().Add(time.Hour)
	if got := expiry(&future); got != localTime(future) {
		t.Errorf("got %q", got)
	}
	if got := expiry(nil); got != "never" {
		t.Errorf("got %q", got)
	}
}

func TestNothingSteersTheTerminal(t *testing.T) {
	for in, want := range map[string]string{
		"plain":              "plain",
		"größer 模型":          "größer 模型",
		"\x1b[2J":            `\x1b[2J`,
		"a\tb\nc":            `a\tb\nc`,
		"\u202egpj.exe":      `\u202egpj.exe`,
		"\x9b2J":             "\ufffd2J",
		"bad \xff utf8 \x07": `bad � utf8 \a`,
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestErrorsHaveTheirPrefixOnEachLineAndOneHint(t *testing.T) {
	var out bytes.Buffer
	printError(&out, fmt.Errorf("outer: %w", withHint(errors.New("one\ntwo \x1b"), "do %s", "this")))
	if got, want := out.String(), "weir: outer: one\nweir: two \\x1b\nhint: do this\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	out.Reset()
	printError(&out, errors.New("connect:\n\tone \t\n\ttwo"))
	if got, want := out.String(), "weir: connect:\nweir:   one \\t\nweir:   two\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	out.Reset()
	printError(&out, fmt.Errorf("outer: %w", advice{}))
	if got, want := out.String(), "weir: outer: program\nhint: mend it\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestErrorsOfTheMachineHaveAHint(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&net.OpError{Op: "listen", Net: "tcp", Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}, "another program listens there"},
		{&net.OpError{Op: "listen", Net: "tcp", Err: os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)}, "no such address"},
		{&net.OpError{Op: "listen", Net: "tcp", Err: os.NewSyscallError("bind", syscall.EACCES)}, "CAP_NET_BIND_SERVICE"},
		{&fs.PathError{Op: "write", Path: "/state/log", Err: syscall.ENOSPC}, "df -h"},
		{&fs.PathError{Op: "write", Path: "/state/log", Err: syscall.EDQUOT}, "df -h"},
		{&fs.PathError{Op: "mkdir", Path: "/state", Err: syscall.EROFS}, "can only be read"},
		{&fs.PathError{Op: "open", Path: "/state/lock", Err: syscall.EACCES}, "the right to use /state/lock"},
		{&net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, ""},
		{&fs.PathError{Op: "open", Path: "a.wasm", Err: syscall.ENOENT}, ""},
		{withHint(&fs.PathError{Op: "open", Path: "a", Err: syscall.EACCES}, "know better"), "know better"},
	} {
		got := hintOf(fmt.Errorf("outer: %w", c.err))
		if !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%v: the hint is %q, want %q in it", c.err, got, c.want)
		}
	}
}

// advice is an error of a program that is not the command line's own.
type advice struct{}

func (advice) Error() string { return "program" }
func (advice) Hint() string  { return "mend it" }

func TestMomentsAreTimesDaysOrAges(t *testing.T) {
	now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Time{
		"":                     {},
		"2026-01-31T15:04:05Z": time.Date(2026, 1, 31, 15, 4, 5, 0, time.UTC),
		"2026-01-31":           time.Date(2026, 1, 31, 0, 0, 0, 0, time.Local),
		"90m":                  now.Add(-90 * time.Minute),
		"7d":                   now.AddDate(0, 0, -7),
	} {
		got, err := parseMoment("since", in, now)
		if err != nil || !got.Equal(want) {
			t.Errorf("%q: got %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"yesterday", "-1h", "d", "-1d", "99999999d", "5", "2026-02-30"} {
		_, err := parseMoment("since", in, now)
		if _, wrong := errors.AsType[*usageError](err); !wrong {
			t.Errorf("%q: got %v, want wrong usage", in, err)
		}
	}
}
