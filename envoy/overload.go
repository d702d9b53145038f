// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"cmp"
	"fmt"
	"os"
	"strconv"
	"time"

	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	heapv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
	injectedv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/injected_resource/v3"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// DefaultConnections is how many connections of clients an Envoy has at once when it is not told otherwise.
const DefaultConnections = 50_000

// Limits are what one Envoy takes before it turns work away instead of failing. The zero value has no limit of memory.
type Limits struct {
	Connections int   // of clients, at once; more are closed at once. Zero means DefaultConnections
	HeapBytes   int64 // of Envoy's heap; zero means no limit

	// SharePath is a file in which the processor writes which share of new requests is to be refused, see [WriteShare]. Empty means none.
	SharePath string
}

// What happens as the heap fills, in shares of Limits.HeapBytes. Memory that is free goes back to the system first. Then the streams that hold most of
// it, which are those of clients that read slower than providers write, are reset, more of them the fuller it is. Only then are new requests refused,
// with 503 overloaded; those under way go on.
const (
	shrinkAt = 0.85
	resetAt  = 0.90
	refuseAt = 0.95
	resetAll = 0.99
)

// trackFrom is the size of a stream's buffers, as a power of two, from which on it may be reset: 256 KiB. Envoy has eight classes, each twice as large
// as the one before, so that the dearest has 32 MiB, as the largest body of a request by default. Most streams hold some kilobytes.
const trackFrom = 18

// heapInterval is how often the heap is looked at. What is accepted between two looks may go beyond the limit.
const heapInterval = 250 * time.Millisecond

const (
	heapMonitor  = "envoy.resource_monitors.fixed_heap"
	shareMonitor = "envoy.resource_monitors.injected_resource"
)

func (l Limits) overloadManager() (*overloadv3.OverloadManager, error) {
	if l.Connections < 0 || l.HeapBytes < 0 {
		return nil, fmt.Errorf("limits of envoy: %d connections, %d bytes", l.Connections, l.HeapBytes)
	}
	connections, err := monitor("envoy.resource_monitors.global_downstream_max_connections",
		&connectionsv3.DownstreamConnectionsConfig{MaxActiveDownstreamConnections: int64(cmp.Or(l.Connections, DefaultConnections))})
	if err != nil {
		return nil, err
	}
	m := &overloadv3.OverloadManager{ResourceMonitors: []*overloadv3.ResourceMonitor{connections}}
	if err := l.shed(m); err != nil || l.HeapBytes == 0 {
		return m, err
	}
	heap, err := monitor(heapMonitor, &heapv3.FixedHeapConfig{MaxHeapSizeBytes: uint64(l.HeapBytes)})
	if err != nil {
		return nil, err
	}
	m.ResourceMonitors = append(m.ResourceMonitors, heap)
	m.RefreshInterval = cmp.Or(m.GetRefreshInterval(), durationpb.New(heapInterval))
	m.BufferFactoryConfig = &overloadv3.BufferFactoryConfig{MinimumAccountToTrackPowerOfTwo: trackFrom}
	m.Actions = []*overloadv3.OverloadAction{
		onHeap("shrink_heap", &overloadv3.Trigger{TriggerOneof: &overloadv3.Trigger_Threshold{Threshold: &overloadv3.ThresholdTrigger{Value: shrinkAt}}}),
		onHeap("reset_high_memory_stream", &overloadv3.Trigger{TriggerOneof: &overloadv3.Trigger_Scaled{Scaled: &overloadv3.ScaledTrigger{
			ScalingThreshold: resetAt, SaturationThreshold: resetAll,
		}}}),
		onHeap("stop_accepting_requests", &overloadv3.Trigger{TriggerOneof: &overloadv3.Trigger_Threshold{Threshold: &overloadv3.ThresholdTrigger{Value: refuseAt}}}),
	}
	return m, nil
}

// shareInterval is how often Envoy looks whether the share has changed.
const shareInterval = 100 * time.Millisecond

// shed has Envoy refuse the share of new requests that the processor asks for, each by chance, before it makes filters for them: that costs a tenth of what
// a decision does.
func (l Limits) shed(m *overloadv3.OverloadManager) error {
	if l.SharePath == "" {
		return nil
	}
	share, err := monitor(shareMonitor, &injectedv3.InjectedResourceConfig{Filename: l.SharePath})
	if err != nil {
		return err
	}
	m.ResourceMonitors = append(m.ResourceMonitors, share)
	m.RefreshInterval = durationpb.New(shareInterval)
	m.LoadshedPoints = []*overloadv3.LoadShedPoint{{
		Name: "envoy.load_shed_points.http_connection_manager_decode_headers",
		Triggers: []*overloadv3.Trigger{{Name: shareMonitor, TriggerOneof: &overloadv3.Trigger_Scaled{Scaled: &overloadv3.ScaledTrigger{
			ScalingThreshold: 0, SaturationThreshold: 1,
		}}}},
	}}
	return nil
}

// SharePath returns the file for [Limits].SharePath that belongs to a processor's Unix socket: who shares the one shares the other.
func SharePath(socket string) string { return socket + ".shed" }

// WriteShare tells the Envoys whose [Limits] name the file which share of new requests to refuse, from 0 to 1.
func WriteShare(path string, share float64) error {
	next := path + ".next" // Envoy notices files that are moved to where it looks
	if err := os.WriteFile(next, strconv.AppendFloat(nil, share, 'f', 3, 64), 0o644); err != nil {
		return fmt.Errorf("write share to refuse: %w", err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("write share to refuse: %w", err)
	}
	return nil
}

func onHeap(action string, t *overloadv3.Trigger) *overloadv3.OverloadAction {
	t.Name = heapMonitor
	return &overloadv3.OverloadAction{Name: "envoy.overload_actions." + action, Triggers: []*overloadv3.Trigger{t}}
}

func monitor(name string, config proto.Message) (*overloadv3.ResourceMonitor, error) {
	packed, err := anypb.New(config)
	return &overloadv3.ResourceMonitor{Name: name, ConfigType: &overloadv3.ResourceMonitor_TypedConfig{TypedConfig: packed}}, err
}
