// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/weir-proxy/weir/policy"
)

// Timeouts are how long things may take.
type Timeouts struct {
	Connect   time.Duration // per connection to a provider, with TLS
	FirstByte time.Duration // per attempt, until the response's headers; the processor may say otherwise per request
	Idle      time.Duration // of an exchange: no byte either way
	Total     time.Duration // of an exchange, with all attempts
}

// Gateway says how the listener behaves. All durations and limits must be positive.
type Gateway struct {
	Listen       string    // host:port that clients connect to
	AccessLog    AccessLog // of Envoys that do not say how they do it; empty means AccessLogFile
	LogFile      string    // where the access log of the Envoy NodeID goes, as Envoys see the file system; for others see LogFile
	CAFile       string    // PEM bundle that providers' certificates are verified with, as Envoy sees the file system
	MaxBodyBytes int       // a larger request body is refused with 413
	Timeouts
	LogInterval time.Duration // between the lines that say that a long exchange still lives
	TrustedHops int           // proxies before Envoy whose x-forwarded-for is believed
	ForwardFake bool          // let x-fake-* headers, which steer the built-in fake provider, through to the channels
	Stamped     bool          // tell the processor when each request was received, see ReceivedHeader

	// PolicyHeaders are headers of requests and responses that the processor sees besides [ForwardedHeaders], in lower case: for policies that
	// judge by them.
	PolicyHeaders []string

	Edge Edge // what clients meet before HTTP

	// TapModule is the native tap from [WriteTap], as Envoy sees the file system; empty means the one in Lua.
	TapModule string
	Tracing   Tracing // whether exchanges are traced
	Lacks     Lacks   // what Envoys of a mesh are not assumed to have
}

// Channel is an upstream account as Envoy must know it.
type Channel struct {
	ID         policy.ChannelID
	Name       string // for people who read Envoy's statistics
	Dialect    Dialect
	BaseURL    string // with the version, as SDKs take it: https://api.openai.com/v1
	Credential string
	Renames    bool // the provider knows some model by another name
}

// Dialect is how a provider wants its credential. Its strings are those of weir.channel.provider.
type Dialect string

// The dialects.
const (
	OpenAI    Dialect = "openai"    // Authorization: Bearer
	Azure     Dialect = "azure"     // api-key
	Anthropic Dialect = "anthropic" // x-api-key
	Fake      Dialect = "fake"      // the built-in fake provider; as OpenAI
)

// credentialHeaders are all the headers that a credential can be in.
var credentialHeaders = []string{"authorization", "api-key", "x-api-key"}

// credential returns the header that carries the credential, and its value.
func (d Dialect) credential(secret string) (header, value string, err error) {
	switch d {
	case OpenAI, Fake:
		return "authorization", "Bearer " + secret, nil
	case Azure:
		return "api-key", secret, nil
	case Anthropic:
		return "x-api-key", secret, nil
	}
	return "", "", fmt.Errorf("unknown provider %q", string(d))
}

// ClusterName is the name of a channel's cluster. It appears in the metadata that routes a request and in the access log.
func ClusterName(id policy.ChannelID) string { return "channel-" + strconv.FormatInt(int64(id), 10) }

func secretName(id policy.ChannelID) string { return ClusterName(id) + "-credential" }

// origin is a channel's base URL, taken apart.
type origin struct {
	tls  bool
	host string // name or address, without port
	port uint16
	path string // without a slash at its end; empty for the root
}

// authority is what the provider expects in the host header.
func (o origin) authority() string {
	if o.tls && o.port == 443 || !o.tls && o.port == 80 {
		if strings.Contains(o.host, ":") {
			return "[" + o.host + "]"
		}
		return o.host
	}
	return net.JoinHostPort(o.host, strconv.Itoa(int(o.port)))
}

// isAddress says whether the host needs no DNS.
func (o origin) isAddress() bool {
	_, err := netip.ParseAddr(o.host)
	return err == nil
}

// parseOrigin takes a base URL apart. The characters of its path are limited to those that can stand in a path unescaped, since
// the path is written into a Lua source.
func parseOrigin(raw string) (origin, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return origin{}, fmt.Errorf("base URL: %w", err)
	}
	o := origin{tls: u.Scheme == "https", host: u.Hostname(), path: strings.TrimRight(u.EscapedPath(), "/")}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return origin{}, fmt.Errorf("base URL: scheme %q is neither http nor https", u.Scheme)
	case o.host == "":
		return origin{}, errors.New("base URL: no host")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return origin{}, errors.New("base URL: a user, query or fragment has no place in it")
	}
	for _, r := range o.path {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%!$&()*+,;=:@/", r) {
			return origin{}, fmt.Errorf("base URL: character %q in its path", r)
		}
	}
	o.port = 80
	if o.tls {
		o.port = 443
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return origin{}, fmt.Errorf("base URL: port %q", p)
		}
		o.port = uint16(n)
	}
	return o, nil
}
