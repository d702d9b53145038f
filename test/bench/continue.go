// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"
)

// continueCommand is the first argument with which this program runs itself as the processor that says "continue"; the path of its
// socket follows.
const continueCommand = "continue-processor"

// continuer says "continue" to the headers and the body of a request, and ends the stream: the least that a processor can do.
type continuer struct {
	extprocv3.UnimplementedExternalProcessorServer
}

// serveContinue runs the processor until ctx ends.
func serveContinue(ctx context.Context, socket string) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	server := grpc.NewServer()
	extprocv3.RegisterExternalProcessorServer(server, continuer{})
	defer context.AfterFunc(ctx, server.Stop)()
	return server.Serve(listener)
}

// Process implements [extprocv3.ExternalProcessorServer].
func (continuer) Process(stream extprocv3.ExternalProcessor_ProcessServer) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h := m.GetRequestHeaders(); h != nil {
			answer := &extprocv3.ProcessingResponse{
				Response: &extprocv3.ProcessingResponse_RequestHeaders{RequestHeaders: &extprocv3.HeadersResponse{}},
			}
			if err := stream.Send(answer); err != nil || h.GetEndOfStream() {
				return err
			}
			continue
		}
		return stream.Send(&extprocv3.ProcessingResponse{
			Response: &extprocv3.ProcessingResponse_RequestBody{RequestBody: &extprocv3.BodyResponse{}},
		})
	}
}
