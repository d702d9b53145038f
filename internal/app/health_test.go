// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/policy"
)

func TestMetricsAgreeWithReadiness(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		verdict        admin.Verdict
		healthy, ready float64
	}{
		"well":     {admin.OK, 1, 1},
		"degraded": {admin.Warn, 0, 1},
		"failed":   {admin.Fail, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHealth(func(context.Context) []admin.Check {
				return []admin.Check{{Name: "database", Verdict: c.verdict}, {Name: "envoy", Verdict: admin.OK}}
			}, func() int { return 2 })
			r := prometheus.NewPedanticRegistry()
			r.MustRegister(h)
			families, err := r.Gather()
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]float64{}
			for _, f := range families {
				for _, m := range f.GetMetric() {
					name := f.GetName()
					if name == "weir_healthy" {
						name = m.GetLabel()[0].GetValue()
					}
					got[name] = m.GetGauge().GetValue()
				}
			}
			want := map[string]float64{"weir_ready": c.ready, "database": c.healthy, "envoy": 1, "weir_envoys": 2, "weir_build_info": 1}
			if diff := cmp.Diff(got, want); diff != "" {
				t.Errorf("(-got +want):\n%s", diff)
			}
		})
	}
}

func TestReadinessSaysWhyThereIsNoConfiguration(t *testing.T) {
	p := &processor{engine: policy.New(policy.Options{}), state: &state{keys: &policy.Keyring{}}}
	wrongKey := fmt.Errorf("read configuration: channel \"a\": %w", store.ErrSecretKey)
	other := errors.New("revision 2: two channels are called a")
	for _, c := range []struct {
		trouble      *error
		detail, hint string
	}{
		{nil, "not read from the database yet", "wait"},
		{&wrongKey, `cannot be put in force: read configuration: channel "a": wrong or missing secret key`, "WEIR_SECRET_KEY"},
		{&other, "cannot be put in force: revision 2: two channels are called a", "see the database check"},
	} {
		p.state.trouble.Store(c.trouble)
		got := p.configurationCheck()
		if got.Verdict != admin.Fail || got.Detail != c.detail || !strings.Contains(got.Hint, c.hint) {
			t.Errorf("got %+v, want a failure with %q and a hint with %q", got, c.detail, c.hint)
		}
	}
	snapshot, err := policy.NewSnapshot(policy.SnapshotData{Keyring: p.state.keys})
	if err != nil {
		t.Fatal(err)
	}
	p.engine.SetSnapshot(snapshot)
	if got := p.configurationCheck(); got.Verdict != admin.OK {
		t.Errorf("with a configuration in force: %+v", got)
	}
}
