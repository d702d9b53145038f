// SPDX-License-Identifier: Apache-2.0

package store

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/weir-proxy/weir/policy"
)

// Bounds on what an operator may enter.
const (
	maxName       = 64
	maxModelName  = 256
	maxModels     = 1000
	maxBaseURL    = 1024
	maxSecret     = 8192 // a credential may be a signed token
	minKeySecret  = 8
	maxKeySecret  = 512
	maxWeight     = 1000
	maxPriority   = 1_000_000
	defaultWeight = 1
)

// Providers returns the dialects that a channel may speak.
func Providers() []string { return []string{"openai", "azure", "anthropic", "fake"} }

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w "+format, append([]any{ErrInvalid}, args...)...)
}

// checkName keeps names usable as refs, in URLs and on command lines: one of digits alone would be taken for an id.
func checkName(what, name string) error {
	if name == "" || len(name) > maxName {
		return invalid("%s name %q: it must have 1 to %d characters", what, name, maxName)
	}
	digits := true
	for i, c := range []byte(name) {
		digit := c >= '0' && c <= '9'
		digits = digits && digit
		if c >= 'a' && c <= 'z' || digit || i > 0 && (c == '-' || c == '_' || c == '.') {
			continue
		}
		return invalid("%s name %q: only lowercase letters, digits, - _ and . may be in it, and it begins with a letter or digit", what, name)
	}
	if digits {
		return invalid("%s name %q: it needs something besides digits, or it would be taken for an id", what, name)
	}
	return nil
}

// checkModelName takes what can stand in a JSON string of a request and in a log without a surprise.
func checkModelName(what, name string) error {
	if name == "" || len(name) > maxModelName {
		return invalid("%s %q: it must have 1 to %d bytes", what, name, maxModelName)
	}
	if !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || unicode.IsSpace(r) }) {
		return invalid("%s %q: spaces and unprintable characters may not be in it", what, name)
	}
	return nil
}

// checkGlobs checks the models that a key may use: names in which * stands for any characters.
func checkGlobs(globs []string) error {
	if len(globs) > maxModels {
		return invalid("allowed models: %d of them, at most %d; * stands for any characters", len(globs), maxModels)
	}
	for _, g := range globs {
		if err := checkModelName("allowed model", g); err != nil {
			return err
		}
	}
	return nil
}

func checkModels(models []policy.Model) error {
	if len(models) == 0 || len(models) > maxModels {
		return invalid("channel models: %d of them; a channel serves 1 to %d", len(models), maxModels)
	}
	seen := make(map[string]bool, len(models))
	for _, m := range models {
		if err := checkModelName("model", m.Name); err != nil {
			return err
		}
		if strings.Contains(m.Name, "*") {
			return invalid("model %q: a channel names its models one by one, without *", m.Name)
		}
		if seen[m.Name] {
			return invalid("model %q: it is listed twice", m.Name)
		}
		seen[m.Name] = true
		if m.Upstream == "" {
			continue
		}
		if err := checkModelName("upstream model", m.Upstream); err != nil {
			return err
		}
	}
	return nil
}

// checkBaseURL returns the URL without slashes at its end.
func checkBaseURL(s string) (string, error) {
	if len(s) > maxBaseURL {
		return "", invalid("base URL: it has %d bytes, at most %d", len(s), maxBaseURL)
	}
	u, err := url.Parse(s)
	if err != nil {
		// The error of net/url would repeat the URL, and with it a password.
		return "", invalid("base URL: it cannot be read as a URL such as https://api.example.com/v1")
	}
	switch {
	case u.User != nil:
		return "", invalid("base URL: it may hold no user or password; the credential goes elsewhere")
	case u.Scheme != "http" && u.Scheme != "https":
		return "", invalid("base URL %q: it must begin with https:// or http://", s)
	case u.Hostname() == "" || strings.ContainsFunc(u.Hostname(), unicode.IsSpace):
		return "", invalid("base URL %q: the host is missing or wrong", s)
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"):
		return "", invalid("base URL %q: it may have no ? and no #", s)
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '\\' }):
		return "", invalid("base URL %q: only visible ASCII characters may be in it", s)
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", invalid("base URL %q: the port must be 1 to 65535", s)
		}
	}
	path := strings.TrimRight(u.EscapedPath(), "/")
	for segment := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		if segment == "." || segment == ".." || segment == "" && path != "" {
			return "", invalid("base URL %q: the path may have no empty, . or .. parts", s)
		}
	}
	return strings.ToLower(u.Scheme) + "://" + u.Host + path, nil
}

func checkProvider(name string) error {
	if !slices.Contains(Providers(), name) {
		return invalid("provider %q: known are %s", name, strings.Join(Providers(), ", "))
	}
	return nil
}

// checkCredential takes what can be sent in a header. Upstreams that ask for none have an empty one.
func checkCredential(s Secret) error {
	if len(s) > maxSecret {
		return invalid("credential: it has %d bytes, at most %d", len(s), maxSecret)
	}
	if !visibleASCII(string(s)) {
		return invalid("credential: only visible ASCII characters may be in it (a line break at its end?)")
	}
	return nil
}

