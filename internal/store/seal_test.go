// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/policy/budget"
	"github.com/weir-proxy/weir/policy/limit"
)

func TestConfigurationIsSealedAndOpened(t *testing.T) {
	s := migrated(t)
	if _, err := s.SetTenant(t.Context(), "default", TenantChange{Groups: &[]string{"a"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateChannel(t.Context(), NewChannel{
		Name: "one", Provider: "openai", BaseURL: "https://api.example.com/v1", Credential: "sk-upstream-secret", Groups: []string{"a", "b"},
		Models: []policy.Model{{Name: "gpt-5", Upstream: "deployment"}}, Tenant: "default",
	}); err != nil {
		t.Fatal(err)
	}
	push(t, s, PushedModule{Name: "guard", Wasm: module(1)})
	attach(t, s, NewAttachment{Plugin: "guard", Tenant: "default", PluginSettings: PluginSettings{Config: `{"a":1}`, Headers: []string{"x-team"}}})
	mustRegister(t, s, priceList("a", "2026-01-01"))
	mustSetPrice(t, s, "m", rates(1, 2))
	c, err := s.Configuration(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := Rules{c, Terms{
		Budgets: []budget.Budget{{ID: 1, Tenant: 1, Amount: dollar, Period: budget.Week}},
		Limits:  []limit.Limit{{ID: 1, Tenant: 1, Each: true, Model: "*", Rates: limit.Rates{Total: 100, Burst: time.Second}}},
	}}
	b, err := s.SealConfiguration(want)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("sk-upstream")) {
		t.Error("the credential can be read")
	}
	got, err := s.OpenConfiguration(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("(-opened +sealed):\n%s", diff)
	}
	other := mustOpen(t, s.pool.Config().ConnString(), Options{SecretKey: bytes.Repeat([]byte{8}, secretKeyLen)})
	_, err = other.OpenConfiguration(b)
	wantError(t, err, ErrSecretKey, "one")
	for n := range b {
		if _, err := s.OpenConfiguration(b[:n]); err == nil {
			t.Fatalf("%d of %d bytes are taken", n, len(b))
		}
	}
}
