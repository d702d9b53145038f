// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
)

// The gateways that are compared.
const (
	bare         = "bare"
	continuation = "continue"
	weir         = "weir"
)

// gateway is one of them, running.
type gateway struct {
	name      string
	address   string
	envoy     int    // process id
	processor int    // 0: none
	books     *books // nil: keeps none
}

// startProvider runs the fake provider that all gateways share.
func (s *site) startProvider(ctx context.Context) (pid int, err error) {
	address := s.address(portProvider)
	pid, err = s.start(ctx, "provider", exec.Command(s.weir, "fake-provider", "--listen", address))
	if err != nil {
		return 0, err
	}
	return pid, await(ctx, "provider", func() error {
		_, err := ledgerTotals(ctx, address)
		return err
	})
}

// startGateway runs one gateway until ctx ends, and returns once it answers.
func (s *site) startGateway(ctx context.Context, name string) (*gateway, error) {
	var g *gateway
	var err error
	switch name {
	case bare:
		g, err = s.startBare(ctx)
	case continuation:
		g, err = s.startContinue(ctx)
	case weir:
		g, err = s.startWeir(ctx)
	default:
		return nil, fmt.Errorf("there is no gateway %q", name)
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return g, nil
}

func (s *site) startBare(ctx context.Context) (*gateway, error) {
	boot, err := bareEnvoy{Port: s.port + portBare, Admin: s.port + portBareEnvoy, Provider: s.port + portProvider}.bootstrap()
	if err != nil {
		return nil, err
	}
	pid, err := s.startEnvoy(ctx, bare, boot, s.address(portBareEnvoy))
	return &gateway{name: bare, address: s.address(portBare), envoy: pid}, err
}

func (s *site) startContinue(ctx context.Context) (*gateway, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	socket := s.path("continue.sock")
	processor, err := s.start(ctx, "continue-processor", exec.Command(self, continueCommand, socket))
	if err != nil {
		return nil, err
	}
	err = await(ctx, "continue-processor", func() error {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err != nil {
		return nil, err
	}
	boot, err := bareEnvoy{
		Port: s.port + portContinue, Admin: s.port + portContinueEnvoy, Provider: s.port + portProvider, Socket: socket,
	}.bootstrap()
	if err != nil {
		return nil, err
	}
	pid, err := s.startEnvoy(ctx, continuation, boot, s.address(portContinueEnvoy))
	return &gateway{name: continuation, address: s.address(portContinue), envoy: pid, processor: processor}, err
}

// environment is this process's with what the options add for Weir's processor.
func (s *site) environment(more ...string) []string {
	return append(append(os.Environ(), more...), strings.Fields(s.env)...)
}
