// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"
)

func TestNewSnapshotRefusesUnfitData(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*SnapshotData)
		want   string
	}{
		"tenant id":         {func(d *SnapshotData) { d.Tenants[0].ID = 0 }, "tenant 0: id is not positive or not unique"},
		"tenant twice":      {func(d *SnapshotData) { d.Tenants[1].ID = 1 }, "tenant 1: id is not positive or not unique"},
		"key id":            {func(d *SnapshotData) { d.Keys[0].ID = -1 }, "key -1: id is not positive or not unique"},
		"key twice":         {func(d *SnapshotData) { d.Keys[1].ID = 1 }, "key 1: id is not positive or not unique"},
		"key of nobody":     {func(d *SnapshotData) { d.Keys[2].Tenant = 99 }, "key 3: no tenant 99"},
		"hash twice":        {func(d *SnapshotData) { d.Keys[2].Hash = d.Keys[0].Hash }, "key 3: same hash as key 1"},
		"empty pattern":     {func(d *SnapshotData) { d.Keys[0].Models = []string{"a", ""} }, "key 1: empty model name"},
		"channel id":        {func(d *SnapshotData) { d.Channels[0].ID = 0 }, "channel 0: id is not positive or not unique"},
		"channel twice":     {func(d *SnapshotData) { d.Channels[1].ID = 10 }, "channel 10: id is not positive or not unique"},
		"channel of nobody": {func(d *SnapshotData) { d.Channels[0].Tenant = 99 }, "channel 10: no tenant 99"},
		"no such billing":   {func(d *SnapshotData) { d.Channels[0].Partial = "half" }, `channel 10: unknown policy "half" for what is not counted`},
		"no weight":         {func(d *SnapshotData) { d.Channels[0].Weight = 0 }, "channel 10: weight 0 is not between 1 and 2147483647"},
		"model twice":       {func(d *SnapshotData) { d.Channels[0].Models[1].Name = "gpt-4o" }, `channel 10: model "gpt-4o" twice`},
		"empty model":       {func(d *SnapshotData) { d.Channels[0].Models[1].Name = "" }, `channel 10: model name "" is empty`},
		"long model":        {func(d *SnapshotData) { d.Channels[0].Models[1].Name = strings.Repeat("m", 513) }, "longer than 512 bytes"},
		"unprintable model": {func(d *SnapshotData) { d.Channels[0].Models[1].Name = "a\x00b" }, "not printable"},
		"unprintable name":  {func(d *SnapshotData) { d.Channels[1].Models[0].Upstream = "a\nb" }, `upstream name "a\nb" of model "gpt-4o"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := testData()
			tt.change(&data)
			s, err := NewSnapshot(data)
			if err == nil || s != nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("NewSnapshot = %v, %v, want an error with %q", s, err, tt.want)
			}
		})
	}
}

func TestSnapshotDoesNotChangeWithItsData(t *testing.T) {
	t.Parallel()
	data := testData()
	e := newEngine(t, nil)
	e.SetSnapshot(mustSnapshot(t, data))
	data.Keys[1].Models[0] = "changed"
	data.Channels[0].Models[1].Name = "changed"
	data.Tenants[0].Disabled = true
	head := post("/v1/chat/completions")
	head.Authorization = "Bearer sk-limited"
	if _, denial := admit(t, e, head, `{"model":"gpt-4o-mini"}`); denial != nil {
		t.Errorf("a change of the data reached the snapshot: %v", denial)
	}
}

func TestEmptySnapshotKnowsNobody(t *testing.T) {
	t.Parallel()
	e := New(Options{})
	if e.Ready() {
		t.Error("ready without a snapshot")
	}
	_, _, denial := e.Begin(post("/v1/chat/completions"))
	checkDenial(t, denial, 503, CodeUnavailable)
	if denial.RetryAfter <= 0 {
		t.Error("the refusal does not say when to retry")
	}
	e.SetSnapshot(mustSnapshot(t, SnapshotData{}))
	if !e.Ready() {
		t.Error("not ready with a snapshot")
	}
	_, _, denial = e.Begin(post("/v1/chat/completions"))
	checkDenial(t, denial, 401, CodeInvalidKey)
}
