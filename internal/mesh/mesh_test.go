// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"os"
	"testing"
	"time"

	"github.com/weir-proxy/weir/envoy"
)

func testGateway() envoy.Gateway {
	return envoy.Gateway{
		Listen: "127.0.0.1:10000", AccessLog: envoy.AccessLogGRPC, CAFile: "/etc/ssl/certs/ca-certificates.crt", MaxBodyBytes: 32 << 20,
		Connect: 5 * time.Second, FirstByte: 10 * time.Minute, Idle: 15 * time.Minute, Total: time.Hour, LogInterval: time.Minute,
	}
}

func TestX(t *testing.T) {
	o := IstioOptions{Gateway: testGateway(), Name: "weir", Namespace: "istio-ingress", Place: AtGateway, Route: "weir", Labels: map[string]string{"istio": "ingressgateway"},
		Channels: []envoy.Channel{{ID: 1, Name: "x", Dialect: envoy.OpenAI, BaseURL: "https://api.openai.com/v1"}}}
	for i, f := range []func() ([]byte, error){func() ([]byte, error) { return IstioFilters(o) }, func() ([]byte, error) { return IstioChannels(o) }, func() ([]byte, error) {
		return IstioBootstrap(o, envoy.BootstrapOptions{Socket: "/run/weir/weir.sock"})
	}} {
		b, err := f()
		if err != nil {
			t.Fatal(err)
		}
		os.WriteFile("/tmp/meshx/out"+string(rune('0'+i))+".yaml", b, 0o644)
	}
}
