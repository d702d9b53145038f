// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Server serves the configuration to every Envoy that asks, by delta ADS. Each gets the same, but for its access log and its tap.
type Server struct {
	log        *slog.Logger
	cache      cachev3.SnapshotCache
	connecting func(Node) // never nil
	secrets    *secretServer

	mu       sync.Mutex
	gateway  Gateway
	version  uint64
	channels []Channel // as they were set last
	set      bool
	bare     bool                  // until something is set, an Envoy without any configuration gets one without channels
	streams  map[int64]*connection // open ADS streams
}

// connection is an Envoy's ADS stream.
type connection struct {
	node    Node // zero before its first message
	fresh   bool // it came without any configuration
	refusal string
}

// NewServer makes a server for one gateway. Its Lacks are what the Envoys of a mesh were told of; those that ask for all of their configuration are to lack nothing.
// It has nothing to say before the first [Server.Set].
func NewServer(g Gateway, log *slog.Logger) *Server {
	secrets := newSecretServer(g.Lacks, log)
	g.Lacks = Lacks{}
	return &Server{
		gateway:    g,
		log:        log,
		cache:      cachev3.NewSnapshotCache(true, cachev3.IDHash{}, nil),
		connecting: func(Node) {},
		secrets:    secrets,
		streams:    map[int64]*connection{},
	}
}

// OnConnect has f called whenever an Envoy connects, before it is told anything: one that has just started has no listener then, and no
// log. An Envoy connects again when the processor was restarted. f must not call the server. Call OnConnect before [Server.Register].
func (s *Server) OnConnect(f func(Node)) { s.connecting = f }

// Register adds the discovery service to the processor's gRPC server, and that of the credentials alone, for the Envoys of a mesh. Streams end
// when ctx does.
func (s *Server) Register(ctx context.Context, g *grpc.Server) {
	s.secrets.register(ctx, g)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, serverv3.NewServer(ctx, s.cache, s.callbacks(ctx)))
}

// Set publishes the configuration for these channels. A channel that cannot be expressed is left out and named in the error;
// the others are published all the same.
func (s *Server) Set(ctx context.Context, channels []Channel) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	set, bad := Resources(s.gateway, channels)
	if set == nil {
		return bad
	}
	s.version++
	s.channels, s.set = slices.Clone(channels), true
	errs := []error{bad, s.secrets.set(channels)}
	for _, node := range s.nodesLocked() {
		errs = append(errs, s.publishLocked(ctx, node))
	}
	return errors.Join(errs...)
}

// SetCertificate gives every Envoy another certificate of the gateway, which must be whole: Envoy says no more than that it refuses one. New
// connections have it; those that are there stay. A gateway that began without a certificate must not be given one: its listener would
// be replaced, with all of its connections.
func (s *Server) SetCertificate(ctx context.Context, c Certificate) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gateway.Edge.Certificate.empty() || c.empty() {
		return errors.New("set certificate: a gateway has one from its start to its end, or none")
	}
	s.gateway.Edge.Certificate = c
	s.version++
	var errs []error
	for _, node := range s.nodesLocked() {
		if _, err := s.cache.GetSnapshot(node.ID); err != nil {
			continue // it was given nothing yet
		}
		errs = append(errs, s.publishLocked(ctx, node))
	}
	return errors.Join(errs...)
}

// Bare gives every Envoy that has no configuration yet, and those that come, one without channels, so that clients get an answer, though
// it is a refusal. One that has a configuration keeps it: its exchanges go on. After [Server.Set] it does nothing.
func (s *Server) Bare(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set || s.bare {
		return nil
	}
	s.bare = true
	var errs []error
	for _, c := range s.streams {
		if c.node.ID != "" && c.fresh {
			errs = append(errs, s.publishLocked(ctx, c.node))
		}
	}
	return errors.Join(errs...)
}

