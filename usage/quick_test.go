// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// agree checks that what is read quickly is what is read with care.
func agree(t *testing.T, s string) (quickly bool) {
	t.Helper()
	var l, want Line
	var c counted
	if !quickLine(s, &l, &c) {
		return false
	}
	n, err := parseObject(s, &want)
	if err != nil || n != len(s) {
		t.Fatalf("%q was read quickly, and with care: %d bytes, %v", s, n, err)
	}
	var counts counted
	counts.tokens, counts.ok = ParseCounts(want.Usage)
	want.Usage = ""
	if diff := cmp.Diff(l, want); diff != "" {
		t.Errorf("%q (-quick +careful):\n%s", s, diff)
	}
	if c != counts {
		t.Errorf("%q: quickly %+v, with care %+v", s, c, counts)
	}
	return true
}

// TestLinesAsEnvoyWritesThemAreReadQuickly: else they would cost five times as much, and nothing would show it.
func TestLinesAsEnvoyWritesThemAreReadQuickly(t *testing.T) {
	b, err := os.ReadFile("testdata/envoy-1.40.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	for _, line := range append(lines, benchmarkLine()) {
		odd := bytes.Contains(line, []byte(`\\`)) || bytes.Contains(line, []byte(`\u00`)) // within the usage
		if agree(t, string(line)) == odd {
			t.Errorf("read quickly: %t: %s", !odd, line)
		}
	}
}

// usages are objects of providers.
func usages() map[string]string {
	return map[string]string{
		"OpenAI": `{"prompt_tokens":1117,"completion_tokens":46,"total_tokens":1163,"prompt_tokens_details":{"cached_tokens":1024,"audio_tokens":0},` +
			`"completion_tokens_details":{"reasoning_tokens":7,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}`,
		"OpenAI, in lines": "{\n    \"prompt_tokens\": 19,\n    \"completion_tokens\": 10,\r\n\t\"total_tokens\" : 29 ,\n    \"prompt_tokens_details\": {\n      \"cached_tokens\": 0\n    }\n  }",
		"Anthropic": `{"input_tokens":12,"cache_creation_input_tokens":100,"cache_read_input_tokens":2000,"cache_creation":{"ephemeral_5m_input_tokens":100,` +
			`"ephemeral_1h_input_tokens":0},"output_tokens":503,"service_tier":"standard"}`,
		"OpenRouter": `{"prompt_tokens":14,"completion_tokens":163,"total_tokens":177,"cost":0.00014,"is_byok":false,"prompt_tokens_details":{"cached_tokens":0},` +
			`"cost_details":{"upstream_inference_cost":null,"deep":{"deeper":{}}},"completion_tokens_details":null}`,
		"both":     `{"prompt_tokens":5,"input_tokens":"none of it","completion_tokens":null}`,
		"nothing":  `{}`,
		"half":     `{"completion_tokens":5}`,
		"negative": `{"prompt_tokens":-5}`,
		"fraction": `{"prompt_tokens":5.5}`,
		"large":    `{"prompt_tokens":1000000001}`,
		"parts":    `{"prompt_tokens":5,"prompt_tokens_details":7}`,
		"list":     `{"prompt_tokens":5,"choices":[1,2]}`,
		"escape":   `{"prompt_tokens":5,"s":"a\u0041\"b"}`,
		"tail":     `{"prompt_tokens":5},"model":"x"`,
		"torn":     `{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":`,
	}
}

// usageLine is a line with a usage.
func usageLine(usage string) string {
	escaped := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(usage)
	return `{"duration":5,"kind":"exchange","status":200,"usage":"` + escaped + `"}`
}

// TestUsageIsReadWhereItStands: it is the same by both ways, and what providers write goes the quick one.
func TestUsageIsReadWhereItStands(t *testing.T) {
	quickly := map[string]bool{"OpenAI": true, "OpenAI, in lines": true, "Anthropic": true, "OpenRouter": true, "both": true, "half": true}
	for name, u := range usages() {
		if got := agree(t, usageLine(u)); got != quickly[name] {
			t.Errorf("%s: quickly %t", name, got)
		}
	}
}

// TestOddLinesAreLeftToCare: whatever is not as Envoy writes it, and every line that is cut anywhere.
func TestOddLinesAreLeftToCare(t *testing.T) {
	for _, s := range []string{
		``, `{`, `}`, `{}`, `{"kind":"exchange"} `, ` {"kind":"exchange"}`, `{"kind": "exchange"}`, `{"kind":"tcp"}`, `{"status":200}`, `{"kind":"exchange",}`,
		`{"kind":"exchange","rx":01}`, `{"kind":"exchange","rx":-1}`, `{"kind":"exchange","rx":1.5}`, `{"kind":"exchange","rx":1e5}`, `{"kind":"exchange","rx":"-"}`,
		`{"kind":"exchange","rx":1234567890123456}`, `{"kind":"exchange","status":2147483648}`, `{"kind":"exchange","duration":999999999999999}`,
		`{"kind":"exchange","ticket":7}`, `{"kind":"exchange","ticket":"a\"b"}`, "{\"kind\":\"exchange\",\"ticket\":\"a\tb\"}", `{"kind":"exchange","usage":"{}"}`,
		`{"kind":"exchange","cluster":"{\"a\":1}"}`, `{"kind":"exchange","usage":{}}`, `{"kind":"exchange","usage":7}`, `{"kind":"exchange","x":[1]}`,
		`{"kind":"exchange","usage":"{\"prompt_tokens\":5}`, `{"kind":"exchange"}{"kind":"exchange"}`, `{"kind":"exchange","Kind":"x"}`,
	} {
		if agree(t, s) {
			t.Errorf("%s was read quickly", s)
		}
	}
	line := string(benchmarkLine())
	for i := range len(line) {
		if agree(t, line[:i]) {
			t.Errorf("%s was read quickly", line[:i])
		}
	}
	for _, s := range []string{ // the last of a key counts, null or not
		`{"kind":"exchange","usage":"{\"prompt_tokens\":5}","usage":null}`, `{"usage":"-","kind":"attempt","kind":"exchange","rx":5,"rx":null,"first_byte":5,"first_byte":null}`,
		`{"kind":null,"usage":null,"usage":"{\"prompt_tokens\":5}","kind":"exchange","new":5,"newer":null,"newest":"{"}`,
	} {
		if !agree(t, s) {
			t.Errorf("%s was not read quickly", s)
		}
	}
}

// FuzzQuickLine: a line is read quickly only if it is read so with care.
func FuzzQuickLine(f *testing.F) {
	f.Add(string(benchmarkLine()))
	for _, u := range usages() {
		f.Add(usageLine(u))
	}
	f.Add(`{"kind":"attempt","attempt":2,"retry_after":null,"x":"-","first_byte":null}`)
	f.Fuzz(func(t *testing.T, s string) { agree(t, s) })
}

func BenchmarkQuickLine(b *testing.B) {
	line := string(benchmarkLine())
	b.ReportAllocs()
	b.SetBytes(int64(len(line)))
	var l Line
	var c counted
	for b.Loop() {
		if !quickLine(line, &l, &c) {
			b.Fatal("it was not read quickly")
		}
	}
}
