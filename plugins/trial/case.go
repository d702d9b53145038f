// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weir-proxy/weir/plugins/host"
	"github.com/weir-proxy/weir/policy"
)

// Sections of a case.
const (
	inSettings = "settings"
	inConfig   = "config"
	inRequest  = "request"
	inStream   = "response.sse"
	inJSON     = "response.json"
	inText     = "response.text"
	inAnswer   = "answer " // and the name of an upstream; may be there several times

	wantOutcome  = "want"
	wantRequest  = "want.request"
	wantResponse = "want.response"
	wantText     = "want.text"
	wantCalls    = "want.calls"
)

// Case is an exchange and what a plugin should make of it.
type Case struct {
	Name  string // the file's, without .txtar
	About string // what it shows
	path  string

	archive archive
	asked   asked
	reply   reply
	config  []byte
	grants  []host.Capability // nil: what the module imports
	at      time.Time         // as the plugin sees it
	cuts    cutting
	answers map[string][]*fixture // of upstreams, in order
}

// asked is the request of a case.
type asked struct {
	body      []byte
	operation policy.Operation
	tenant    policy.Tenant
	key       policy.Key
	address   string
	headers   []policy.Header
	channels  []string
	budget    *int64
	tokens    int64
	showBody  bool
}

// reply is the response of a case.
type reply struct {
	status  int
	headers []policy.Header
	media   string // empty: there is no response
	body    []byte
	text    string // instead of a body; see [Case.Text]
}

// Text returns the text that is cut into events in every place; empty if the case has none.
func (c *Case) Text() string { return c.reply.text }

const defaultRequest = `{"model":"m","messages":[{"role":"user","content":"Hello"}]}`

// ReadCases reads the cases of a folder, *.txtar, in the order of their names. A file that is no case is an error, as is a folder without any.
func ReadCases(dir string) ([]*Case, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil {
		return nil, fmt.Errorf("read cases: %w", err)
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("read cases: there are no *.txtar in %s: %w", dir, fs.ErrNotExist)
	}
	var cases []*Case
	var errs []error
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read cases: %w", err)
		}
		c, err := ParseCase(strings.TrimSuffix(filepath.Base(path), ".txtar"), string(text))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
			continue
		}
		c.path = path
		cases = append(cases, c)
	}
	return cases, errors.Join(errs...)
}

// ParseCase reads a case from its text.
func ParseCase(name, text string) (*Case, error) {
	c := &Case{Name: name, archive: parseArchive(text), at: time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC), cuts: cutAll, answers: map[string][]*fixture{}}
	c.About = strings.TrimSpace(c.archive.comment)
	c.asked = asked{
		operation: policy.OpChat, tenant: policy.Tenant{ID: 1, Name: "acme"}, key: policy.Key{ID: 1, Name: "ci", Tenant: 1}, address: "192.0.2.1",
		channels: []string{"main"},
	}
	c.reply.status = 200
	known := []string{inSettings, inConfig, inRequest, inStream, inJSON, inText, wantOutcome, wantRequest, wantResponse, wantText, wantCalls}
	responses := 0
	for i, s := range c.archive.sections {
		if upstream, ok := strings.CutPrefix(s.name, inAnswer); ok {
			f, err := readFixture(s.text)
			if err != nil {
				return nil, fmt.Errorf("section %q: %w", s.name, err)
			}
			c.answers[upstream] = append(c.answers[upstream], f)
			continue
		}
		if !slices.Contains(known, s.name) {
			return nil, fmt.Errorf("there is no section %q, but: %s, answer UPSTREAM", s.name, strings.Join(known, ", "))
		}
		if slices.ContainsFunc(c.archive.sections[:i], func(o section) bool { return o.name == s.name }) {
			return nil, fmt.Errorf("the section %q is there twice", s.name)
		}
		if s.name == inStream || s.name == inJSON || s.name == inText {
			responses++
		}
	}
	if responses > 1 {
		return nil, fmt.Errorf("a case has one response: %s, %s or %s", inStream, inJSON, inText)
	}
	if err := c.readSettings(); err != nil {
		return nil, err
	}
	config, _ := c.archive.get(inConfig)
	c.config = []byte(strings.TrimSuffix(config, "\n"))
	c.readReply()
	return c, c.readRequest()
}