// publishLocked publishes what was set last for one Envoy.
func (s *Server) publishLocked(ctx context.Context, node Node) error {
	g := s.gateway
	g.AccessLog, g.LogFile, g.TapModule = node.AccessLog, LogFile(g.LogFile, node.ID), node.tapModule
	set, err := Resources(g, s.channels)
	if set == nil {
		return err // what is wrong with single channels was said when they were set
	}
	snapshot, err := cachev3.NewSnapshot(strconv.FormatUint(s.version, 10), set)
	if err != nil {
		return fmt.Errorf("make xDS snapshot: %w", err)
	}
	if err := s.cache.SetSnapshot(ctx, node.ID, snapshot); err != nil {
		return fmt.Errorf("publish xDS snapshot: %w", err)
	}
	return nil
}

// nodesLocked returns the Envoys that are connected, by name.
func (s *Server) nodesLocked() map[string]Node {
	nodes := map[string]Node{}
	for _, c := range s.streams {
		if c.node.ID != "" {
			nodes[c.node.ID] = c.node
		}
	}
	return nodes
}

// Status is what the connected Envoys make of the configuration.
type Status struct {
	Envoys  []Node // connected, by name; those of a mesh too, which have only the credentials from here
	Refusal string // why one of them refuses what was published last, or what its mesh was told; empty when none does
}

// Status returns the state at this moment.
func (s *Server) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{Refusal: s.secrets.refusal()}
	for _, c := range s.streams {
		if c.node.ID != "" {
			st.Envoys = append(st.Envoys, c.node)
		}
		if c.refusal != "" {
			st.Refusal = c.refusal
		}
	}
	st.Envoys = append(st.Envoys, s.secrets.nodes()...)
	slices.SortFunc(st.Envoys, func(a, b Node) int { return strings.Compare(a.ID, b.ID) })
	return st
}

// callbacks keep track of the Envoys that are connected, and of what they refuse.
func (s *Server) callbacks(ctx context.Context) serverv3.Callbacks {
	return serverv3.CallbackFuncs{
		DeltaStreamOpenFunc: func(_ context.Context, id int64, _ string) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.streams[id] = &connection{}
			return nil
		},
		DeltaStreamClosedFunc: func(id int64, _ *corev3.Node) {
			s.mu.Lock()
			defer s.mu.Unlock()
			node := s.streams[id].node
			delete(s.streams, id)
			if node.ID == "" {
				return
			}
			s.log.Info("envoy disconnected", "node", node.ID)
			if _, other := s.nodesLocked()[node.ID]; !other {
				s.cache.ClearSnapshot(node.ID)
			}
		},
		StreamDeltaRequestFunc: func(id int64, r *discoveryv3.DeltaDiscoveryRequest) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			c := s.streams[id]
			if c.node.ID == "" {
				return s.welcomeLocked(ctx, c, r)
			}
			switch e := r.GetErrorDetail(); {
			case e != nil:
				c.refusal = e.GetMessage()
				if c.node.tooOld() {
					c.refusal = fmt.Sprintf("it is Envoy %s, %v: %s", c.node.version, ErrTooOld, c.refusal)
				}
				s.log.Error("envoy refused a configuration", "node", c.node.ID, "type", r.GetTypeUrl(), "err", c.refusal)
			case r.GetResponseNonce() != "":
				c.refusal = ""
			}
			return nil
		},
	}
}

// welcomeLocked makes out who has connected. A second Envoy of the same name is turned away: both would write to one log, and tear each
// other's lines apart.
func (s *Server) welcomeLocked(ctx context.Context, c *connection, r *discoveryv3.DeltaDiscoveryRequest) error {
	node, err := nodeOf(r.GetNode(), s.gateway.AccessLog)
	if err == nil {
		for _, other := range s.streams {
			if other.node.ID == node.ID && other.node.instance != node.instance {
				err = fmt.Errorf("another Envoy is called %q already; give each a name of its own with: weir envoy --node NAME", node.ID)
			}
		}
	}
	if err != nil {
		s.log.Error("an envoy is not given its configuration", "err", err)
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	c.node, c.fresh = node, len(r.GetInitialResourceVersions()) == 0
	s.log.Info("envoy connected", "node", node.ID, "access_log", string(node.AccessLog), "tap", string(node.Tap))
	s.connecting(node)
	if _, err := s.cache.GetSnapshot(node.ID); err == nil || !s.set && (!s.bare || !c.fresh) {
		return nil
	}
	return s.publishLocked(ctx, node)
}
