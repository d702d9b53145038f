// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
)

// Server serves the configuration to every Envoy that asks, by delta ADS.
type Server struct {
	gateway Gateway
	log     *slog.Logger
	cache   cachev3.SnapshotCache

	mu      sync.Mutex
	version uint64
	streams map[int64]string // open ADS streams, each with the last refusal that it brought, if any
}

// NewServer makes a server for one gateway. It has nothing to say before the first [Server.Set].
func NewServer(g Gateway, log *slog.Logger) *Server {
	return &Server{
		gateway: g,
		log:     log,
		cache:   cachev3.NewSnapshotCache(true, sameForAll{}, nil),
		streams: map[int64]string{},
	}
}

// sameForAll gives every Envoy the same configuration, whatever it calls itself.
type sameForAll struct{}

func (sameForAll) ID(*corev3.Node) string { return NodeID }

// Register adds the discovery service to the processor's gRPC server. Streams end when ctx does.
func (s *Server) Register(ctx context.Context, g *grpc.Server) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, serverv3.NewServer(ctx, s.cache, s.callbacks()))
}

// Set publishes the configuration for these channels. A channel that cannot be expressed is left out and named in the error;
// the others are published all the same.
func (s *Server) Set(ctx context.Context, channels []Channel) error {
	set, bad := Resources(s.gateway, channels)
	if set == nil {
		return bad
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	snapshot, err := cachev3.NewSnapshot(strconv.FormatUint(s.version, 10), set)
	if err != nil {
		return errors.Join(bad, fmt.Errorf("make xDS snapshot: %w", err))
	}
	if err := s.cache.SetSnapshot(ctx, NodeID, snapshot); err != nil {
		return errors.Join(bad, fmt.Errorf("publish xDS snapshot: %w", err))
	}
	return bad
}

// Status is what the connected Envoys make of the configuration.
type Status struct {
	Envoys  int    // connected
	Refusal string // why one of them refuses what was published last; empty when none does
}

// Status returns the state at this moment.
func (s *Server) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{Envoys: len(s.streams)}
	for _, refusal := range s.streams {
		if refusal != "" {
			st.Refusal = refusal
		}
	}
	return st
}

// callbacks keep track of the Envoys that are connected, and of what they refuse.
func (s *Server) callbacks() serverv3.Callbacks {
	return serverv3.CallbackFuncs{
		DeltaStreamOpenFunc: func(_ context.Context, id int64, _ string) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.streams[id] = ""
			s.log.Info("envoy connected")
			return nil
		},
		DeltaStreamClosedFunc: func(id int64, _ *corev3.Node) {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.streams, id)
			s.log.Info("envoy disconnected")
		},
		StreamDeltaRequestFunc: func(id int64, r *discoveryv3.DeltaDiscoveryRequest) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			switch e := r.GetErrorDetail(); {
			case e != nil:
				s.streams[id] = e.GetMessage()
				s.log.Error("envoy refused a configuration", "type", r.GetTypeUrl(), "err", e.GetMessage())
			case r.GetResponseNonce() != "":
				s.streams[id] = ""
			}
			return nil
		},
	}
}
