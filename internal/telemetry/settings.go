// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"cmp"
	"fmt"
	"net/url"
	"strings"

	"github.com/weir-proxy/weir/internal/config"
)

// Signals says what is sent.
type Signals struct {
	Metrics, Traces bool
}

// SignalsOf returns what is sent with a configuration in an environment, which getenv reads; nil stands for an empty one. The variables are those of
// https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.
func SignalsOf(c config.Telemetry, getenv func(string) string) Signals {
	env := environment(getenv)
	if env.get("OTEL_SDK_DISABLED") == "true" {
		return Signals{}
	}
	sent := func(wanted bool, signal string) bool {
		there := c.Endpoint != "" || env.get("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || env.get("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") != ""
		return wanted && there && env.get("OTEL_"+signal+"_EXPORTER") != "none"
	}
	return Signals{Metrics: sent(c.Metrics, "METRICS"), Traces: sent(c.Traces, "TRACES")}
}

type environment func(string) string

func (e environment) get(name string) string {
	if e == nil {
		return ""
	}
	return e(name)
}

// protocol returns how a signal is sent.
func protocol(c config.Telemetry, env environment, signal string) (config.Protocol, error) {
	p := cmp.Or(c.Protocol, config.Protocol(env.get("OTEL_EXPORTER_OTLP_"+signal+"_PROTOCOL")),
		config.Protocol(env.get("OTEL_EXPORTER_OTLP_PROTOCOL")), config.OTLPGRPC)
	if p != config.OTLPGRPC && p != config.OTLPHTTP {
		return "", fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL: %q is neither %s nor %s", string(p), config.OTLPGRPC, config.OTLPHTTP)
	}
	return p, nil
}

// headers reads what OTEL_EXPORTER_OTLP_HEADERS may hold: name=value, separated by commas, with what does not fit in there escaped as in URLs. The error
// quotes nothing of it.
func headers(text string) (map[string]string, error) {
	out := map[string]string{}
	for pair := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if name = strings.TrimSpace(name); !ok || name == "" || err != nil {
			return nil, fmt.Errorf("telemetry.headers: the %d. is not name=value", len(out)+1)
		}
		out[name] = value
	}
	return out, nil
}
