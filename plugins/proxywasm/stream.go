// SPDX-License-Identifier: Apache-2.0

package proxywasm

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/policy"
)

// stream is one exchange as a plugin sees it, with an instance of its own. One goroutine uses it at a time.
type stream struct {
	plugin  *Plugin
	guest   *host.Instance
	context uint64
	about   about

	request, response section
	injected          []byte        // into the response
	reply             *policy.Reply // that the plugin sends itself; nil: none
	resumed           [2]bool       // request, response
	calls             callouts
	answer            *answer // to the proxy_http_call whose end the plugin is being told; nil otherwise

	properties map[string][]byte // that the plugin has set
	said       string            // in the log while it starts
	allocating bool
	spent      spent
}

// about is what is known of the exchange from the beginning.
type about struct {
	tenant    int64
	key       int64
	exchange  string
	address   string
	operation string
	model     string
	began     time.Time
	random    uint64
}

// spent is what the calls of the guest have used since it was last asked.
type spent struct {
	fuel int64
	time time.Duration
}

// open begins an exchange.
func (p *Plugin) open(q *policy.Question) (*stream, *host.Failure) {
	tenant := int64(q.Tenant.ID)
	if f := p.module.Quarantined(tenant, exportContextCreate); f != nil {
		return nil, f
	}
	g, err := p.module.Take(context.Background(), tenant)
	if err != nil {
		return nil, p.module.Failure(exportContextCreate, err)
	}
	s := &stream{plugin: p, guest: g, context: streamContext, about: about{
		tenant: tenant, key: int64(q.Key.ID), exchange: q.Exchange.String(), address: q.Address, operation: string(q.Operation), model: q.Model,
		began: p.module.Now(), random: binary.LittleEndian.Uint64(q.Exchange[8:]),
	}}
	s.calls.init(p.limits.Calls)
	g.SetOwner(s)
	if _, f := s.run(exportContextCreate, 0, streamContext, rootContext); f != nil {
		return nil, s.end(f)
	}
	return s, nil
}

// run calls a hook that is about so many bytes. A hook that is not there answers 0: go on.
func (s *stream) run(name string, bytes int, args ...uint64) (uint32, *host.Failure) {
	p := s.plugin
	if !p.exports(name) {
		return 0, nil
	}
	began := p.module.Now()
	if !s.turn() {
		return 0, &host.Failure{
			Plugin: p.source.Name, Call: name, Reason: host.Busy, Detail: fmt.Sprintf("%d other calls of it were under way for %v", cap(p.busy), p.limits.Time),
		}
	}
	s.guest.Begin(host.Budget{Fuel: p.limits.Fuel + int64(bytes)*p.limits.FuelPerByte, Time: p.limits.Time, Random: s.about.random})
	s.about.random++
	v, err := s.guest.Invoke(name, args...)
	s.spent.fuel += s.guest.End()
	<-p.busy
	s.allocating = false
	s.spent.time += p.module.Now().Sub(began)
	if err != nil {
		return 0, p.module.Failure(name, err)
	}
	return uint32(v), nil
}

// turn waits until a guest may run.
func (s *stream) turn() bool {
	select {
	case s.plugin.busy <- struct{}{}:
		return true
	default:
	}
	timer := time.NewTimer(s.plugin.limits.Time)
	defer timer.Stop()
	select {
	case s.plugin.busy <- struct{}{}:
		return true
	case <-timer.C:
		return false
	}
}

// wait lets answers to calls come in until the plugin resumes, has answered itself, or nothing is under way any more.
func (s *stream) wait(direction int, hook string) *host.Failure {
	timer := time.NewTimer(s.plugin.limits.Pause)
	defer timer.Stop()
	for !s.resumed[direction] && s.reply == nil && s.calls.open > 0 {
		select {
		case a := <-s.calls.answers:
			if f := s.deliver(a); f != nil {
				return f
			}
		case <-timer.C:
			return &host.Failure{
				Plugin: s.plugin.source.Name, Call: hook, Reason: host.OutOfTime,
				Detail: fmt.Sprintf("it paused for more than %v, with %d calls unanswered", s.plugin.limits.Pause, s.calls.open),
			}
		}
	}
	return nil
}

// catchUp tells the plugin of calls that were answered while it did not wait.
func (s *stream) catchUp() *host.Failure {
	for s.reply == nil {
		select {
		case a := <-s.calls.answers:
			if f := s.deliver(a); f != nil {
				return f
			}
		default:
			return nil
		}
	}
	return nil
}

// deliver tells the plugin of one answer. One without headers says that there was none.
func (s *stream) deliver(a *answer) *host.Failure {
	s.calls.open--
	s.answer = a
	defer func() { s.answer = nil }()
	_, f := s.run(exportCallResponse, len(a.body), rootContext, uint64(a.id), uint64(len(a.headers)), uint64(len(a.body)), 0)
	return f
}

// paused is the failure of a plugin that nothing can resume.
func (s *stream) paused(hook string) *host.Failure {
	return &host.Failure{Plugin: s.plugin.source.Name, Call: hook, Reason: host.BadAnswer, Detail: errPaused.Error()}
}

// end ends the exchange for the plugin; f is why it must end, nil if it is over.
func (s *stream) end(f *host.Failure) *host.Failure {
	s.request.open, s.response.open = false, false
	s.calls.cancel()
	for _, hook := range []string{exportDone, exportLog} {
		if f == nil {
			_, f = s.run(hook, 0, streamContext)
		}
	}
	s.sayProperties()
	s.plugin.module.Note(s.about.tenant, f)
	s.guest.Release(f == nil)
	s.guest = nil
	return f
}

// sayProperties logs what the plugin has set as properties, a JSON object in one line: in Envoy, they are what access logs and traces show of a plugin.
func (s *stream) sayProperties() {
	if !s.plugin.source.Log || len(s.properties) == 0 {
		return
	}
	texts := make(map[string]string, len(s.properties))
	for name, v := range s.properties {
		texts[name] = strings.ToValidUTF8(string(v), "\uFFFD")
	}
	texts["exchange_id"] = s.about.exchange
	line, err := json.Marshal(texts)
	if err != nil {
		return // it cannot be
	}
	s.plugin.module.Log(1, line)
}
