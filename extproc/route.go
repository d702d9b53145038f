// SPDX-License-Identifier: Apache-2.0

package extproc

import (
	"context"

	"google.golang.org/grpc/metadata"
)

// How an Envoy older than the usual says how its route finds a cluster, in the first metadata of a stream. Envoy's configuration has the same names.
const (
	RouteKey      = "x-weir-route"
	ChannelHeader = "x-weir-channel" // of the request: the cluster of its first attempt
)

// route is how the router of an Envoy learns of the channels of an admission.
type route string

const (
	byGroups route = ""      // from metadata: an order of priority groups
	byNext   route = "next"  // the first from a header, and from metadata which comes after which
	byFirst  route = "first" // the first from a header; there is no other
)

// routeOf returns what an Envoy says of itself. One that says what is not known here is given what most have, and its requests find no channel.
func routeOf(ctx context.Context) route {
	said := metadata.ValueFromIncomingContext(ctx, RouteKey)
	if len(said) == 0 {
		return byGroups
	}
	return route(said[0])
}

// attempts are how many of an admission's channels Envoy may try.
func (r route) attempts(channels int) int {
	if r == byFirst {
		return 1
	}
	return channels
}
