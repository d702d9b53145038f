// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"bytes"

	"github.com/weir-proxy/weir/plugins/abi"
	"github.com/weir-proxy/weir/usage"
)

// tail is how much of a body that passes is kept: usage is at its end.
const tail = 4096

// pass lets a chunk through.
func (a *Answer) pass(chunk []byte, last bool) ([]byte, error) {
	if a.failed || a.counted || len(a.counts) > 0 {
		if last {
			return chunk, a.count()
		}
		return chunk, nil
	}
	if n := len(a.body) + len(chunk) - tail; n > 0 {
		a.body = a.body[min(n, len(a.body)):]
	}
	a.body = append(a.body, chunk[max(0, len(chunk)-tail):]...)
	if !last {
		return chunk, nil
	}
	if i := bytes.LastIndex(a.body, []byte(`"usage"`)); i >= 0 {
		if v, ok := bytes.CutPrefix(bytes.TrimLeft(a.body[i+len(`"usage"`):], " \t\r\n"), []byte(":")); ok {
			a.counts = bytes.TrimLeft(v, " \t\r\n")
		}
	}
	return chunk, a.count()
}

// note keeps what a page says of the response.
func (a *Answer) note(p *page) error {
	a.failed = a.failed || p.failed
	if isObject(p.text, p.usage) {
		a.counts = append(a.counts[:0], p.usage.Of(p.text)...)
	}
	if p.last {
		return a.count()
	}
	return nil
}

// count tells the judges of the usage, once.
func (a *Answer) count() error {
	if a.counted {
		return nil
	}
	t, ok := usage.ParseCounts(string(a.counts))
	if !ok {
		return nil
	}
	a.counted = true
	a.chain.next(abi.KindUsage, 0).Usage = abi.Usage{Input: t.Input, Cached: t.CachedInput, Output: t.Output, Reasoning: t.Reasoning}
	return a.chain.all()
}
