// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/weir-proxy/weir/internal/admin/admintest"
	"github.com/weir-proxy/weir/internal/store"
)

// Whatever makes no sense of keys, money, limits and dates is refused with the reason and a hint, and changes nothing.
func TestBadInputIsRefusedWithTheReasonAndAHint(t *testing.T) {
	s := admintest.Start(t, nil, nil)
	ctx := t.Context()
	if _, err := s.Store.CreateTenant(ctx, "acme"); err != nil {
		t.Fatal(err)
	}
	amount := int64(1_000_000_000)
	if _, _, err := s.Store.CreateKey(ctx, store.NewKey{Tenant: "acme", Name: "bot", Budget: &store.BudgetChange{Amount: &amount}}); err != nil {
		t.Fatal(err)
	}
	entries := func() int {
		t.Helper()
		all, err := s.Store.Audit(ctx, store.AuditFilter{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := entries()
	type refusal struct{ path, body, says string }
	var all []refusal
	// What is said of an owner is said when it is made, and when it is changed.
	for _, r := range []refusal{
		{"", `"budget":{"amount_nanousd":-1}`, "-0.000000001"},
		{"", `"budget":{"amount_nanousd":9223372036854775807}`, "from 0 to 1000000000.00"},
		{"", `"budget":{"amount_nanousd":9223372036854775808}`, "amount_nanousd"},
		{"", `"budget":{"amount_nanousd":1.5}`, "amount_nanousd"},
		{"", `"budget":{"amount_nanousd":1e30}`, "amount_nanousd"},
		{"", `"budget":{"amount_nanousd":NaN}`, "not JSON"},
		{"", `"budget":{"amount_nanousd":"5"}`, "a string"},
		{"", `"budget":{"amount_nanousd":5,"period":"year"}`, "is none of"},
		{"", `"budget":{"amount_nanousd":5,"notices":[101]}`, "101"},
		{"", `"budget":{"amount_nanousd":5,"notices":[-9223372036854775808]}`, "percent"},
		{"", `"limits":{"requests_per_minute":-5}`, "from 1 to"},
		{"", `"limits":{"tokens_per_minute":9223372036854775807}`, "from 1 to"},
		{"", `"limits":{"requests_per_minute":60,"burst_seconds":-1}`, "burst_seconds"},
		{"", `"limits":{"requests_per_minute":60,"burst_seconds":1e300}`, "burst_seconds"},
	} {
		all = append(all, refusal{"POST /api/v1/keys", "{" + r.body + "}", r.says}, refusal{"PATCH /api/v1/keys/bot", "{" + r.body + "}", r.says},
			refusal{"POST /api/v1/tenants", `{"name":"other",` + r.body + "}", r.says}, refusal{"PATCH /api/v1/tenants/acme", "{" + r.body + "}", r.says})
	}
	for _, r := range []refusal{
		{"", `"name":"a\tb"`, `a\tb`},
		{"", `"name":"a\u0000b"`, "only lowercase"},
		{"", `"name":"\u202eevil"`, "only lowercase"},
		{"", `"name":"123"`, "besides digits"},
		{"", `"name":"` + strings.Repeat("a", 65) + `"`, "1 to 64"},
		{"", `"expires":"2020-01-01T00:00:00Z"`, "in the past"},
		{"", `"expires":"0001-01-02T00:00:00Z"`, "in the past"},
		{"", `"expires":"2027-02-30T00:00:00Z"`, "cannot be used"},
		{"", `"expires":"tomorrow"`, "cannot be used"},
		{"", `"networks":["10.0.0.0/33"]`, "10.0.0.0/33"},
		{"", `"networks":["10.0.0.1/8"]`, "do you mean 10.0.0.0/8"},
		{"", `"networks":["fe80::1%eth0/64"]`, "fe80"},
		{"", `"networks":["everywhere"]`, "is not as in"},
		{"", `"networks":["::ffff:10.0.0.0/104"]`, "IPv4"},
		{"", `"tags":{"a":"\u0007"}`, "printable"},
		{"", `"metadata":{"a\n":"b"}`, "visible"},
		{"", `"models":["a b"]`, "spaces"},
	} {
		all = append(all, refusal{"POST /api/v1/keys", "{" + r.body + "}", r.says}, refusal{"PATCH /api/v1/keys/bot", "{" + r.body + "}", r.says})
	}
	all = append(all, []refusal{
		{"POST /api/v1/keys/bot/budget/top-ups", `{"amount_nanousd":-5,"reference":"r"}`, "more than 0"},
		{"POST /api/v1/keys/bot/budget/top-ups", `{"amount_nanousd":0,"reference":"r"}`, "more than 0"},
		{"POST /api/v1/keys/bot/budget/top-ups", `{"amount_nanousd":9223372036854775807,"reference":"r"}`, "at most"},
		{"POST /api/v1/keys/bot/budget/top-ups", `{"amount_nanousd":1000000000000000000,"reference":"r"}`, "a budget has at most"},
		{"POST /api/v1/keys/bot/budget/top-ups", `{"amount_nanousd":5,"reference":""}`, "reference"},
		{"POST /api/v1/keys/bot/budget/top-ups", `{"amount_nanousd":5,"reference":"a\u0000"}`, "printable"},
		{"POST /api/v1/keys/bot/budget/top-ups", `{"amount_nanousd":5,"reference":"r","note":"\u001b[2J"}`, "printable"},
		{"POST /api/v1/keys/bot/rotate", `{"overlap_seconds":-1}`, "overlap_seconds"},
		{"POST /api/v1/keys/bot/rotate", `{"overlap_seconds":9223372036854775807}`, "overlap_seconds"},
		{"PUT /api/v1/limits", `{"requests_per_minute":0}`, "from 1 to"},
		{"PUT /api/v1/limits", `{"model":"\u0001","requests_per_minute":5}`, "unprintable"},
		{"PUT /api/v1/prices/m", `{"rates":[{"input":-1,"output":1}]}`, "from 0 to"},
		{"PUT /api/v1/prices/m", `{"rates":[{"input":9223372036854775807,"output":1}]}`, "from 0 to"},
		{"PUT /api/v1/prices/m", `{"rates":[{"input":1,"output":1,"above":-1}]}`, "negative"},
		{"PUT /api/v1/prices/m", `{"max_output":-1,"rates":[{"input":1,"output":1}]}`, "negative"},
		{"PUT /api/v1/prices/m", `{"rates":[{"output":1}]}`, "must be given"},
		{"POST /api/v1/tenants", `{"name":"z","time_zone":"Mars/Olympus"}`, "is not known"},
		{"POST /api/v1/tenants", `{"name":"z","time_zone":"../../etc/passwd"}`, "is not known"},
		{"PATCH /api/v1/tenants/acme", `{"parent":"acme"}`, "above itself"},
		{"POST /api/v1/keys/import", `{"keys":[{"hash":"sha256:zz","hint":"h"}]}`, "hexadecimal"},
		{"POST /api/v1/keys/import", `{"keys":[{"hash":"sha256:` + strings.Repeat("0a", 32) + `","hint":"h","name":"a\u0000"}]}`, "only lowercase"},
	}...)
	for _, r := range all {
		t.Run(fmt.Sprintf("%s %.60s", r.path, r.body), func(t *testing.T) {
			method, path, _ := strings.Cut(r.path, " ")
			res, body := call(t, s.URL+path, method, r.body)
			if res.StatusCode != http.StatusBadRequest && res.StatusCode != http.StatusUnprocessableEntity {
				t.Fatalf("status %d: %s", res.StatusCode, body)
			}
			if p := problemIn(t, res, body); !strings.Contains(p.Detail, r.says) || p.Hint == "" {
				t.Errorf("detail %q, hint %q, want one that says %q", p.Detail, p.Hint, r.says)
			}
		})
	}
	if after := entries(); after != before {
		t.Errorf("%d changes were made", after-before)
	}
	st, err := s.Store.BudgetState(ctx, store.BudgetRef{Key: "bot"}, time.Now())
	if err != nil || st.Credit != amount {
		t.Errorf("budget %+v, %v", st, err)
	}
}
