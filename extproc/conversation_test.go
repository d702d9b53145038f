// SPDX-License-Identifier: Apache-2.0

package extproc

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/rogpeppe/go-internal/txtar"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weir-proxy/weir/policy"
)

var update = flag.Bool("update", false, "rewrite the answers in testdata/*.txtar")

// noon is when all tests happen.
var noon = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

// TestConversations plays the conversations of testdata. In the file "in" each line that begins with > is a message of Envoy:
//
//	> headers [end] [streamed] [silent] [observe] [value]
//	                                               lines of name: value; "end" without a body, "silent" on the mode of the body,
//	                                               "value" in the older field of a header
//	> body [open] [quoted] [nested]                the body; "open" before the end of the stream, "quoted" in Go's syntax,
//	                                               "nested" as a number of opening brackets
//	> trailers | response-headers | response-body | nothing
//
// The file "out" has the answers, each behind a line that begins with <; the last line says whether the stream was closed.
// The installation is testdata/snapshot.yaml.
func TestConversations(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no conversations: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(archive.Files) != 2 || archive.Files[0].Name != "in" || archive.Files[1].Name != "out" {
				t.Fatal("want the files in and out")
			}
			got := converse(t, string(archive.Files[0].Data))
			if *update {
				archive.Files[1].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(got, string(archive.Files[1].Data)); diff != "" {
				t.Errorf("answers differ (-got +want; -update rewrites):\n%s", diff)
			}
		})
	}
}

// converse plays the messages of a file and returns the answers as text.
func converse(t *testing.T, in string) string {
	t.Helper()
	x := session{server: New(Options{Engine: testEngine(t)})}
	var out strings.Builder
	done := false
	for _, part := range strings.Split("\n"+in, "\n> ")[1:] {
		if done {
			t.Fatalf("a message follows the end: %s", part)
		}
		var answer *extprocv3.ProcessingResponse
		if answer, done = x.step(parseMessage(t, part)); answer != nil {
			writeAnswer(t, &out, received(t, answer))
		}
	}
	if done {
		out.WriteString("closed\n")
	} else {
		out.WriteString("open\n")
	}
	return out.String()
}

func parseMessage(t *testing.T, part string) *extprocv3.ProcessingRequest {
	t.Helper()
	first, rest, _ := strings.Cut(part, "\n")
	words := strings.Fields(first)
	has := func(flag string) bool { return slices.Contains(words[1:], flag) }
	m := &extprocv3.ProcessingRequest{ObservabilityMode: has("observe")}
	switch words[0] {
	case "headers":
		mode := extprocfilterv3.ProcessingMode_BUFFERED
		if has("streamed") {
			mode = extprocfilterv3.ProcessingMode_STREAMED
		}
		if !has("silent") {
			m.ProtocolConfig = &extprocv3.ProtocolConfiguration{RequestBodyMode: mode}
		}
		m.Request = &extprocv3.ProcessingRequest_RequestHeaders{RequestHeaders: &extprocv3.HttpHeaders{
			EndOfStream: has("end"), Headers: parseHeaders(t, rest, has("value")),
		}}
	case "body":
		m.Request = &extprocv3.ProcessingRequest_RequestBody{RequestBody: &extprocv3.HttpBody{
			EndOfStream: !has("open"), Body: parseBody(t, strings.TrimSuffix(rest, "\n"), has("quoted"), has("nested")),
		}}
	case "trailers":
		m.Request = &extprocv3.ProcessingRequest_RequestTrailers{RequestTrailers: &extprocv3.HttpTrailers{}}
	case "response-headers":
		m.Request = &extprocv3.ProcessingRequest_ResponseHeaders{ResponseHeaders: &extprocv3.HttpHeaders{}}
	case "response-body":
		m.Request = &extprocv3.ProcessingRequest_ResponseBody{ResponseBody: &extprocv3.HttpBody{EndOfStream: true}}
	case "nothing":
	default:
		t.Fatalf("unknown message %q", first)
	}
	return m
}

func parseHeaders(t *testing.T, lines string, old bool) *corev3.HeaderMap {
	t.Helper()
	m := &corev3.HeaderMap{}
	for line := range strings.Lines(lines) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		name, v, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if !ok {
			t.Fatalf("malformed header %q", line)
		}
		h := &corev3.HeaderValue{Key: name, RawValue: []byte(v)}
		if old {
			h = &corev3.HeaderValue{Key: name, Value: v}
		}
		m.Headers = append(m.Headers, h)
	}
	return m
}

