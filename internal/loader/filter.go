// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"runtime"
	"slices"

	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/plugins/meter"
	"github.com/weir-proxy/weir/plugins/proxywasm"
	"github.com/weir-proxy/weir/policy"
)

// read reads a module, to see what it is.
func read(wasm []byte) (*meter.Module, error) {
	return meter.Instrument(wasm, meter.Limits{Bytes: store.MaxModule, MemoryPages: 1 << 16})
}

// filters reports whether a module speaks proxy-wasm. What cannot be read does not: loading it as weir/1 says what is wrong.
func filters(wasm []byte) bool {
	m, err := read(wasm)
	return err == nil && proxywasm.Speaks(m)
}

// filterSource is what is needed to load an attachment of a plugin that speaks proxy-wasm. Its limits are its own or those of package proxywasm: the
// loader's are for plugins that parse less.
func (l *Loader) filterSource(a *store.Attachment, wasm []byte) proxywasm.Source {
	s := proxywasm.Source{
		Name: a.Plugin, Wasm: wasm, Config: []byte(a.Config), Log: slices.Contains(a.Grants, string(host.Log)), RequestOnly: a.RequestOnly,
	}
	s.Limits.Fuel, s.Limits.MemoryBytes, s.Limits.Time, s.Limits.TimeToStart = a.Limits.Fuel, a.Limits.MemoryBytes, a.Limits.Time, l.Limits.TimeToStart
	for _, u := range a.Upstreams {
		s.Upstreams = append(s.Upstreams, proxywasm.Upstream(u))
	}
	return s
}

// filter is a handle whose plugin speaks proxy-wasm, as a table refers to it.
type filter struct{ *handle }

// Judge implements [chain.Filter].
func (f filter) Judge(at proxywasm.Place) policy.Judge {
	j := &judged{handle: f.handle}
	note := at.Note
	at.Note = func(r proxywasm.Report) {
		if r.Failure != nil {
			j.handle.failed(j.tenant)
		}
		if note != nil {
			note(r)
		}
	}
	j.Judge = f.filter.Judge(at)
	return j
}

// judged is an exchange that a filter judges. It holds the plugin, so that this is not closed before the exchange ends.
type judged struct {
	policy.Judge
	handle *handle
	tenant int64
}

// Request implements [policy.Judge].
func (j *judged) Request(q *policy.Question) (*policy.Ruling, *policy.Denial) {
	defer runtime.KeepAlive(j.handle)
	j.tenant = int64(q.Tenant.ID)
	return j.Judge.Request(q)
}

// Abandon implements [policy.Judge].
func (j *judged) Abandon() {
	j.Judge.Abandon()
	runtime.KeepAlive(j.handle)
}

// Watch implements [policy.Judge].
func (j *judged) Watch(q *policy.Question) policy.Watcher {
	return &watched{j.Judge.Watch(q), j.handle}
}

// watched is a response that a filter sees.
type watched struct {
	policy.Watcher
	handle *handle
}

// Head implements [policy.Watcher].
func (w *watched) Head(status int, headers []policy.Header) (*policy.HeadRuling, bool) {
	defer runtime.KeepAlive(w.handle)
	return w.Watcher.Head(status, headers)
}

// Body implements [policy.Watcher].
func (w *watched) Body(chunk []byte, last bool) ([]byte, bool, *policy.Denial) {
	defer runtime.KeepAlive(w.handle)
	return w.Watcher.Body(chunk, last)
}

// Close implements [policy.Watcher].
func (w *watched) Close() {
	w.Watcher.Close()
	runtime.KeepAlive(w.handle)
}
