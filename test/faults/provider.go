// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/weir-proxy/weir/internal/fake"
	"github.com/weir-proxy/weir/policy"
)

// provider is a fake provider behind one channel. A processor in production keeps x-fake-* headers from providers, so that the clients
// here steer by headers without the x, which mean nothing to Weir.
type provider struct {
	*fake.Provider
	server  *httptest.Server
	channel policy.ChannelID
}

const (
	steerPrefix = "Fake-"
	// failFirst is a header that makes the provider of that name fail, and no other: the next channel is tried.
	failFirst = "Steer-Fail"
)

// newProvider starts a provider. With totals, it remembers no single attempt.
func newProvider(name string, totals bool) *provider {
	o := fake.Options{Account: name}
	if totals {
		o.KeepAttempts = -1
	}
	p := &provider{Provider: fake.New(o)}
	p.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for header, values := range r.Header {
			if rest, ok := strings.CutPrefix(header, steerPrefix); ok {
				r.Header["X-Fake-"+rest] = values
			}
		}
		if r.Header.Get(failFirst) == name {
			r.Header.Set("X-Fake-Status", "500")
		}
		p.ServeHTTP(w, r)
	}))
	p.server.Config.Protocols = new(http.Protocols)
	p.server.Config.Protocols.SetHTTP1(true)
	p.server.Config.Protocols.SetUnencryptedHTTP2(true)
	p.server.Start()
	return p
}