func parseBody(t *testing.T, text string, quoted, nested bool) []byte {
	t.Helper()
	switch {
	case quoted:
		s, err := strconv.Unquote(text)
		if err != nil {
			t.Fatal(err)
		}
		return []byte(s)
	case nested:
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		return append([]byte(`{"model":"gpt-4o","x":`), bytes.Repeat([]byte("["), n)...)
	}
	return []byte(text)
}

// namesOnlyTheExchange reports whether metadata is that of an exchange that is not decided on.
func namesOnlyTheExchange(m *structpb.Struct) bool {
	id, err := uuid.Parse(m.GetFields()[Namespace].GetStructValue().GetFields()["exchange"].GetStringValue())
	return err == nil && id.Version() == 7 && len(m.GetFields()) == 1 && len(m.GetFields()[Namespace].GetStructValue().GetFields()) == 1
}

// writeAnswer writes what counts of an answer. Everything else must be empty.
func writeAnswer(t *testing.T, out *strings.Builder, r *extprocv3.ProcessingResponse) {
	t.Helper()
	switch v := r.GetResponse().(type) {
	case *extprocv3.ProcessingResponse_RequestHeaders:
		out.WriteString("< continue\n")
		if v.RequestHeaders.GetResponse() != nil || !namesOnlyTheExchange(r.GetDynamicMetadata()) {
			t.Errorf("the answer to the headers does more than name the exchange: %v", r)
		}
	case *extprocv3.ProcessingResponse_ImmediateResponse:
		i := v.ImmediateResponse
		fmt.Fprintf(out, "< answer %d, details %s\n", i.GetStatus().GetCode(), i.GetDetails())
		writeHeaders(out, i.GetHeaders())
		fmt.Fprintf(out, "%s\n", i.GetBody())
		if r.GetDynamicMetadata() != nil {
			t.Errorf("a refusal has metadata: %v", r)
		}
	case *extprocv3.ProcessingResponse_RequestBody:
		c := v.RequestBody.GetResponse()
		fmt.Fprintf(out, "< admit, clear route cache %v\n", c.GetClearRouteCache())
		writeHeaders(out, c.GetHeaderMutation())
		writeMetadata(t, out, r)
		if b := c.GetBodyMutation(); b != nil {
			fmt.Fprintf(out, "body: %s\n", b.GetBody())
		}
	default:
		t.Errorf("unexpected answer %v", r)
	}
}

func writeHeaders(out *strings.Builder, m *extprocv3.HeaderMutation) {
	for _, h := range m.GetSetHeaders() {
		fmt.Fprintf(out, "%s: %s", h.GetHeader().GetKey(), h.GetHeader().GetRawValue())
		if h.GetAppendAction() != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
			fmt.Fprintf(out, " (%s)", h.GetAppendAction())
		}
		out.WriteByte('\n')
	}
	for _, name := range m.GetRemoveHeaders() {
		fmt.Fprintf(out, "remove %s\n", name)
	}
}

// writeMetadata writes the metadata with the ticket decoded.
func writeMetadata(t *testing.T, out *strings.Builder, r *extprocv3.ProcessingResponse) {
	t.Helper()
	for _, namespace := range []string{Namespace, TapNamespace} {
		fields := r.GetDynamicMetadata().GetFields()[namespace].GetStructValue().AsMap()
		if s, ok := fields["ticket"].(string); ok {
			ticket, err := policy.ParseTicket(s)
			if err != nil {
				t.Fatal(err)
			}
			fields["ticket"] = fmt.Sprintf("%+v", *ticket)
		}
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(fields); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(out, "%s: %s", namespace, b.String())
	}
}

// testEngine returns an engine at noon with the installation of testdata/snapshot.yaml.
func testEngine(tb testing.TB) *policy.Engine {
	tb.Helper()
	e := policy.New(policy.Options{
		Clock: func() time.Time { return noon }, Random: rand.NewPCG(1, 2), MaxBodyBytes: 16 << 20,
	})
	e.SetSnapshot(testSnapshot(tb))
	return e
}

func testSnapshot(tb testing.TB) *policy.Snapshot {
	tb.Helper()
	b, err := os.ReadFile("testdata/snapshot.yaml")
	if err != nil {
		tb.Fatal(err)
	}
	var file struct {
		Tenants []policy.Tenant
		Keys    []struct {
			policy.Key `yaml:",inline"`
			Secret     string
		}
		Channels []policy.Channel
	}
	if err := yaml.UnmarshalWithOptions(b, &file, yaml.Strict()); err != nil {
		tb.Fatal(err)
	}
	data := policy.SnapshotData{Tenants: file.Tenants, Channels: file.Channels}
	for _, k := range file.Keys {
		k.Hash = policy.HashKey(k.Secret)
		data.Keys = append(data.Keys, k.Key)
	}
	s, err := policy.NewSnapshot(data)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}
