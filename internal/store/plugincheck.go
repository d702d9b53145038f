// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds on plugins and attachments.
const (
	// MaxModule is the most that a module may have, in bytes.
	MaxModule = 16 << 20

	maxSection     = 64 << 10 // of what a module says of itself
	maxConfig      = 256 << 10
	maxGrants      = 16
	maxHeaders     = 32
	maxHeaderName  = 128
	maxUpstreams   = 32
	maxUpstream    = 253  // bytes of its name
	maxURL         = 1024 // bytes
	maxWhy         = 2000 // of a roll-back
	minDigestRef   = 6
	minFuel        = 1000
	maxFuel        = 1_000_000_000_000
	wasmPage       = 64 << 10
	maxMemory      = 4 << 30
	maxPluginTime  = 10 * time.Second
	wasmMagic      = "\x00asm\x01\x00\x00\x00"
	headerAlphabet = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
)

// checkModule checks what can be seen without running it.
func checkModule(m *PushedModule) error {
	switch {
	case len(m.Wasm) > MaxModule:
		return invalid("module: it has %d bytes, at most %d", len(m.Wasm), MaxModule)
	case !strings.HasPrefix(string(m.Wasm[:min(len(m.Wasm), len(wasmMagic))]), wasmMagic):
		return invalid("module: it is no WebAssembly module of version 1")
	}
	for _, s := range []struct{ name, text string }{{"about", m.About}, {"schema", m.Schema}} {
		if len(s.text) > maxSection {
			return invalid("module: its section weir.%s has %d bytes, at most %d", s.name, len(s.text), maxSection)
		}
		if s.text != "" && !storableJSON(s.text) {
			return invalid("module: its section weir.%s is not JSON", s.name)
		}
	}
	return nil
}

// storableJSON reports whether a text is JSON that Postgres takes as a text.
func storableJSON(s string) bool {
	return utf8.ValidString(s) && json.Valid([]byte(s)) // a zero byte is in no JSON
}

// Check reports what is wrong with settings by themselves; what the plugin says of them shows when it is loaded. It brings the lists into their usual form.
func (s *PluginSettings) Check() error { return checkSettings(s) }

// checkSettings checks settings and brings their lists into their usual form.
func checkSettings(s *PluginSettings) error {
	if !slices.Contains([]PluginMode{PluginClosed, PluginOpen, PluginShadow}, s.Mode) {
		return invalid("mode %q: it is closed, open or shadow", s.Mode)
	}
	if s.Place < -maxPriority || s.Place > maxPriority {
		return invalid("place %d: it must be %d to %d", s.Place, -maxPriority, maxPriority)
	}
	if len(s.Config) > maxConfig {
		return invalid("config: it has %d bytes, at most %d", len(s.Config), maxConfig)
	}
	if !utf8.ValidString(s.Config) || strings.Contains(s.Config, "\x00") {
		return invalid("config: it must be a text, in UTF-8")
	}
	s.Grants, s.Headers = distinct(s.Grants), distinct(s.Headers)
	if len(s.Grants) > maxGrants || len(s.Headers) > maxHeaders {
		return invalid("attachment: %d grants and %d headers, at most %d and %d", len(s.Grants), len(s.Headers), maxGrants, maxHeaders)
	}
	for _, g := range s.Grants {
		if err := checkName("grant", g); err != nil {
			return err
		}
	}
	for _, h := range s.Headers {
		if h == "" || len(h) > maxHeaderName || strings.Trim(h, headerAlphabet) != "" {
			return invalid("header %q: a name of a header in lower case is needed", h)
		}
	}
	if err := checkUpstreams(s); err != nil {
		return err
	}
	return checkPluginLimits(s.Limits)
}

// checkUpstreams checks servers that may be called, and brings their list into its usual form.
func checkUpstreams(s *PluginSettings) error {
	s.Upstreams = append([]PluginUpstream{}, s.Upstreams...) // never nil, for a column that is not null
	if len(s.Upstreams) > maxUpstreams {
		return invalid("attachment: %d upstreams, at most %d", len(s.Upstreams), maxUpstreams)
	}
	for i, u := range s.Upstreams {
		if u.Name == "" || len(u.Name) > maxUpstream || strings.ContainsFunc(u.Name, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			return invalid("upstream %q: the name of a cluster is needed, in ASCII without spaces, of at most %d bytes", u.Name, maxUpstream)
		}
		at, err := url.Parse(u.URL)
		if err != nil || len(u.URL) > maxURL || at.Scheme != "http" && at.Scheme != "https" || at.Hostname() == "" || at.User != nil ||
			at.RawQuery != "" || at.Fragment != "" {
			return invalid("upstream %s: its URL must be like https://host:port/path, without a user, query or fragment", u.Name)
		}
		if slices.ContainsFunc(s.Upstreams[:i], func(o PluginUpstream) bool { return o.Name == u.Name }) {
			return invalid("upstream %s: it is there twice", u.Name)
		}
	}
	return nil
}

func checkPluginLimits(l PluginLimits) error {
	if l.Fuel != 0 && (l.Fuel < minFuel || l.Fuel > maxFuel) {
		return invalid("fuel %d: it must be %d to %d", l.Fuel, minFuel, maxFuel)
	}
	if l.MemoryBytes != 0 && (l.MemoryBytes < wasmPage || l.MemoryBytes > maxMemory || l.MemoryBytes%wasmPage != 0) {
		return invalid("memory %d: it must be a multiple of %d bytes, up to %d", l.MemoryBytes, wasmPage, maxMemory)
	}
	if l.Time != 0 && (l.Time < time.Millisecond || l.Time > maxPluginTime || l.Time%time.Millisecond != 0) {
		return invalid("time %v: it must be 1ms to %v, in whole milliseconds", l.Time, maxPluginTime)
	}
	return nil
}

// distinct returns the names sorted, each once; never nil, for a column that is not null.
func distinct(names []string) []string {
	out := slices.Clone(names)
	slices.Sort(out)
	return append([]string{}, slices.Compact(out)...)
}

// clip shortens what is only for people, and makes it what Postgres takes as a text.
func clip(s string, most int) string {
	s = strings.ReplaceAll(s, "\x00", "")
	return strings.ToValidUTF8(s[:min(len(s), most)], "")
}
