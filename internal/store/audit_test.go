// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/policy"
	"github.com/weir-proxy/weir/policy/budget"
)

// audited returns the entries since an id, oldest first, each as one line.
func audited(t *testing.T, s *Store, after int64) []string {
	t.Helper()
	entries, err := s.Audit(t.Context(), AuditFilter{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, e := range slices.Backward(entries) {
		if e.ID <= after {
			continue
		}
		lines = append(lines, fmt.Sprintf("%s %s %s %s: %s -> %s", e.Actor, e.Action, e.Kind, e.Object, compact(e.Before), compact(e.After)))
	}
	return lines
}

func compact(b json.RawMessage) string {
	if b == nil {
		return "nothing"
	}
	return strings.NewReplacer(`": `, `":`, `, "`, `,"`, `, {`, `,{`).Replace(string(b))
}

func last(t *testing.T, s *Store) int64 {
	t.Helper()
	return query[int64](t, s, `select coalesce(max(id), 0) from weir.audit`)
}

func TestEachChangeIsAudited(t *testing.T) {
	s := migrated(t)
	ctx := WithActor(t.Context(), Actor{Name: "ann", Address: "192.0.2.1"})
	steps := []struct {
		name string
		do   func() error
		want []string
	}{
		{"tenant", func() error {
			_, err := s.SetTenant(ctx, "default", TenantChange{Disabled: new(true)})
			return err
		}, []string{`ann change tenant default: {"disabled":false} -> {"disabled":true}`}},
		{"nothing", func() error {
			_, err := s.SetTenant(ctx, "default", TenantChange{Disabled: new(true)})
			return err
		}, nil},
		{"key", func() error {
			_, _, err := s.CreateKey(ctx, NewKey{Name: "k"})
			return err
		}, []string{`ann create key k: nothing -> …`}},
		{"models of a key", func() error {
			_, err := s.SetKey(ctx, "k", KeyChange{Models: &[]string{"gpt-*"}})
			return err
		}, []string{`ann change key k: {"models":[]} -> {"models":["gpt-*"]}`}},
		{"the same models", func() error {
			_, err := s.SetKey(ctx, "k", KeyChange{Models: &[]string{"gpt-*"}})
			return err
		}, nil},
		{"budget", func() error {
			_, err := s.SetKey(ctx, "k", KeyChange{Budget: &BudgetChange{Amount: new(int64(5_000_000_000)), Period: new("day")}})
			return err
		}, []string{`ann create budget default/k: nothing -> {…"amount":5000000000,…}`}},
		{"more budget", func() error {
			_, err := s.SetKey(ctx, "k", KeyChange{Budget: &BudgetChange{Amount: new(int64(7_000_000_000))}})
			return err
		}, []string{`ann change budget default/k: {"amount":5000000000} -> {"amount":7000000000}`}},
		{"limit of a model", func() error {
			_, err := s.SetRateLimit(ctx, LimitScope{Key: "k", Model: "gpt-4o"}, RatesChange{Requests: new(int64(60))})
			return err
		}, []string{`ann create limit default/k gpt-4o: nothing -> …`}},
		{"limit of all", func() error {
			_, err := s.SetRateLimit(ctx, LimitScope{}, RatesChange{Requests: new(int64(60))})
			return err
		}, []string{`ann create limit *: nothing -> …`}},
		{"money", func() error {
			_, _, err := s.TopUp(ctx, TopUp{BudgetRef: BudgetRef{Key: "k"}, Amount: 1_000_000_000, Reference: "r"}, time.Now())
			return err
		}, []string{`ann change budget default/k: {"credit":7000000000} -> {"credit":8000000000,"top_up":"r"}`}},
		{"money that was booked", func() error {
			_, _, err := s.TopUp(ctx, TopUp{BudgetRef: BudgetRef{Key: "k"}, Amount: 1_000_000_000, Reference: "r"}, time.Now())
			return err
		}, nil},
		{"leases", func() error {
			l := s.lessee(t)
			l.mustSync(budget.Ask{Account: policy.Account{Budget: 1}, Need: 5})
			_, err := s.ReleaseLeases(ctx, l.holder, true)
			return err
		}, []string{`ann delete lease : {"rest":…,"forgiven":true} -> nothing`}},
		{"rotation", func() error {
			_, _, err := s.RotateKey(ctx, "k", 0)
			return err
		}, []string{`ann change key k: {"hint":…} -> {"hash":"changed","hint":…}`}},
		{"channel", func() error {
			_, err := s.CreateChannel(ctx, NewChannel{
				Name: "c", Provider: "fake", BaseURL: "http://127.0.0.1/v1", Credential: "sk-provider", Models: []policy.Model{{Name: "a"}, {Name: "b", Upstream: "x"}},
			})
			return err
		}, []string{
			`ann create channel c: nothing -> …`,
			`ann change channel c: {"models":null} -> {"models":[{"name":"a","position":1,"upstream":""},{"name":"b","position":2,"upstream":"x"}]}`,
		}},
		{"priority", func() error {
			_, err := s.SetChannel(ctx, "c", ChannelChange{Priority: new(3)})
			return err
		}, []string{`ann change channel c: {"priority":0} -> {"priority":3}`}},
		{"credential", func() error {
			_, err := s.SetChannel(ctx, "c", ChannelChange{Credential: new(Secret("sk-other"))})
			return err
		}, []string{`ann change channel c: {} -> {"credential":"changed"}`}},
		{"models of a channel", func() error {
			_, err := s.SetChannel(ctx, "c", ChannelChange{Models: &[]policy.Model{{Name: "a"}, {Name: "d"}}})
			return err
		}, []string{
			`ann change channel c: {"models":[{"name":"b","position":2,"upstream":"x"}]} -> {"models":null}`,
			`ann change channel c: {"models":null} -> {"models":[{"name":"d","position":2,"upstream":""}]}`,
		}},
		{"end of a channel", func() error { return s.DeleteChannel(ctx, "c") }, []string{`ann delete channel c: … -> nothing`}},
		{"what fails", func() error {
			if _, err := s.CreateTenant(ctx, "default"); err == nil {
				return errors.New("made twice")
			}
			return nil
		}, nil},
		{"by hand", func() error {
			_, err := s.pool.Exec(t.Context(), `update weir.tenant set disabled = false`)
			return err
		}, []string{`sql:… change tenant default: {"disabled":true} -> {"disabled":false}`}},
		{"of the processor itself", func() error {
			_, err := s.CreateTenant(t.Context(), "acme")
			return err
		}, []string{`weir create tenant acme: nothing -> …`}},
	}
	for _, step := range steps {
		before := last(t, s)
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		got := audited(t, s, before)
		for i := range got {
			if i < len(step.want) {
				got[i] = alike(got[i], step.want[i])
			}
		}
		if diff := cmp.Diff(got, step.want); diff != "" {
			t.Errorf("%s (-got +want):\n%s", step.name, diff)
		}
	}
	text := query[string](t, s, `select string_agg(a::text, ' ') from weir.audit a`)
	for _, secret := range []string{"sk-provider", "sk-other", `\\x`, "row_xid"} {
		if strings.Contains(text, secret) {
			t.Errorf("%q stands in the audit", secret)
		}
	}
	if got := query[string](t, s, `select address from weir.audit where kind = 'key' limit 1`); got != "192.0.2.1" {
		t.Errorf("address %q", got)
	}
}

// alike returns want if got is as want but for what an ellipsis stands for.
func alike(got, want string) string {
	rest := got
	for i, part := range strings.Split(want, "…") {
		at := strings.Index(rest, part)
		if at < 0 || i == 0 && at > 0 {
			return got
		}
		rest = rest[at+len(part):]
	}
	return want
}

func TestAuditGoesWithItsChange(t *testing.T) {
	s := migrated(t)
	before := last(t, s)
	err := s.change(t.Context(), func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `insert into weir.tenant (name) values ('acme')`); err != nil {
			return err
		}
		return errors.New("no")
	})
	if err == nil || last(t, s) != before {
		t.Errorf("%v, and there are entries of what was not done", err)
	}
}

