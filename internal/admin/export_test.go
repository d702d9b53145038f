// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"testing"
)

// Document lets tests of the handlers check answers against openapi.yaml.
type Document struct{ document }

// ReadDocument reads openapi.yaml.
func ReadDocument(t *testing.T) Document { return Document{readDocument(t)} } //nolint:thelper // the case itself, not a helper of it

// Operations returns the operations, such as "GET /api/v1/keys".
func (d Document) Operations() []string {
	var all []string
	for op := range d.operations() {
		all = append(all, op)
	}
	return all
}

// Check returns how an answer differs from the document.
func (d Document) Check(op string, status int, contentType string, body []byte) error {
	return d.checkAnswer(d.operations()[op], status, contentType, body)
}
