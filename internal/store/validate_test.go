// SPDX-License-Identifier: Apache-2.0

package store

import (
	"net/url"
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	for _, name := range []string{"a", "default", "team-1", "a.b_c", "7of9", strings.Repeat("x", 64)} {
		if err := checkName("tenant", name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", "A", "a b", "-a", ".", "..", "_a", "a/b", "ä", "12", "a\x00", "a\n", strings.Repeat("x", 65)} {
		wantError(t, checkName("tenant", name), ErrInvalid, "tenant name")
	}
}

func TestModelNames(t *testing.T) {
	for _, name := range []string{"gpt-5", "meta/llama:70b@q4", "模型-1", "a*b", strings.Repeat("x", 256)} {
		if err := checkModelName("model", name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", "a b", "a\tb", "a\u00a0b", "a\u200bb", "\x00", "\xff", "a\x7f", strings.Repeat("x", 257)} {
		wantError(t, checkModelName("model", name), ErrInvalid, "model")
	}
}

func TestBaseURLs(t *testing.T) {
	for in, want := range map[string]string{
		"https://api.example.com/v1":     "https://api.example.com/v1",
		"https://api.example.com/v1///":  "https://api.example.com/v1",
		"HTTPS://API.example.com":        "https://API.example.com",
		"http://127.0.0.1:8080/":         "http://127.0.0.1:8080",
		"http://[::1]:11434/v1":          "http://[::1]:11434/v1",
		"https://x.example/a%20b/openai": "https://x.example/a%20b/openai",
	} {
		if got, err := checkBaseURL(in); got != want || err != nil {
			t.Errorf("%q = %q, %v; want %q", in, got, err, want)
		}
	}
	for in, says := range map[string]string{
		"":                                           "https://",
		"api.example.com/v1":                         "https://",
		"ftp://example.com":                          "https://",
		"file:///etc/passwd":                         "https://",
		"https:///v1":                                "host",
		"https://:443/v1":                            "host",
		"https://u:pw@example.com":                   "no user",
		"https://example.com?a=b":                    "no ?",
		"https://example.com?":                       "no ?",
		"https://example.com#":                       "no #",
		"https://example.com/v1#x":                   "no #",
		"https://example.com:0/":                     "port",
		"https://example.com:70000/":                 "port",
		"https://example.com:/":                      "port",
		"https://example.com/a/../b":                 "parts",
		"https://example.com/a//b":                   "parts",
		"https://example.com/a b":                    "visible",
		"https://exämple.com/":                       "visible",
		"https://exa mple.com/":                      "cannot be read",
		"http://[::1":                                "cannot be read",
		"https://e.com/" + strings.Repeat("x", 1024): "1024",
	} {
		_, err := checkBaseURL(in)
		if wantError(t, err, ErrInvalid, says); err != nil && strings.Contains(err.Error(), "pw@") {
			t.Errorf("%q: the error gives a password away: %v", in, err)
		}
	}
}

// FuzzBaseURL: what is accepted is a URL that can be joined with a path, and is accepted again unchanged.
func FuzzBaseURL(f *testing.F) {
	for _, seed := range []string{"https://api.example.com/v1/", "http://[::1]:80", "https://a/%2e%2e/", "https://a:1/\\", "http://a/;x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := checkBaseURL(in)
		if err != nil {
			return
		}
		u, err := url.Parse(got + "/chat/completions")
		if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || !strings.HasSuffix(u.Path, "/chat/completions") {
			t.Fatalf("%q became %q: %+v, %v", in, got, u, err)
		}
		if again, err := checkBaseURL(got); again != got || err != nil {
			t.Fatalf("%q became %q, and that %q, %v", in, got, again, err)
		}
	})
}
