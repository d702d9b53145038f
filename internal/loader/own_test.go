// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/plugins/wasmtest"
)

// Two attachments of a plugin, with configurations of their own, count together, each tenant for itself.
func TestWhatPluginsCountThemselvesIsCollected(t *testing.T) {
	l, s := started(t)
	e := engineOf(t, l)
	digest := s.add(wasmtest.Filter{Metric: "route.a\xff.hits"})
	one, two := attached(1, digest, store.PluginClosed), attached(2, digest, store.PluginClosed)
	one.Plugin, two.Plugin, two.Tenant, two.Config = "p", "p", 1, "x"
	want(t, l, 2, one, two)
	r := prometheus.NewRegistry()
	r.MustRegister(l.Own())
	for _, key := range []string{"sk-1", "sk-1", "sk-2"} {
		if _, denial := admit(t, e, key); denial != nil {
			t.Fatal(denial)
		}
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, p := range m.GetLabel() {
				labels = append(labels, p.GetValue())
			}
			got = append(got, fmt.Sprintf("%s %q %v", f.GetName(), labels, m.GetCounter().GetValue()))
		}
	}
	if diff := cmp.Diff(got, []string{`weir_plugin_own ["route.a?.hits" "p" "1"] 4`, `weir_plugin_own ["route.a?.hits" "p" "2"] 1`}); diff != "" {
		t.Errorf("-got +want:\n%s", diff)
	}
}
