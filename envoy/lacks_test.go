// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
)

func TestWhatAnEnvoyLacksIsKnownByItsVersion(t *testing.T) {
	t.Parallel()
	next, first := Lacks{PriorityGroups: true}, Lacks{PriorityGroups: true, ClusterRefresh: true}
	oldest := Lacks{PriorityGroups: true, ClusterRefresh: true, ContentLength: true}
	for version, want := range map[string]Lacks{
		"1.37": oldest, "1.37.0": oldest, "1.38.3": first, "1.39": next, "1.39.3": next, "1.40": {}, "1.40.0": {}, "1.41.0-dev": {}, "2.0.0": {},
	} {
		if got, err := LacksOf(version); err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", version, got, err, want)
		}
	}
	for _, version := range []string{"", "1", "new", "1.x", "1.4.5.6 "} {
		if _, err := LacksOf(version); err == nil {
			t.Errorf("%q: no error", version)
		}
	}
	for _, version := range []string{"1.36.4", "0.40", "1.4"} {
		if _, err := LacksOf(version); !errors.Is(err, ErrTooOld) {
			t.Errorf("%s: got %v, want one that is too old", version, err)
		}
	}
}

func TestAnEnvoyOlderThanItsMeshWasToldOfIsARefusal(t *testing.T) {
	t.Parallel()
	node := func(minor uint32) *corev3.Node {
		return &corev3.Node{Id: "gateway", UserAgentVersionType: &corev3.Node_UserAgentBuildVersion{UserAgentBuildVersion: &corev3.BuildVersion{
			Version: &typev3.SemanticVersion{MajorNumber: 1, MinorNumber: minor, Patch: 3},
		}}}
	}
	for _, c := range []struct {
		oldest string
		minor  uint32
		want   string // of the refusal; empty for none
	}{
		{"1.40", 40, ""},
		{"1.40", 39, "version 1.39.3 of Envoy is older than the mesh was told of: set envoy.oldest"},
		{"1.39", 39, ""},
		{"1.39", 38, "set envoy.oldest"},
		{"1.37", 37, ""},
		{"1.37", 41, ""},
		{"1.37", 36, "too old"},
	} {
		lacks, err := LacksOf(c.oldest)
		if err != nil {
			t.Fatal(err)
		}
		s := newSecretServer(lacks, slog.New(slog.DiscardHandler))
		s.envoys[1] = s.meet(node(c.minor))
		got := s.refusal()
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("oldest %s, Envoy 1.%d: got %q, want %q", c.oldest, c.minor, got, c.want)
		}
	}
	s := newSecretServer(Lacks{}, slog.New(slog.DiscardHandler))
	s.envoys[1] = s.meet(&corev3.Node{Id: "silent"})
	if got := s.refusal(); got != "" {
		t.Errorf("one that does not say its version: %q", got)
	}
}