func checkKeySecret(s Secret) error {
	if len(s) < minKeySecret || len(s) > maxKeySecret || !visibleASCII(string(s)) {
		return invalid("key secret: it must have %d to %d visible ASCII characters", minKeySecret, maxKeySecret)
	}
	return nil
}

func visibleASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

// Bounds on what a key may carry.
const (
	maxGroups        = 64
	maxNetworks      = 256
	maxKeyTags       = 8 // of the 16 that a row may have: policies want some
	maxMetadata      = 64
	maxMetadataValue = 1024
	maxHint          = 32
)

// checkGroups checks names of groups of channels.
func checkGroups(what string, groups []string) error {
	if len(groups) > maxGroups {
		return invalid("groups of a %s: %d of them, at most %d", what, len(groups), maxGroups)
	}
	for i, g := range groups {
		if err := checkName("group", g); err != nil {
			return err
		}
		if slices.Contains(groups[:i], g) {
			return invalid("group %q: it is listed twice", g)
		}
	}
	return nil
}

// parseNetworks reads networks as people write them: "10.0.0.0/8", or an address by itself.
func parseNetworks(texts []string) ([]netip.Prefix, error) {
	if len(texts) > maxNetworks {
		return nil, invalid("networks: %d of them, at most %d", len(texts), maxNetworks)
	}
	var all []netip.Prefix
	for _, s := range texts {
		n, err := netip.ParsePrefix(s)
		if a, alone := netip.ParseAddr(s); alone == nil && a.Zone() == "" {
			n, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		switch {
		case err != nil || n.Addr().Zone() != "":
			return nil, invalid("network %q: it is not as in 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7", s)
		case n.Addr().Is4In6():
			return nil, invalid("network %q: write it as one of IPv4", s)
		case n != n.Masked():
			return nil, invalid("network %q: bits are set beyond the prefix; do you mean %s, or %s?", s, n.Masked(), n.Addr())
		case slices.Contains(all, n):
			return nil, invalid("network %q: it is listed twice", s)
		}
		all = append(all, n)
	}
	return all, nil
}

// checkTags checks what goes into each row of usage of a key.
func checkTags(tags map[string]string) error {
	if len(tags) > maxKeyTags {
		return invalid("tags: %d of them, at most %d", len(tags), maxKeyTags)
	}
	return checkTexts("tag", tags, policy.MaxTagValue)
}

func checkMetadata(m map[string]string) error {
	if len(m) > maxMetadata {
		return invalid("metadata: %d members, at most %d", len(m), maxMetadata)
	}
	return checkTexts("metadata", m, maxMetadataValue)
}

func checkTexts(what string, m map[string]string, most int) error {
	for name, value := range m {
		if name == "" || len(name) > policy.MaxTagName || !visibleASCII(name) {
			return invalid("%s name %q: it must have 1 to %d visible ASCII characters", what, name, policy.MaxTagName)
		}
		if len(value) > most || !utf8.ValidString(value) || strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return invalid("%s %s: its value must have at most %d bytes, all of them printable", what, name, most)
		}
	}
	return nil
}

func checkHint(hint string) error {
	if hint == "" || len(hint) > maxHint || !utf8.ValidString(hint) || strings.ContainsFunc(hint, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return invalid("key hint %q: it must be 1 to %d bytes to know the secret by, such as its first and last characters", hint, maxHint)
	}
	return nil
}

func checkExpires(expires, now time.Time) error {
	if !expires.IsZero() && !expires.After(now) {
		return invalid("expiry %s: it is in the past; revoke the key to end it now", expires.UTC().Format(time.RFC3339))
	}
	if expires.Year() > 9999 {
		return invalid("expiry: the year %d cannot be kept; leave it out for a key that does not expire", expires.Year())
	}
	return nil
}

func checkPlace(priority, weight int) error {
	if weight < 1 || weight > maxWeight {
		return invalid("weight %d: it must be 1 to %d", weight, maxWeight)
	}
	if priority < -maxPriority || priority > maxPriority {
		return invalid("priority %d: it must be %d to %d", priority, -maxPriority, maxPriority)
	}
	return nil
}

func checkPartial(p policy.Partial) error {
	if !slices.Contains(policy.Partials(), p) {
		return invalid("billing of what is not counted %q: it must be %q", p, policy.Partials())
	}
	return nil
}

// parseRef takes a ref apart: id is zero when it is a name.
func parseRef(what, ref string) (id int64, name string, err error) {
	if ref == "" {
		return 0, "", invalid("%s: its id or name is needed", what)
	}
	if strings.Trim(ref, "0123456789") == "" {
		id, err = strconv.ParseInt(ref, 10, 64)
		if err != nil || id == 0 {
			return 0, "", notFound(what, ref)
		}
		return id, "", nil
	}
	if len(ref) > 2*maxName+1 || !visibleASCII(ref) {
		return 0, "", notFound(what, ref)
	}
	return 0, ref, nil
}

func notFound(what, ref string) error {
	if len(ref) > 2*maxName+1 {
		ref = strings.ToValidUTF8(ref[:2*maxName], "") + "…"
	}
	return fmt.Errorf("%s %q: %w", what, ref, ErrNotFound)
}
