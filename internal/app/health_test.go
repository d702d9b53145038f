// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/weir-proxy/weir/internal/admin"
)

func TestMetricsAgreeWithReadiness(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		verdict admin.Verdict
		want    string
	}{
		"well":     {admin.OK, "weir_healthy{check=\"a\"} 1\nweir_healthy{check=\"database\"} 1\nweir_ready 1\n"},
		"degraded": {admin.Warn, "weir_healthy{check=\"a\"} 1\nweir_healthy{check=\"database\"} 0\nweir_ready 1\n"},
		"failed":   {admin.Fail, "weir_healthy{check=\"a\"} 1\nweir_healthy{check=\"database\"} 0\nweir_ready 0\n"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHealth(func(context.Context) []admin.Check {
				return []admin.Check{{Name: "database", Verdict: c.verdict}, {Name: "a", Verdict: admin.OK}}
			}, func() int { return 2 })
			r := prometheus.NewPedanticRegistry()
			r.MustRegister(h)
			want := "# HELP weir_envoys Envoys that are connected to this processor.\n# TYPE weir_envoys gauge\nweir_envoys 2\n" +
				"# HELP weir_healthy 1 while a check of /readyz finds nothing, 0 while it warns or fails.\n# TYPE weir_healthy gauge\n" +
				strings.Replace(c.want, "weir_ready", "# HELP weir_ready 1 while /readyz answers 200: a request to the gateway would be served.\n# TYPE weir_ready gauge\nweir_ready", 1)
			if err := testutil.GatherAndCompare(r, strings.NewReader(want), "weir_envoys", "weir_healthy", "weir_ready"); err != nil {
				t.Error(err)
			}
		})
	}
}
