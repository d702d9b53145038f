// SPDX-License-Identifier: Apache-2.0

package app

import (
	"path/filepath"
	"testing"

	"github.com/weir-proxy/weir/envoy"
	"github.com/weir-proxy/weir/internal/config"
	"github.com/weir-proxy/weir/usage"
)

func TestConfigurationHasTheDefaultsOfPackageUsage(t *testing.T) {
	want := config.UsageLog{
		RotateBytes: usage.DefaultRotateBytes, RotateAge: usage.DefaultRotateAge, Keep: usage.DefaultKeep, MaxBytes: usage.DefaultMaxBytes,
	}
	if got := config.Default().Usage.Log; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestAdminInterfaceOfAnEnvoyThatDoesNotSayIsTheConfiguredOne(t *testing.T) {
	p := &processor{cfg: config.Default()}
	for _, c := range []struct {
		node envoy.Node
		want string
	}{
		{envoy.Node{ID: envoy.NodeID}, "127.0.0.1:10002"},
		{envoy.Node{ID: envoy.NodeID, Admin: "127.0.0.1:1"}, "127.0.0.1:1"},
		{envoy.Node{ID: "second", Admin: "127.0.0.1:2"}, "127.0.0.1:2"},
		{envoy.Node{ID: "second"}, ""}, // somebody else's bootstrap: its log is read, and not rotated
	} {
		if got := p.adminOf(c.node); got != c.want {
			t.Errorf("%+v: got %q, want %q", c.node, got, c.want)
		}
	}
	if got := filepath.Base(envoy.LogFile(gateway(p.cfg.Complete()).LogFile, envoy.NodeID)); got != usage.ActiveLog {
		t.Errorf("the log is %s", got)
	}
}

func TestOnlyOneLogIsNamedForNoEnvoy(t *testing.T) {
	file := gateway(config.Default().Complete()).LogFile
	if err := envoy.CheckNode("grpc"); err == nil {
		t.Error("an Envoy may be called grpc, and write to the log of lines that were sent")
	}
	if got := filepath.Base(envoy.LogFile(file, "grpc")); got != usage.SentLog {
		t.Errorf("the name that no Envoy may have is that of %s, want %s", got, usage.SentLog)
	}
}
