// SPDX-License-Identifier: Apache-2.0

package admin

import "net/http"

// settling is the answer to a change. It goes when the change is in force.
type settling struct {
	http.ResponseWriter
	settled func()
}

// WriteHeader implements [http.ResponseWriter].
func (s *settling) WriteHeader(status int) {
	if status < http.StatusMultipleChoices {
		s.settled()
	}
	s.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (s *settling) Unwrap() http.ResponseWriter { return s.ResponseWriter }
