// SPDX-License-Identifier: Apache-2.0

package store

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAttachmentsArePartOfTheConfiguration(t *testing.T) {
	s := migrated(t)
	ctx := t.Context()
	push(t, s, PushedModule{Name: "p", Wasm: module(1)})
	before := must(s.Configuration(ctx))
	settings := PluginSettings{
		Place: -3, Mode: PluginOpen, Config: `{"b":1, "a":[]}`, Grants: []string{"log", "pii"}, Headers: []string{"x-team"}, Body: true,
		Limits:    PluginLimits{Fuel: 5000, MemoryBytes: 1 << 20, Time: 20 * time.Millisecond},
		Upstreams: []PluginUpstream{{Name: "outbound|443||a.dns", URL: "https://a.example.com/v1"}, {Name: "b", URL: "http://10.0.0.1", Private: true}}, RequestOnly: true,
	}
	a := attach(t, s, NewAttachment{Plugin: "p", PluginSettings: settings})
	want := Attachment{
		ID: a.ID, PluginID: a.PluginID, Plugin: "p", Digest: DigestOf(module(1)), PluginSettings: settings, Created: a.Created,
		AttachmentHistory: AttachmentHistory{Swapped: a.Swapped},
	}
	after := must(s.Configuration(ctx))
	if diff := cmp.Diff(after.Attachments, []Attachment{want}); diff != "" || after.Revision != before.Revision+1 {
		t.Errorf("revision %d after %d (-got +want):\n%s", after.Revision, before.Revision, diff)
	}
	push(t, s, PushedModule{Name: "p", Wasm: module(2)}) // changes nothing for anybody
	if c := must(s.Configuration(ctx)); c.Revision != after.Revision {
		t.Errorf("a push has changed the configuration")
	}
	place, mode, config, body, disabled, only := 9, PluginClosed, "", false, true, false
	got, err := s.SetAttachment(ctx, a.ID, AttachmentChange{
		Place: &place, Mode: &mode, Config: &config, Grants: &[]string{}, Headers: &[]string{}, Body: &body, Limits: &PluginLimits{}, Disabled: &disabled,
		Upstreams: &[]PluginUpstream{}, RequestOnly: &only,
	})
	want.PluginSettings = PluginSettings{Place: 9, Mode: PluginClosed, Grants: []string{}, Headers: []string{}, Upstreams: []PluginUpstream{}, Disabled: true}
	if diff := cmp.Diff(got, want); err != nil || diff != "" {
		t.Errorf("changed: %v (-got +want):\n%s", err, diff)
	}
	if err := s.Detach(ctx, a.ID); err != nil {
		t.Fatal(err)
	}
	wantError(t, s.Detach(ctx, a.ID), ErrNotFound, "attachment")
	if c := must(s.Configuration(ctx)); len(c.Attachments) != 0 || c.Revision != after.Revision+2 {
		t.Errorf("revision %d with %d attachments", c.Revision, len(c.Attachments))
	}
	_, err = s.SetAttachment(ctx, a.ID, AttachmentChange{})
	wantError(t, err, ErrNotFound, "attachment")
}

func TestVersionThatFailsGoesBackOnce(t *testing.T) {
	s := migrated(t)
	ctx := t.Context()
	push(t, s, PushedModule{Name: "p", Wasm: module(1)})
	a := attach(t, s, NewAttachment{Plugin: "p", PluginSettings: PluginSettings{Config: `{"n":1}`}})
	_, _, err := s.RollBack(ctx, RollBack{Attachment: a.ID})
	wantError(t, err, ErrInvalid, "no version before")

	push(t, s, PushedModule{Name: "p", Wasm: module(2)})
	latest, config := "", `{"n":2}`
	a, err = s.SetAttachment(ctx, a.ID, AttachmentChange{Version: &latest, Config: &config})
	if err != nil || a.Digest != DigestOf(module(2)) || a.Previous != DigestOf(module(1)) || a.PreviousConfig != `{"n":1}` {
		t.Fatalf("swapped: %+v, %v", a, err)
	}
	if _, done, err := s.RollBack(ctx, RollBack{Attachment: a.ID, From: DigestOf(module(1)), Within: time.Minute}); done || err != nil {
		t.Errorf("from a version that is not in force: %v, %v", done, err)
	}
	exec(t, s, `update weir.attachment set swapped = now() - interval '11 minutes'`)
	if _, done, err := s.RollBack(ctx, RollBack{Attachment: a.ID, From: a.Digest, Within: 10 * time.Minute}); done || err != nil {
		t.Errorf("of a version that has stood its time: %v, %v", done, err)
	}
	exec(t, s, `update weir.attachment set swapped = now() - interval '9 minutes'`)

	var times atomic.Int32
	var replicas sync.WaitGroup
	for range 4 {
		replicas.Go(func() {
			_, done, err := s.RollBack(ctx, RollBack{Attachment: a.ID, From: a.Digest, Within: 10 * time.Minute, Why: "it trapped\x00"})
			if err != nil {
				t.Error(err)
			}
			if done {
				times.Add(1)
			}
		})
	}
	replicas.Wait()
	got := must(s.Attachment(ctx, a.ID))
	if times.Load() != 1 || got.Digest != DigestOf(module(1)) || got.Config != `{"n":1}` || got.Previous != (Digest{}) {
		t.Errorf("%d of 4 rolled back to %+v", times.Load(), got)
	}
	if got.RolledBackOf != DigestOf(module(2)) || got.RolledBackWhy != "it trapped" || got.RolledBack.IsZero() {
		t.Errorf("history %+v", got.AttachmentHistory)
	}
	// A version that somebody chooses makes the story one of the past.
	got, err = s.SetAttachment(ctx, a.ID, AttachmentChange{Version: &latest})
	if err != nil || !got.RolledBack.IsZero() || got.Previous != DigestOf(module(1)) || got.RolledBackWhy != "" {
		t.Errorf("chosen anew: %+v, %v", got, err)
	}
	if got, done, err := s.RollBack(ctx, RollBack{Attachment: a.ID, Why: "by hand"}); err != nil || !done || got.Digest != DigestOf(module(1)) {
		t.Errorf("by hand: %+v, %v, %v", got, done, err)
	}
}
