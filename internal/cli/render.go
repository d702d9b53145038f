// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/config"
)

// RenderOptions say what weir render makes.
type RenderOptions struct {
	Mesh     string   // istio or envoy-gateway
	What     []string // parts, in the order in which they are printed
	Channels []admin.Channel

	Name, Namespace string
	Place           string            // with istio: gateway, sidecar or waypoint
	Route           string            // by which the mesh knows the route
	Labels          map[string]string // with istio: of the pods that are configured
	Target          string            // the Gateway that is configured
	Listener, Host  string            // with envoy-gateway: of that Gateway, and of the route; at a waypoint Host is that of the service
}

// renderParts are what can be made, in the order in which it is.
var renderParts = [...]string{"bootstrap", "filters", "channels"}

func renderCommand(p Programs) *cobra.Command {
	c := &cobra.Command{
		Use:   "render COMMAND",
		Short: "Print what a service mesh must be told to have Weir in its own Envoys",
		Long: `Print, as YAML for kubectl apply, what the control plane of a service mesh must be told so that its own Envoys do what Weir's Envoy does.
It is cut out of what Weir tells its Envoy, so it fits the processor of the same version: print it anew after an upgrade.

Each command takes the parts to print; without any, all of them:
  bootstrap  the way from Envoy to the processor
  filters    what decides, counts and logs, and the route to which it applies; it does not depend on channels
  channels   a cluster for each enabled channel, read from the admin API. Print it anew when channels are added or removed, or get
             another base URL or other names of models. No credential is in it: Envoy asks the processor for them.

Envoys before 1.40 need other filters, and a route that is printed with the channels: envoy.oldest of the configuration (--config) says
which is the oldest, from "1.37" on. What each gives is in docs/deploy-istio.md.`,
	}
	c.AddCommand(renderIstio(p), renderEnvoyGateway(p))
	return c
}

// rendering are the flags that all meshes share.
type rendering struct {
	o      RenderOptions
	config string
}

func (r *rendering) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&r.config, "config", "", "the `FILE` of the configuration of the processor; its defaults when left out")
	f.StringVar(&r.o.Name, "name", "weir", "the `NAME` of the objects, or what it begins with")
	f.StringVar(&r.o.Namespace, "namespace", "", "the `NAMESPACE` of the objects; that of kubectl when left out")
	connectionFlags(c)
}

// print fetches the channels if they are wanted, and prints what p makes.
func (r *rendering) print(c *cobra.Command, p Programs, parts []string) error {
	for _, part := range parts {
		if !slices.Contains(renderParts[:], part) {
			return wrongUsage("part %q: there are %s", part, strings.Join(renderParts[:], ", "))
		}
	}
	if r.o.What = parts; len(parts) == 0 {
		r.o.What = renderParts[:]
	}
	cfg, err := r.configuration()
	if err != nil {
		return err
	}
	if slices.Contains(r.o.What, "channels") {
		client, err := connect(c)
		if err != nil {
			return err
		}
		if r.o.Channels, err = client.Channels(c.Context()); err != nil {
			return err
		}
	}
	out, err := p.Render(cfg, r.o)
	if err != nil {
		return err
	}
	_, err = c.OutOrStdout().Write(out)
	return err
}

func (r *rendering) configuration() (config.Config, error) {
	if r.config == "" {
		return config.Default().Complete(), nil
	}
	return config.Load(r.config)
}

func renderIstio(p Programs) *cobra.Command {
	var r rendering
	var labels []string
	r.o.Mesh = "istio"
	c := &cobra.Command{
		Use:   "istio [PART...]",
		Short: "Print EnvoyFilters for Istio",
		Long: `Print EnvoyFilters for Istio, and the ConfigMap that the annotation sidecar.istio.io/bootstrapOverride names. docs/deploy-istio.md has the
whole way. The Envoys are known by the labels of their pods, or by a Gateway of the Gateway API.`,
		Example: `  weir render istio bootstrap filters --labels istio=ingressgateway --namespace istio-ingress
  weir render istio channels --gateway llm --namespace istio-ingress | kubectl apply --server-side -f -`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if !slices.Contains([]string{"gateway", "sidecar", "waypoint"}, r.o.Place) {
				return wrongUsage("--at %q is none of gateway, sidecar, waypoint", r.o.Place)
			}
			if atWaypoint := r.o.Place == "waypoint"; atWaypoint && (r.o.Target == "" || r.o.Host == "") || !atWaypoint && r.o.Host != "" {
				return wrongUsage("--at waypoint needs --gateway and --host, and --host is for that alone")
			}
			if (len(labels) > 0) == (r.o.Target != "") {
				return wrongUsage("one of --labels and --gateway is needed")
			}
			r.o.Labels = map[string]string{}
			for _, l := range labels {
				k, v, ok := strings.Cut(l, "=")
				if !ok || k == "" {
					return wrongUsage("--labels %q is not KEY=VALUE", l)
				}
				r.o.Labels[k] = v
			}
			return r.print(c, p, args)
		},
	}
	r.flags(c)
	c.Flags().StringVar(&r.o.Place, "at", "gateway", "the `PLACE` of the Envoys: gateway; sidecar: what a pod sends out; waypoint: an experiment")
	c.Flags().StringSliceVar(&labels, "labels", nil, "the labels `KEY=VALUE` of the pods whose Envoys are meant")
	c.Flags().StringVar(&r.o.Target, "gateway", "", "the `NAME` of the Gateway whose Envoys are meant")
	c.Flags().StringVar(&r.o.Host, "host", "", "at a waypoint, the full name of the service that is Weir's under /v1/: `HOST` or HOST:PORT")
	c.Flags().StringVar(&r.o.Route, "route", "weir", "the `NAME` of the route: http[].name of a VirtualService, rules[].name of an HTTPRoute")
	return c
}

func renderEnvoyGateway(p Programs) *cobra.Command {
	var r rendering
	r.o.Mesh = "envoy-gateway"
	c := &cobra.Command{
		Use:   "envoy-gateway [PART...]",
		Short: "Print EnvoyPatchPolicies for Envoy Gateway",
		Long: `Print EnvoyPatchPolicies for Envoy Gateway, and the part of an EnvoyProxy that leads to the processor. docs/deploy-envoy-gateway.md has the
whole way. They turn one HTTPRoute into Weir's: its first rule, with the match /v1 and no backends, of one hostname. The default names are
those of deploy/envoy-gateway.`,
		Example: `  weir render envoy-gateway filters --namespace llm --gateway llm --host llm.example.com
  weir render envoy-gateway channels --namespace llm --host llm.example.com | kubectl apply --server-side -f -`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if r.o.Namespace == "" || r.o.Host == "" {
				return wrongUsage("--namespace and --host are needed: Envoy Gateway names what is patched by them")
			}
			return r.print(c, p, args)
		},
	}
	r.flags(c)
	c.Flags().StringVar(&r.o.Target, "gateway", "llm", "the `NAME` of the Gateway")
	c.Flags().StringVar(&r.o.Listener, "listener", "http", "the `NAME` of a listener of it")
	c.Flags().StringVar(&r.o.Route, "route", "llm", "the `NAME` of the HTTPRoute")
	c.Flags().StringVar(&r.o.Host, "host", "", "the `HOST` of the HTTPRoute")
	return c
}
