// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/store"
	"github.com/weir-proxy/weir/plugins/wasmtest"
	"github.com/weir-proxy/weir/test/rig"
)

// administer returns a client of the rig's admin API.
func administer(t *testing.T, w *world) *admin.Client {
	t.Helper()
	c, err := admin.NewClient(w.AdminURL, store.Secret(rig.AdminToken))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// attach pushes a plugin and attaches it, and waits until the processor works by it.
func attach(t *testing.T, w *world, g interface{ Wasm() []byte }, n admin.NewAttachment) admin.Attachment {
	t.Helper()
	c := administer(t, w)
	if _, err := c.PushPlugin(t.Context(), n.Plugin, "", g.Wasm()); err != nil {
		t.Fatal(err)
	}
	a, err := c.Attach(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	inForce(t, w)
	return a
}

// inForce waits until the processor judges by what is attached now.
func inForce(t *testing.T, w *world) {
	t.Helper()
	conf, err := w.Store.Configuration(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.Eventually("the plugins are in force", func() error {
		n, err := w.Metric("weir_plugins_revision")
		if err == nil && int64(n) < conf.Revision {
			err = fmt.Errorf("revision %v, want %d", n, conf.Revision)
		}
		return err
	})
}

func TestPluginsDenyAndEditWhereTheyAreAttached(t *testing.T) {
	w := newWorld(t, rig.Options{})
	c := administer(t, w)
	other, _ := w.Key(store.NewKey{Name: "other"})
	w.Settle()

	redactor := attach(t, w, wasmtest.Guest{Request: wasmtest.EditVerdict(1, 0, 5, "[name]")}, admin.NewAttachment{Plugin: "redactor"})
	guard := attach(t, w, wasmtest.Guest{Request: wasmtest.Denial(451, "not_here", "Not in this \"house\".")}, admin.NewAttachment{Plugin: "guard", Key: "other"})

	a := w.post(t, "/v1/chat/completions", hello)
	if a.status != 200 {
		t.Fatalf("redacted: %d %s", a.status, a.body)
	}
	got := w.provider.Ledger().Attempts(a.exchange)
	if want := strings.Replace(hello, "Hello there", "[name] there", 1); len(got) != 1 || got[0].Body != want {
		t.Errorf("the provider got %+v, want %s", got, want)
	}
	if row := w.Row(a.exchange); row.Status != "ok" || row.Estimated {
		t.Errorf("row %+v", row)
	}

	denied := w.post(t, "/v1/chat/completions", hello, "authorization", "Bearer "+other)
	if f := denied.refusal(t); denied.status != 451 || f.Code != "not_here" || f.Message != `Not in this "house".` || denied.exchange == "" {
		t.Errorf("denied: %d %s", denied.status, denied.body)
	}
	if n := len(w.provider.Ledger().Attempts(denied.exchange)); n != 0 {
		t.Errorf("the provider was asked %d times", n)
	}

	if err := c.Detach(t.Context(), guard.ID); err != nil {
		t.Fatal(err)
	}
	w.Eventually("the guard is gone", func() error {
		if a := w.post(t, "/v1/chat/completions", hello, "authorization", "Bearer "+other); a.status != 200 {
			return errors.New(a.body)
		}
		return nil
	})
	if err := c.Detach(t.Context(), redactor.ID); err != nil {
		t.Fatal(err)
	}
	inForce(t, w)
	a = w.post(t, "/v1/chat/completions", hello)
	if got := w.provider.Ledger().Attempts(a.exchange); len(got) != 1 || got[0].Body != hello {
		t.Errorf("after it was detached the provider got %+v", got)
	}
}

// Each version writes its name into the request, and denies the response with its name as the code.
func TestHundredSwapsUnderLoadServeNobodyByHalves(t *testing.T) {
	w := newWorld(t, rig.Options{})
	c := administer(t, w)
	version := func(name string) wasmtest.Guest {
		return wasmtest.Guest{Request: wasmtest.EditVerdict(1, 0, 5, "["+name+"]"), Event: wasmtest.Denial(451, name, "No.")}
	}
	a := attach(t, w, version("one"), admin.NewAttachment{Plugin: "p"})
	digests := [2]string{a.Digest}
	p, err := c.PushPlugin(t.Context(), "p", "", version("two").Wasm())
	if err != nil {
		t.Fatal(err)
	}
	digests[1] = p.Versions[0].Digest

	var stop atomic.Bool
	var answers [4][]answer
	var clients sync.WaitGroup
	for i := range answers {
		clients.Go(func() {
			for !stop.Load() {
				answers[i] = append(answers[i], w.post(t, "/v1/chat/completions", hello))
			}
		})
	}
	for n := range 100 {
		if _, err := c.SetAttachment(t.Context(), a.ID, admin.AttachmentChange{Version: &digests[(n+1)%2]}); err != nil {
			t.Error(err)
			break
		}
		inForce(t, w)
	}
	stop.Store(true)
	clients.Wait()
	served := map[string]int{}
	for _, got := range slices.Concat(answers[:]...) {
		code := got.refusal(t).Code
		if got.status != 451 || code != "one" && code != "two" {
			t.Fatalf("%d %s", got.status, got.body)
		}
		served[code]++
		asked := w.provider.Ledger().Attempts(got.exchange)
		if want := strings.Replace(hello, "Hello", "["+code+"]", 1); len(asked) != 1 || asked[0].Body != want {
			t.Fatalf("the response was judged by %s, the request: %+v", code, asked)
		}
	}
	t.Logf("served %v", served)
	if served["one"] < 50 || served["two"] < 50 {
		t.Errorf("served %v: the swaps came between no requests", served)
	}
}

func TestVersionThatTrapsIsTakenBack(t *testing.T) {
	w := newWorld(t, rig.Options{})
	c := administer(t, w)
	a := attach(t, w, wasmtest.Guest{Request: []byte{}}, admin.NewAttachment{Plugin: "p"})
	pushed, err := c.PushPlugin(t.Context(), "p", "", wasmtest.Guest{Request: []byte{}, Traps: true}.Wasm())
	if err != nil {
		t.Fatal(err)
	}
	latest := ""
	if _, err := c.SetAttachment(t.Context(), a.ID, admin.AttachmentChange{Version: &latest}); err != nil {
		t.Fatal(err)
	}
	inForce(t, w)
	failed := 0
	w.Eventually("the version before is in force again", func() error {
		got := w.post(t, "/v1/chat/completions", hello)
		if got.status == 200 {
			return nil
		}
		if f := got.refusal(t); got.status != 503 || f.Code != "plugin_failed" {
			t.Fatalf("%d %s", got.status, got.body)
		}
		failed++
		return errors.New(got.body)
	})
	if failed < 10 {
		t.Errorf("taken back after %d failures", failed)
	}
	now, err := c.Attachment(t.Context(), a.ID)
	if err != nil || now.Digest != a.Digest || now.RolledBack == nil || now.RolledBack.From != pushed.Versions[0].Digest {
		t.Fatalf("attachment %+v, %v", now, err)
	}
	if !strings.Contains(now.RolledBack.Why, "unreachable") {
		t.Errorf("why: %q", now.RolledBack.Why)
	}
}

func TestPluginsAreInForceFromTheFirstRequestOfAProcessor(t *testing.T) {
	w := newWorld(t, rig.Options{})
	attach(t, w, wasmtest.Guest{Request: wasmtest.Denial(403, "never", "Never.")}, admin.NewAttachment{Plugin: "guard"})
	w.KillProcessor()
	w.StartProcessor()
	w.Eventually("the processor decides", func() error {
		a := w.post(t, "/v1/chat/completions", hello)
		if a.status == 200 {
			t.Fatal("an exchange went past the plugin")
		}
		if a.status != 403 {
			return errors.New(a.body)
		}
		return nil
	})
}

func TestTagsOfRequestAndResponseAreInTheRow(t *testing.T) {
	w := newWorld(t, rig.Options{})
	attach(t, w, wasmtest.Guest{Request: wasmtest.TagVerdict("asked", "yes"), Event: wasmtest.TagVerdict("answered", "yes")}, admin.NewAttachment{Plugin: "tags"})
	for name, body := range map[string]string{"json": hello, "stream": strings.Replace(hello, "{", `{"stream":true,`, 1)} {
		got := w.post(t, "/v1/chat/completions", body)
		if got.status != 200 {
			t.Fatalf("%s: %d %s", name, got.status, got.body)
		}
		if row := w.Row(got.exchange); fmt.Sprint(row.Tags) != "map[answered:yes asked:yes]" {
			t.Errorf("%s: tags %v", name, row.Tags)
		}
	}
}

// TestAnswersThatAPluginWithholdsAreBilled: the provider has made them, and wants to be paid.
func TestAnswersThatAPluginWithholdsAreBilled(t *testing.T) {
	w := newWorld(t, rig.Options{})
	attach(t, w, wasmtest.Guest{Event: wasmtest.Denial(451, "unfit", "No.")}, admin.NewAttachment{Plugin: "censor"})
	got := w.post(t, "/v1/chat/completions", hello)
	if got.status != 451 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	served := w.provider.Ledger().Totals().Tokens
	row := w.Row(got.exchange)
	if row.HTTPStatus != 451 || row.BilledInput == 0 || row.BilledOutput == 0 {
		t.Errorf("row %+v", row)
	}
	// Whether the body had come when the head was denied is a matter of chance.
	if !row.Estimated && (row.Input != served.Input || row.Output != served.Output) {
		t.Errorf("row %+v, the provider served %+v", row, served)
	}
	failed := w.post(t, "/v1/chat/completions", hello, "x-fake-status", "400")
	if failed.status != 451 {
		t.Fatalf("%d %s", failed.status, failed.body)
	}
	if row := w.Row(failed.exchange); row.Estimated || row.BilledInput+row.BilledOutput != 0 {
		t.Errorf("row of an error %+v", row)
	}
}
