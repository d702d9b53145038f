// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/weir-proxy/weir/internal/store"
)

// Limits of one test of a channel.
const (
	probeTimeout  = 10 * time.Second
	maxProbedBody = 4 << 20 // bytes; OpenAI's list of models has some 20 kB
)

// anthropicVersion is required of every request: https://docs.anthropic.com/en/api/versioning.
const anthropicVersion = "2023-06-01"

// Prober tests channels by asking their providers for the list of models, which every one of them has and none charges for. It is made
// by [NewProber].
type Prober struct {
	client *http.Client
}

// NewProber returns a prober with connections of its own: a test that went over a connection already open would prove less. It trusts
// what the system trusts.
func NewProber() *Prober {
	return &Prober{client: &http.Client{
		Timeout: probeTimeout,
		Transport: &http.Transport{
			Proxy:             http.ProxyFromEnvironment,
			DisableKeepAlives: true,
			ForceAttemptHTTP2: true,
			TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12},
		},
		// A redirect would carry the credential to somebody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// TrustFile makes the prober trust the PEM certificates in a file, and no others, as Envoy does with envoy.ca_file. It must be called
// before the first test.
func (p *Prober) TrustFile(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return fmt.Errorf("read certificates: none in %s", path)
	}
	p.client.Transport.(*http.Transport).TLSClientConfig.RootCAs = pool //nolint:forcetypeassert // NewProber made it
	return nil
}

// TestChannel implements [ChannelTester]. Nothing of the provider's body is passed on, as it may quote the credential.
func (p *Prober) TestChannel(ctx context.Context, c store.Channel) ChannelTest {
	t := ChannelTest{URL: strings.TrimRight(c.BaseURL, "/") + "/models", MissingModels: []string{}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.URL, nil)
	if err != nil {
		t.Detail, t.Hint = "the channel's base URL cannot be used", "weir channel set "+c.Name+" --base-url URL"
		return t
	}
	authorize(req, c)
	start := time.Now()
	res, err := p.client.Do(req)
	if err != nil {
		t.LatencyMS = time.Since(start).Milliseconds()
		t.Detail, t.Hint = explainNoAnswer(err)
		return t
	}
	defer res.Body.Close() //nolint:errcheck // what was read is read
	body, err := io.ReadAll(io.LimitReader(res.Body, maxProbedBody))
	t.LatencyMS = time.Since(start).Milliseconds()
	t.Status = res.StatusCode
	if err != nil {
		t.Detail, t.Hint = "the provider's answer was cut", "try again; if it stays so, look at the network between here and the provider"
		return t
	}
	if res.StatusCode != http.StatusOK {
		t.Detail, t.Hint = explainStatus(res.StatusCode, c)
		return t
	}
	t.OK = true
	t.Detail = "the provider answers and takes the credential"
	t.MissingModels = missingModels(body, c)
	if len(t.MissingModels) > 0 {
		t.Hint = "the provider does not list every model of the channel: compare its names with those in --models a=upstream"
	}
	return t
}

// authorize presents the credential as the dialect of the channel has it.
func authorize(req *http.Request, c store.Channel) {
	key := c.Credential.Reveal()
	if c.Provider == "anthropic" {
		req.Header.Set("anthropic-version", anthropicVersion)
	}
	if key == "" {
		return
	}
	switch c.Provider {
	case "azure":
		req.Header.Set("api-key", key)
	case "anthropic":
		req.Header.Set("x-api-key", key)
	default:
		req.Header.Set("Authorization", "Bearer "+key)
	}
}

func explainNoAnswer(err error) (detail, hint string) {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return fmt.Sprintf("the name %q cannot be resolved", dns.Name), "look at the channel's base URL, and at DNS on the server"
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "the provider's certificate is not trusted", "look at the host in the base URL, and at the certificates of the server's system"
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || errors.Is(err, http.ErrSchemeMismatch) {
		return "the provider does not speak TLS there", "an address without TLS begins with http://"
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return fmt.Sprintf("no answer within %s", probeTimeout), "look at the base URL, and at the network between the server and the provider"
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return fmt.Sprintf("cannot %s: %s", op.Op, op.Err), "look at the channel's base URL, and at the firewall of the server"
	}
	return "the request did not get an answer", "look at the channel's base URL"
}

func explainStatus(status int, c store.Channel) (detail, hint string) {
	set := "weir channel set " + c.Name
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		if c.Credential == "" {
			return "the provider wants a credential and the channel has none", set + " --api-key @FILE"
		}
		return "the provider refuses the credential", set + " --api-key @FILE"
	case status == http.StatusNotFound || status == http.StatusMethodNotAllowed:
		return "the provider has no list of models at this address", "the base URL usually ends in /v1: " + set + " --base-url URL"
	case status == http.StatusTooManyRequests:
		return "the provider's limit on requests is reached, or its quota used up", "look at the account with the provider"
	case status >= 300 && status < 400:
		return "the provider redirects to another address", set + " --base-url URL, with the address that it redirects to"
	case status >= 500:
		return fmt.Sprintf("the provider fails with status %d", status), "try again later"
	}
	return fmt.Sprintf("the provider answers with status %d", status), "look at the channel's base URL and provider"
}

// missingModels returns the models of the channel that the provider's list lacks, or none when the list says nothing of them: Azure's is
// of models, not of deployments; the fake provider serves what it does not list; others may go on in further pages, or be in a form that is
// not OpenAI's.
func missingModels(body []byte, c store.Channel) []string {
	missing := []string{}
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
		HasMore bool `json:"has_more"`
	}
	if c.Provider == "azure" || c.Provider == "fake" || json.Unmarshal(body, &list) != nil || len(list.Data) == 0 || list.HasMore {
		return missing
	}
	listed := make(map[string]bool, len(list.Data))
	for _, m := range list.Data {
		listed[m.ID] = true
	}
	for _, m := range c.Models {
		name := m.Upstream
		if name == "" {
			name = m.Name
		}
		if !listed[name] {
			missing = append(missing, name)
		}
	}
	return missing
}
