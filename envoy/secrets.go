// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
)

// secretServer serves the channels' credentials by delta SDS, to Envoys that have all else from a mesh's control plane. They may have any name,
// and send their lines: a mesh's Envoy shares no log with a processor.
type secretServer struct {
	log     *slog.Logger
	cache   *cachev3.LinearCache
	assumed Lacks // what the Envoys were taken to lack when the mesh was told of Weir

	mu     sync.Mutex
	envoys map[int64]meshEnvoy // open streams
}

// meshEnvoy is an Envoy that asks for credentials. It has no name before its first message.
type meshEnvoy struct {
	name    string
	refusal string // why it cannot have the route that the mesh was told of; empty when it can
}

func newSecretServer(assumed Lacks, log *slog.Logger) *secretServer {
	return &secretServer{assumed: assumed, log: log, cache: cachev3.NewLinearCache(resourcev3.SecretType), envoys: map[int64]meshEnvoy{}}
}

func (s *secretServer) register(ctx context.Context, g *grpc.Server) {
	secretv3.RegisterSecretDiscoveryServiceServer(g, serverv3.NewServer(ctx, s.cache, s.callbacks()))
}

// set publishes the credentials of these channels and takes back all others.
func (s *secretServer) set(channels []Channel) error {
	secrets := map[string]types.Resource{}
	for _, c := range channels {
		if _, _, err := c.Dialect.credential(""); err == nil { // what cannot be expressed was said already
			secrets[secretName(c.ID)] = secret(c)
		}
	}
	var gone []string
	for name := range s.cache.GetResources() {
		if _, ok := secrets[name]; !ok {
			gone = append(gone, name)
		}
	}
	if err := s.cache.UpdateResources(secrets, gone); err != nil {
		return fmt.Errorf("publish credentials: %w", err)
	}
	return nil
}

// nodes returns the Envoys that have a stream open, each once.
func (s *secretServer) nodes() []Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, e := range s.envoys {
		if e.name != "" {
			names = append(names, e.name)
		}
	}
	slices.Sort(names)
	var out []Node
	for _, name := range slices.Compact(names) {
		out = append(out, Node{ID: name, AccessLog: AccessLogGRPC, Tap: TapLua})
	}
	return out
}

// refusal returns why an Envoy that is there cannot have the route that the mesh was told of; empty when all can.
func (s *secretServer) refusal() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.envoys {
		if e.refusal != "" {
			return e.refusal
		}
	}
	return ""
}

// meet makes out who asks.
func (s *secretServer) meet(n *corev3.Node) meshEnvoy {
	e := meshEnvoy{name: n.GetId()}
	version := versionOf(n)
	if version == "" { // it does not say, and is believed
		s.log.Info("an envoy of a mesh asks for credentials", "node", e.name)
		return e
	}
	lacks, err := LacksOf(version)
	if err == nil && lacks.exceeds(s.assumed) {
		err = fmt.Errorf("version %s of Envoy is older than the mesh was told of: set envoy.oldest to its version, and render filters and channels again", version)
	}
	if err != nil {
		e.refusal = fmt.Sprintf("%s: %v", e.name, err)
		s.log.Error("an envoy of a mesh cannot have its route", "node", e.name, "version", version, "err", err)
		return e
	}
	s.log.Info("an envoy of a mesh asks for credentials", "node", e.name, "version", version)
	return e
}

func (s *secretServer) callbacks() serverv3.Callbacks {
	return serverv3.CallbackFuncs{
		DeltaStreamOpenFunc: func(_ context.Context, id int64, _ string) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.envoys[id] = meshEnvoy{}
			return nil
		},
		DeltaStreamClosedFunc: func(id int64, _ *corev3.Node) {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.envoys, id)
		},
		StreamDeltaRequestFunc: func(id int64, r *discoveryv3.DeltaDiscoveryRequest) error {
			if e := r.GetErrorDetail(); e != nil {
				s.log.Error("envoy refused a credential", "node", r.GetNode().GetId(), "err", e.GetMessage())
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if r.GetNode().GetId() != "" && s.envoys[id].name == "" {
				s.envoys[id] = s.meet(r.GetNode())
			}
			return nil
		},
	}
}
