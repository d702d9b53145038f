// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/internal/admin/admintest"
)

func TestProfilesAreThoseOfPprof(t *testing.T) {
	s := admintest.Start(t, nil, nil)
	for _, kind := range []string{"heap", "goroutine", "cpu"} {
		res, body := call(t, s.URL+"/api/v1/profiles/"+kind+"?seconds=1&debug=2", "GET", "")
		if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "application/octet-stream" {
			t.Errorf("%s: got %d %s", kind, res.StatusCode, res.Header.Get("Content-Type"))
			continue
		}
		z, err := gzip.NewReader(strings.NewReader(body))
		if err != nil {
			t.Errorf("%s: not a profile: %v", kind, err)
			continue
		}
		raw, err := io.ReadAll(z)
		if err != nil || len(raw) == 0 || kind != "cpu" && !strings.Contains(string(raw), "net/http.(*conn).serve") {
			t.Errorf("%s: %d bytes without the server's functions, %v", kind, len(raw), err)
		}
	}
}

func TestProfilesWithoutSenseAreRefused(t *testing.T) {
	s := admintest.Start(t, nil, nil)
	for path, status := range map[string]int{
		"cmdline": 404, "symbol": 404, "profile": 404, "nothing": 404,
		"cpu?seconds=0": 400, "cpu?seconds=121": 400, "trace?seconds=x": 400, "heap?seconds=-1": 400,
	} {
		res, body := call(t, s.URL+"/api/v1/profiles/"+path, "GET", "")
		if res.StatusCode != status {
			t.Errorf("%s: got %d %s, want %d", path, res.StatusCode, body, status)
		}
		problemIn(t, res, body)
	}
}
