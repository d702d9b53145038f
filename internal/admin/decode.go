// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
)

// maxRequestBody is in bytes; the largest real request is a channel with some thousand models.
const maxRequestBody = 1 << 20

// decode reads a JSON object strictly: a member that is unknown, of the wrong type, or null where null means nothing is an error that
// names it, because a misspelt limit that is ignored is a limit that is not there. Nullable names the members that may be null.
func decode(w http.ResponseWriter, r *http.Request, into any, nullable ...string) error {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return problem(http.StatusUnsupportedMediaType, "unsupported media type", "the body must be JSON").
			hint("send the header content-type: application/json")
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequestBody))
	if err != nil {
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			return problem(http.StatusRequestEntityTooLarge, "body too large", "the body is longer than 1 MiB")
		}
		return invalid("the body ended early")
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return invalid("the body is empty").hint("send a JSON object")
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil || members == nil {
		return decodeProblem(err)
	}
	for name, v := range members {
		if string(v) == "null" && !slices.Contains(nullable, name) {
			return invalid("%q must not be null", name).hint("leave it out to leave it as it is")
		}
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return decodeProblem(err)
	}
	return nil
}

func decodeProblem(err error) error {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if e.Field == "" {
			return invalid("the body must be a JSON object, not %s", article(e.Value))
		}
		return invalid("%q cannot be %s", e.Field, article(e.Value))
	}
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return invalid("the body is not JSON: %s, at byte %d", e, e.Offset)
	}
	if err == nil {
		return invalid("the body must be a JSON object, not null")
	}
	// Unknown members have no error type of their own.
	if name, unknown := strings.CutPrefix(err.Error(), "json: unknown field "); unknown {
		return invalid("unknown member %s", name).hint("GET /api/v1/openapi.yaml describes the members")
	}
	return invalid("the body cannot be used: %s", strings.TrimPrefix(err.Error(), "json: "))
}

func article(kind string) string {
	switch {
	case kind == "array" || kind == "object":
		return "an " + kind
	case kind == "bool":
		return "true or false"
	case strings.HasPrefix(kind, "number "):
		return "the " + kind
	}
	return "a " + kind
}
