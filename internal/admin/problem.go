// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"github.com/weir-proxy/weir/internal/store"
)

// problemType is the namespace of our types of problems: https://www.rfc-editor.org/rfc/rfc9457#name-type.
const problemType = "urn:weir:problem:"

// problem makes a [Problem] whose type follows from its title.
func problem(status int, title, detail string) *Problem {
	return &Problem{
		Type:   problemType + strings.ReplaceAll(title, " ", "-"),
		Title:  title,
		Status: status,
		Detail: detail,
	}
}

func (p *Problem) hint(format string, args ...any) *Problem {
	p.Hint = fmt.Sprintf(format, args...)
	return p
}

// HintDocument is the hint of what cannot be used, where there is no better one.
const HintDocument = "GET /api/v1/openapi.yaml says what each member may be"

// invalid is a request whose contents cannot be used.
func invalid(format string, args ...any) *Problem {
	return problem(http.StatusBadRequest, "invalid request", fmt.Sprintf(format, args...)).hint(HintDocument)
}

// problemOf says how an error is shown, and whether it is one that only the log may see.
func problemOf(err error) (p *Problem, internal bool) {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p, false
	}
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	noun, _, _ := strings.Cut(text, " ") // The store's errors begin with what they are about.
	if noun == "attachment" {
		noun = "plugin" // The command line has them under their plugins.
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		return problem(http.StatusNotFound, "not found", text).hint("weir %s list (GET /api/v1/%ss) shows what there is", noun, noun), false
	case errors.Is(err, store.ErrExists) && noun == "top-up":
		return problem(http.StatusConflict, "already exists", text).hint("a reference is booked once: another payment needs another one"), false
	case errors.Is(err, store.ErrExists):
		return problem(http.StatusConflict, "already exists", text).hint("choose another name, or change the one that exists with weir %s set", noun), false
	case errors.Is(err, store.ErrInUse):
		return problem(http.StatusConflict, "still in use", text).hint("remove what uses it first, or disable it instead"), false
	case errors.Is(err, store.ErrInvalid):
		return problem(http.StatusUnprocessableEntity, "invalid value", text).hint(HintDocument), false
	case errors.Is(err, store.ErrSecretKey):
		return problem(http.StatusInternalServerError, "wrong secret key", text).hint(secretKeyHint), false
	}
	p = problem(http.StatusInternalServerError, "internal error", "the server could not do this")
	id := uuid.NewString()
	p.Instance = "urn:uuid:" + id
	return p.hint("the log of weir serve has the cause, under request_id %s", id), true
}

// secretKeyHint is for credentials that cannot be decrypted.
const secretKeyHint = "start weir serve with the WEIR_SECRET_KEY that the credentials were stored under, or delete the channel and add it again"

func writeJSON(w http.ResponseWriter, status int, v any) {
	writeBody(w, status, "application/json", v)
}

func writeProblem(w http.ResponseWriter, p *Problem) {
	writeBody(w, p.Status, "application/problem+json", p)
}

func writeBody(w http.ResponseWriter, status int, contentType string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode an answer: %v", err)) // Our own types: cannot fail.
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // The client has left; there is nobody to tell.
}
