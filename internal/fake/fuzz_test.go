// SPDX-License-Identifier: Apache-2.0

package fake_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/weir-proxy/weir/internal/fake"
)

// FuzzBody holds that any body is either answered or refused in OpenAI's shape, and that the ledger has the usage that was reported.
func FuzzBody(f *testing.F) {
	paths := []string{"chat/completions", "completions", "responses", "embeddings"}
	for i, body := range []string{
		hello, `{"model":"m","prompt":["a","b"],"n":2}`, `{"model":"o1","input":[{"role":"user","content":"a"}],"tools":[{"type":"function","name":"f"}],"stream":true}`,
		`{"model":"m","input":[[1,2]],"dimensions":2,"encoding_format":"base64"}`, streamed, `{"model":null}`, `[`,
	} {
		f.Add(uint8(i), body)
	}
	f.Fuzz(func(t *testing.T, path uint8, body string) {
		p := fake.New(fake.Options{KeepAttempts: -1})
		w := httptest.NewRecorder()
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/"+paths[int(path)%len(paths)], strings.NewReader(body))
		p.ServeHTTP(w, req)
		totals := p.Ledger().Totals()
		if totals.Requests != 1 || totals.Open != 0 {
			t.Errorf("totals = %+v", totals)
		}
		switch {
		case w.Code == http.StatusBadRequest:
			if message, kind, _, _ := errorOf(t, w.Body.String()); message == "" || kind == "" || totals.Errors != 1 {
				t.Errorf("refused with %s", w.Body)
			}
		case w.Code != http.StatusOK || totals.Completed != 1:
			t.Errorf("status = %d, totals = %+v", w.Code, totals)
		case w.Header().Get("Content-Type") == "application/json":
			if got, reports := usageOf(t, w.Body.String()); reports != 1 || got != totals.Tokens || !json.Valid(w.Body.Bytes()) {
				t.Errorf("reported %d times %+v, served %+v", reports, got, totals.Tokens)
			}
		}
	})
}
