// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/usage"
)

// Channel is what is told of a channel.
type Channel struct {
	ID      policy.ChannelID
	Name    string
	Dialect string // how its credential is sent: openai, azure, anthropic, fake
	BaseURL string
}

// server is a channel as the conventions describe it.
type server struct {
	channel  string
	provider string
	address  string
	port     int
}

// hosts are providers that the conventions have a name for, by the end of their host:
// https://opentelemetry.io/docs/specs/semconv/registry/attributes/gen-ai/, gen_ai.provider.name.
var hosts = []struct{ suffix, name string }{
	{"openai.azure.com", "azure.ai.openai"},
	{"api.openai.com", "openai"},
	{"api.anthropic.com", "anthropic"},
	{"api.deepseek.com", "deepseek"},
	{"api.groq.com", "groq"},
	{"api.mistral.ai", "mistral_ai"},
	{"api.perplexity.ai", "perplexity"},
	{"api.x.ai", "x_ai"},
	{"api.cohere.com", "cohere"},
	{"api.cohere.ai", "cohere"},
	{"generativelanguage.googleapis.com", "gcp.gemini"},
	{"aiplatform.googleapis.com", "gcp.vertex_ai"},
	{"amazonaws.com", "aws.bedrock"},
}

// serverOf takes a channel apart. A server of one's own has the name of what it speaks.
func serverOf(c Channel) server {
	s := server{channel: c.Name, provider: c.Dialect}
	if c.Dialect == "azure" {
		s.provider = "azure.ai.openai"
	}
	u, err := url.Parse(c.BaseURL)
	if err != nil {
		return s
	}
	s.address, s.port = u.Hostname(), 80
	if u.Scheme == "https" {
		s.port = 443
	}
	if n, err := strconv.Atoi(u.Port()); err == nil {
		s.port = n
	}
	for _, h := range hosts {
		if s.address == h.suffix || strings.HasSuffix(s.address, "."+h.suffix) {
			s.provider = h.name
			break
		}
	}
	return s
}

// otherProvider is the provider of an exchange that no channel took, or whose channel is gone.
const otherProvider = "_OTHER"

// operation returns gen_ai.operation.name.
func operation(o policy.Operation) string {
	switch o {
	case policy.OpCompletions:
		return "text_completion"
	case policy.OpResponses:
		return "chat"
	case policy.OpChat, policy.OpEmbeddings:
	}
	return string(o)
}

// errorType returns error.type: a status, or how the exchange ended; empty for one that reached its end.
func errorType(r *usage.Record) string {
	switch {
	case r.Status == usage.StatusOK:
		return ""
	case r.Status == usage.StatusUpstreamError && r.HTTPStatus >= 400:
		return strconv.Itoa(r.HTTPStatus)
	default:
		return string(r.Status)
	}
}
