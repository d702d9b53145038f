// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"regexp"
	"strconv"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// OldestOfMesh is the oldest Envoy of a mesh that [Resources] has a configuration for, by way of [Lacks]: before it, lines of the log cannot be sent until they are
// answered. Weir's own Envoy is never older than [Oldest].
const OldestOfMesh = "1.37"

// Lacks says what an Envoy has not that is older than [Oldest]. The zero value lacks nothing.
type Lacks struct {
	// PriorityGroups, before 1.40: a route cannot take an order of clusters from metadata. It takes one cluster from a header then, and knows
	// its channels by name: another set of channels is another route.
	PriorityGroups bool
	// ClusterRefresh, before 1.39: the second attempt of a request cannot go to another cluster than the first. There is none then.
	ClusterRefresh bool
	// ContentLength, before 1.38: ext_proc cannot be told that the processor may set content-length. It may there, where the length is right.
	ContentLength bool
}

var mentioned = regexp.MustCompile(`^(\d+)\.(\d+)(?:\.\S+)?$`)

// LacksOf returns what the Envoy of a version lacks, such as "1.38" or "1.38.3". An Envoy before [OldestOfMesh] is an error that wraps [ErrTooOld].
func LacksOf(version string) (Lacks, error) {
	m := mentioned.FindStringSubmatch(version)
	if m == nil {
		return Lacks{}, fmt.Errorf("%q is no version of Envoy, such as %s", version, Oldest)
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	switch {
	case major > 1:
		return Lacks{}, nil
	case major < 1 || minor < 37:
		return Lacks{}, fmt.Errorf("version %s of Envoy: %w", version, errTooOldForMesh)
	}
	return Lacks{PriorityGroups: minor < 40, ClusterRefresh: minor < 39, ContentLength: minor < 38}, nil
}

// exceeds says whether an Envoy that lacks l was taken for one that lacks only so much.
func (l Lacks) exceeds(assumed Lacks) bool {
	return l.PriorityGroups && !assumed.PriorityGroups || l.ClusterRefresh && !assumed.ClusterRefresh || l.ContentLength && !assumed.ContentLength
}

// How an Envoy that lacks something tells the processor: a member of the first metadata of each ext_proc stream. See package extproc, which has the same names.
const (
	RouteKey      = "x-weir-route"
	RouteByNext   = "next"  // the route takes one cluster from ChannelHeader, and a retry the next from metadata
	RouteByFirst  = "first" // the route takes one cluster from ChannelHeader, and there is no retry
	ChannelHeader = "x-weir-channel"
)

// route is what the processor is told of the way in which the route finds its cluster; empty for an order of priority groups.
func (l Lacks) route() string {
	switch {
	case !l.PriorityGroups:
		return ""
	case l.ClusterRefresh:
		return RouteByFirst
	}
	return RouteByNext
}

// retries are the further attempts of a request, unless an Envoy cannot send them elsewhere: what failed at a channel fails there again a millisecond later.
func (l Lacks) retries(p *routev3.RetryPolicy) *routev3.RetryPolicy {
	if l.ClusterRefresh {
		return nil
	}
	return p
}