func (c *Case) readReply() {
	if s, ok := c.archive.get(inStream); ok {
		c.reply.media, c.reply.body = mediaStream, []byte(s)
	}
	if s, ok := c.archive.get(inJSON); ok {
		c.reply.media, c.reply.body = mediaJSON, []byte(s)
	}
	if s, ok := c.archive.get(inText); ok {
		c.reply.media, c.reply.text = mediaStream, strings.TrimSuffix(s, "\n")
	}
}

const (
	mediaStream = "text/event-stream"
	mediaJSON   = "application/json"
)

func (c *Case) readRequest() error {
	body, ok := c.archive.get(inRequest)
	if !ok {
		body = defaultRequest
	}
	c.asked.body = []byte(strings.TrimSpace(body))
	var v struct {
		Model any `json:"model"`
	}
	if err := json.Unmarshal(c.asked.body, &v); err != nil {
		return fmt.Errorf("section %q: %w", inRequest, err)
	}
	if _, ok := v.Model.(string); !ok {
		return fmt.Errorf("section %q: it has no model", inRequest)
	}
	if c.reply.text != "" && c.asked.operation != policy.OpChat {
		return fmt.Errorf("section %q: only a chat can be made of a text; use %s", inText, inStream)
	}
	return nil
}

func (c *Case) readSettings() error {
	text, _ := c.archive.get(inSettings)
	n := 0
	for line := range strings.Lines(text) {
		n++
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return fmt.Errorf("settings, line %d: it is not of the form name: value", n)
		}
		if err := c.set(name, strings.TrimSpace(value)); err != nil {
			return fmt.Errorf("settings, line %d: %w", n, err)
		}
	}
	return nil
}

func (c *Case) set(name, value string) error {
	var err error
	a := &c.asked
	switch name {
	case "operation":
		a.operation = policy.Operation(value)
		if !slices.Contains([]policy.Operation{policy.OpChat, policy.OpCompletions, policy.OpEmbeddings, policy.OpResponses}, a.operation) {
			return fmt.Errorf("there is no operation %q", value)
		}
	case "tenant":
		err = who(value, (*int64)(&a.tenant.ID), &a.tenant.Name)
		a.key.Tenant = a.tenant.ID
	case "key":
		err = who(value, (*int64)(&a.key.ID), &a.key.Name)
	case "address":
		a.address = value
	case "header":
		err = header(value, &a.headers)
	case "response-header":
		err = header(value, &c.reply.headers)
	case "channels":
		a.channels = list(value)
	case "budget":
		a.budget = new(int64)
		*a.budget, err = strconv.ParseInt(value, 10, 64)
	case "input-tokens":
		a.tokens, err = strconv.ParseInt(value, 10, 64)
	case "show-body":
		a.showBody, err = strconv.ParseBool(value)
	case "status":
		c.reply.status, err = strconv.Atoi(value)
	case "time":
		c.at, err = time.Parse(time.RFC3339, value)
	case "cuts":
		err = c.readCuts(value)
	case "grants":
		c.grants, err = Grants(list(value))
	default:
		err = fmt.Errorf("there is no setting %q", name)
	}
	return err
}

// Grants reads names of capabilities.
func Grants(names []string) ([]host.Capability, error) {
	grants := []host.Capability{}
	for _, n := range names {
		if !slices.Contains(host.Capabilities(), host.Capability(n)) {
			return nil, fmt.Errorf("there is no capability %q, but: %v", n, host.Capabilities())
		}
		grants = append(grants, host.Capability(n))
	}
	return grants, nil
}

func who(value string, id *int64, name *string) (err error) {
	number, rest, _ := strings.Cut(value, " ")
	*id, err = strconv.ParseInt(number, 10, 64)
	*name = strings.TrimSpace(rest)
	if err != nil || *id <= 0 {
		return fmt.Errorf("%q is not a number above 0 and a name", value)
	}
	return nil
}

func header(value string, to *[]policy.Header) error {
	name, v, ok := strings.Cut(value, ":")
	if !ok || name == "" || name != strings.ToLower(name) {
		return fmt.Errorf("%q is not a name in lower case, a colon and a value", value)
	}
	*to = append(*to, policy.Header{Name: name, Value: strings.TrimSpace(v)})
	return nil
}

func list(value string) []string {
	return strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })
}

// names returns the names of headers.
func names(headers []policy.Header) []string {
	var out []string
	for _, h := range headers {
		out = append(out, h.Name)
	}
	return out
}

// Refused reports whether the case shows how a configuration is refused, so that there is no plugin to be called.
func (c *Case) Refused() bool {
	want, _ := c.archive.get(wantOutcome)
	return strings.HasPrefix(want, "it does not take its configuration")
}
