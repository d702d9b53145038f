// SPDX-License-Identifier: Apache-2.0

package app

import (
	"bytes"
	"fmt"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/config"
	"github.com/weir-proxy/weir/internal/mesh"
	"github.com/weir-proxy/weir/internal/telemetry"
	"github.com/weir-proxy/weir/policy"
)

// RenderOptions say what [Render] makes.
type RenderOptions struct {
	Mesh     string   // istio or envoy-gateway
	What     []string // of bootstrap, filters, channels: one document after the other
	Channels []admin.Channel

	Name, Namespace string
	Place           string // with istio: gateway, sidecar or waypoint
	Route           string
	Labels          map[string]string // with istio: of the pods
	Target          string            // the name of a Gateway
	Listener, Host  string            // with envoy-gateway: of that Gateway, and of the route; at a waypoint Host is that of the service
}

// Render makes what the control plane of a mesh is told, as YAML.
func Render(cfg config.Config, o RenderOptions) ([]byte, error) {
	g := gateway(cfg)
	g.Stamped = false                                                                // who else may write headers there is not known
	g.Edge = envoy.Edge{}                                                            // the mesh's
	g.Tracing = envoy.Tracing{Lines: telemetry.SignalsOf(cfg.Telemetry, nil).Traces} // the mesh makes the spans of its Envoys
	g.AccessLog = envoy.AccessLogGRPC                                                // a mesh's Envoy shares no disk for logs with a processor that would know of it
	way := envoy.BootstrapOptions{Socket: cfg.Processor.Socket, Processor: cfg.Envoy.Processor, TLS: processorTLS(cfg)}
	var channels []envoy.Channel
	for _, c := range o.Channels {
		if !c.Disabled {
			channels = append(channels, renderedChannel(c))
		}
	}
	makers := o.makers(g, way, channels)
	var out bytes.Buffer
	for i, what := range o.What {
		make, ok := makers[what]
		if !ok {
			return nil, fmt.Errorf("%s has no %q", o.Mesh, what)
		}
		b, err := make()
		if err != nil {
			return nil, err
		}
		if i > 0 {
			out.WriteString("---\n")
		}
		out.Write(b)
	}
	return out.Bytes(), nil
}

func (o RenderOptions) makers(g envoy.Gateway, way envoy.BootstrapOptions, channels []envoy.Channel) map[string]func() ([]byte, error) {
	if o.Mesh == "istio" {
		places := map[string]mesh.Place{"gateway": mesh.AtGateway, "sidecar": mesh.AtSidecar, "waypoint": mesh.AtWaypoint}
		i := mesh.IstioOptions{
			Gateway: g, Channels: channels, Name: o.Name, Namespace: o.Namespace, Place: places[o.Place], Route: o.Route,
			Labels: o.Labels, Target: o.Target, Service: o.Host,
		}
		return map[string]func() ([]byte, error){
			"bootstrap": func() ([]byte, error) { return mesh.IstioBootstrap(i, way) },
			"filters":   func() ([]byte, error) { return mesh.IstioFilters(i) },
			"channels":  func() ([]byte, error) { return mesh.IstioChannels(i) },
		}
	}
	e := mesh.EnvoyGatewayOptions{
		Gateway: g, Channels: channels, Name: o.Name, Namespace: o.Namespace, Target: o.Target, Listener: o.Listener, Route: o.Route, Host: o.Host,
	}
	return map[string]func() ([]byte, error){
		"bootstrap": func() ([]byte, error) { return mesh.EnvoyGatewayBootstrap(e, way) },
		"filters":   func() ([]byte, error) { return mesh.EnvoyGatewayFilters(e) },
		"channels":  func() ([]byte, error) { return mesh.EnvoyGatewayChannels(e) },
	}
}

// renderedChannel is a channel as the API shows it, without its credential, which is in nothing that is rendered.
func renderedChannel(c admin.Channel) envoy.Channel {
	out := envoy.Channel{ID: policy.ChannelID(c.ID), Name: c.Name, Dialect: envoy.Dialect(c.Provider), BaseURL: c.BaseURL}
	for _, m := range c.Models {
		out.Renames = out.Renames || m.Upstream != "" && m.Upstream != m.Name
	}
	return out
}
