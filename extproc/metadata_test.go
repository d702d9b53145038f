// SPDX-License-Identifier: Apache-2.0

package extproc

import (
	"strconv"
	"strings"
	"testing"
	"time"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weir-proxy/weir/policy"
)

// received returns the response as Envoy reads it.
func received(tb testing.TB, r *extprocv3.ProcessingResponse) *extprocv3.ProcessingResponse {
	tb.Helper()
	b, err := proto.Marshal(r)
	if err != nil {
		tb.Fatal(err)
	}
	out := &extprocv3.ProcessingResponse{}
	if err := proto.Unmarshal(b, out); err != nil {
		tb.Fatal(err)
	}
	return out
}

// metadataByStructpb is what admissionMetadata writes, made the ordinary way.
func metadataByStructpb(tb testing.TB, a *policy.Admission) *structpb.Struct {
	tb.Helper()
	groups := []any{}
	model := map[string]any{"at": []any{a.ModelStart, a.ModelEnd}}
	for i, c := range a.Choices {
		cluster := "channel-" + strconv.Itoa(int(c.Channel))
		groups = append(groups, map[string]any{
			"name":     strconv.Itoa(i + 1),
			"clusters": []any{map[string]any{"cluster_name": cluster, "weight": 1}},
		})
		if c.Upstream != a.Model {
			model[cluster] = quote(c.Upstream)
		}
	}
	tap := map[string]any{"id": a.Exchange.String()}
	if a.StripUsage {
		tap["strip"] = true
	}
	if len(a.Inform) > 0 {
		lines := ""
		for _, h := range a.Inform {
			lines += h.Name + ": " + h.Value + "\n"
			if h.Name == "x-ratelimit-limit-concurrency" {
				tap["counted"] = true
			}
		}
		tap["headers"] = lines
	}
	s, err := structpb.NewStruct(map[string]any{
		"weir":     map[string]any{"priority_groups": groups, "ticket": a.Ticket, "model": model},
		"weir.tap": tap,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func admission(choices int) *policy.Admission {
	a := &policy.Admission{
		Exchange: uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057"), Ticket: "AQGJCl2slnd0", Model: "gpt-4o",
		ModelStart: 9, ModelEnd: 17, StripUsage: choices%2 == 1, FirstByteTimeout: 2 * time.Minute,
	}
	for i := range choices % 3 {
		a.Inform = append(a.Inform, policy.Header{Name: "x-ratelimit-" + strconv.Itoa(i), Value: strings.Repeat("9", 100*i)})
	}
	for i := range choices {
		c := policy.Choice{Channel: policy.ChannelID(7 + i*1000), Upstream: "gpt-4o"}
		if i%2 == 1 {
			c.Upstream = `other/"quoted" ` + strconv.Itoa(i)
		}
		a.Choices = append(a.Choices, c)
	}
	return a
}

func TestMetadataIsWhatStructpbWouldWrite(t *testing.T) {
	t.Parallel()
	for n := range 17 {
		a := admission(n)
		got := received(t, admissionResponse(a, byGroups))
		if len(got.ProtoReflect().GetUnknown()) != 0 {
			t.Errorf("%d choices: unknown fields arrive", n)
		}
		if diff := cmp.Diff(got.GetDynamicMetadata(), metadataByStructpb(t, a), protocmp.Transform()); diff != "" {
			t.Errorf("%d choices: metadata differs (-got +want):\n%s", n, diff)
		}
	}
}

func BenchmarkMetadata(b *testing.B) {
	a := admission(2)
	b.Run("direct", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := proto.Marshal(admissionResponse(a, byGroups)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("structpb", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r := admissionResponse(a, byGroups)
			r.ProtoReflect().SetUnknown(nil)
			r.DynamicMetadata = metadataByStructpb(b, a)
			if _, err := proto.Marshal(r); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func TestExchangeIsNamedBeforeItIsDecidedOn(t *testing.T) {
	t.Parallel()
	id := uuid.MustParse("01a400f6-3600-7510-9dce-c3ad077dec6c")
	want, err := structpb.NewStruct(map[string]any{"weir": map[string]any{"exchange": id.String()}})
	if err != nil {
		t.Fatal(err)
	}
	got := received(t, continueResponse(id, false))
	if d := cmp.Diff(got.GetDynamicMetadata(), want, protocmp.Transform()); d != "" {
		t.Errorf("(-got +want):\n%s", d)
	}
	if got.GetRequestHeaders() == nil {
		t.Errorf("got %v, which does not answer headers", got)
	}
}

// An Envoy that cannot take an order from metadata is told the first channel by a header, which no policy has a say in, and what comes after it where it can use that.
func TestAnOlderEnvoyIsToldTheFirstChannelByAHeader(t *testing.T) {
	t.Parallel()
	a := admission(3)
	a.Set = []policy.Header{{Name: ChannelHeader, Value: "channel-999"}}
	for r, want := range map[route]struct {
		retries string
		next    any
	}{
		byNext:  {"2", map[string]any{"channel-7": "channel-1007", "channel-1007": "channel-2007"}},
		byFirst: {"0", nil},
	} {
		got := received(t, admissionResponse(a, r))
		headers := map[string]string{}
		for _, h := range got.GetRequestBody().GetResponse().GetHeaderMutation().GetSetHeaders() {
			headers[h.GetHeader().GetKey()] = string(h.GetHeader().GetRawValue())
		}
		if headers[ChannelHeader] != "channel-7" || headers["x-envoy-max-retries"] != want.retries {
			t.Errorf("%s: got headers %v", r, headers)
		}
		weir := got.GetDynamicMetadata().GetFields()[Namespace].GetStructValue().AsMap()
		if diff := cmp.Diff(weir["next"], want.next); diff != "" || weir["priority_groups"] != nil || weir["ticket"] != a.Ticket {
			t.Errorf("%s: got metadata %v", r, weir)
		}
	}
}

func TestTheRouteIsWhatEnvoySays(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]route{"": byGroups, "next": byNext, "first": byFirst} {
		md := metadata.MD{}
		if said != "" {
			md.Set(RouteKey, said)
		}
		if got := routeOf(metadata.NewIncomingContext(t.Context(), md)); got != want {
			t.Errorf("%q: got %q, want %q", said, got, want)
		}
	}
	if got := routeOf(t.Context()); got != byGroups {
		t.Errorf("without metadata got %q", got)
	}
}
