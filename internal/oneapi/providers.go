// SPDX-License-Identifier: Apache-2.0

package oneapi

import (
	"fmt"
	"strings"
)

// provider is what a type of channel becomes.
type provider struct {
	dialect string
	base    string // when the channel has none of its own
	path    string // behind the base URL of a channel; that of a SDK has the version
}

// providers are the types of channels that speak OpenAI's API, by what both gateways call them.
var providers = map[string]provider{
	"OpenAI":            {"openai", "https://api.openai.com", "/v1"},
	"Azure":             {"azure", "", "/openai/v1"},
	"custom":            {"openai", "", "/v1"},
	"Anthropic":         {"anthropic", "https://api.anthropic.com", "/v1"},
	"OpenRouter":        {"openai", "https://openrouter.ai/api", "/v1"},
	"Moonshot":          {"openai", "https://api.moonshot.cn", "/v1"},
	"LingYi":            {"openai", "https://api.lingyiwanwu.com", "/v1"},
	"Ollama":            {"openai", "http://localhost:11434", "/v1"},
	"Mistral":           {"openai", "https://api.mistral.ai", "/v1"},
	"Groq":              {"openai", "https://api.groq.com/openai", "/v1"},
	"StepFun":           {"openai", "https://api.stepfun.com", "/v1"},
	"DeepSeek":          {"openai", "https://api.deepseek.com", "/v1"},
	"Together":          {"openai", "https://api.together.xyz", "/v1"},
	"SiliconFlow":       {"openai", "https://api.siliconflow.cn", "/v1"},
	"xAI":               {"openai", "https://api.x.ai", "/v1"},
	"OpenAI-compatible": {"openai", "", ""},
}

// types are the numbers of [providers]: they differ between the gateways from 26 on.
var types = map[Gateway]map[string]string{
	OneAPI: {
		"1": "OpenAI", "3": "Azure", "8": "custom", "14": "Anthropic", "20": "OpenRouter", "25": "Moonshot", "28": "Mistral", "29": "Groq", "30": "Ollama",
		"31": "LingYi", "32": "StepFun", "36": "DeepSeek", "39": "Together", "44": "SiliconFlow", "45": "xAI", "50": "OpenAI-compatible",
	},
	NewAPI: {
		"1": "OpenAI", "3": "Azure", "4": "Ollama", "14": "Anthropic", "20": "OpenRouter", "25": "Moonshot", "31": "LingYi", "40": "SiliconFlow", "42": "Mistral",
		"43": "DeepSeek", "48": "xAI",
	},
}

// endpoint returns where a channel of a type is, as an SDK would be told.
func endpoint(g Gateway, kind, base string) (dialect, url string, err error) {
	p, ok := providers[types[g][kind]]
	if !ok {
		return "", "", fmt.Errorf("its type, %s, does not speak OpenAI's API", kind)
	}
	if base = strings.TrimRight(base, "/"); base == "" {
		base = p.base
	}
	if base == "" {
		return "", "", fmt.Errorf("it has no base URL, and its type, %s, has none that is the same for all", kind)
	}
	if strings.HasSuffix(base, p.path) {
		return p.dialect, base, nil
	}
	return p.dialect, base + p.path, nil
}
