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
	log   *slog.Logger
	cache *cachev3.LinearCache

	mu     sync.Mutex
	envoys map[int64]string // open streams: the names of the Envoys, empty before the first message
}

func newSecretServer(log *slog.Logger) *secretServer {
	return &secretServer{log: log, cache: cachev3.NewLinearCache(resourcev3.SecretType), envoys: map[int64]string{}}
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
	for _, name := range s.envoys {
		if name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var out []Node
	for _, name := range slices.Compact(names) {
		out = append(out, Node{ID: name, AccessLog: AccessLogGRPC, Tap: TapLua})
	}
	return out
}

func (s *secretServer) callbacks() serverv3.Callbacks {
	return serverv3.CallbackFuncs{
		DeltaStreamOpenFunc: func(_ context.Context, id int64, _ string) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.envoys[id] = ""
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
			if name := r.GetNode().GetId(); name != "" && s.envoys[id] == "" {
				s.envoys[id] = name
				s.log.Info("an envoy of a mesh asks for credentials", "node", name)
			}
			return nil
		},
	}
}