func TestAuditIsFilteredPagedAndPruned(t *testing.T) {
	s := migrated(t)
	for _, who := range []string{"ann", "bob"} {
		ctx := WithActor(t.Context(), Actor{Name: who})
		for i := range 3 {
			if _, err := s.CreateTenant(ctx, fmt.Sprint(who, i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	mustKey(t, s, NewKey{Name: "k"})
	count := func(f AuditFilter, want int) []AuditEntry {
		t.Helper()
		if f.Limit == 0 {
			f.Limit = 100
		}
		entries, err := s.Audit(t.Context(), f)
		if err != nil || len(entries) != want {
			t.Errorf("%+v: %d entries, %v, want %d", f, len(entries), err, want)
		}
		return entries
	}
	count(AuditFilter{Actor: "ann"}, 3)
	count(AuditFilter{Kind: "key"}, 1)
	count(AuditFilter{Kind: "tenant", Object: "bob1"}, 1)
	count(AuditFilter{Since: time.Now().Add(time.Hour)}, 0)
	count(AuditFilter{Until: time.Now().Add(-time.Hour)}, 0)
	page := count(AuditFilter{Actor: "bob", Limit: 2}, 2)
	if rest := count(AuditFilter{Actor: "bob", Limit: 2, Before: page[1].ID}, 1); rest[0].Object != "bob0" {
		t.Errorf("the last is %+v", rest[0])
	}
	_, err := s.Audit(t.Context(), AuditFilter{})
	wantError(t, err, ErrInvalid, "limit")
	exec(t, s, `update weir.audit set ts = now() - interval '2 days' where actor = 'ann'`)
	if n, err := s.PruneAudit(t.Context(), 24*time.Hour); err != nil || n != 3 {
		t.Errorf("pruned %d, %v", n, err)
	}
	count(AuditFilter{Actor: "ann"}, 0)
}
