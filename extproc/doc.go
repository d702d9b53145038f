// SPDX-License-Identifier: Apache-2.0

// Package extproc speaks with Envoy: it turns the messages of an external-processing stream into calls of [policy.Engine], and its
// decisions into answers. It is the only place where those answers are built.
//
// # One stream
//
//	Envoy                          Server                        policy
//	request_headers ────────────▶  Begin  ─────────────────────▶ refused, answered, or wait
//	               ◀────────────── immediate_response, done
//	               ◀────────────── continue
//	request_body (all of it) ────▶ Admit  ─────────────────────▶ refused or admitted
//	               ◀────────────── immediate_response, done
//	               ◀────────────── metadata, headers, body, done
//
// After the decision the server closes the stream. Envoy then needs nothing more of it: the response does not pass through here,
// and killing the processor cuts no stream of a client.
//
// What does not fit into this picture, such as a body without headers, is refused: without an answer that carries the metadata
// of an admission, Envoy has no route for the request.
package extproc
