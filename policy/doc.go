// SPDX-License-Identifier: Apache-2.0

// Package policy is Weir's domain: who may call, what they may ask for, and which channels take the call.
//
// It knows keys, tenants, channels, models and the body of a request. It does not know Envoy, Postgres or WebAssembly: the
// packages that adapt those import this one, never the other way round (a test in internal/layering holds that).
//
// # One exchange
//
//	Engine.Begin   the head of a request: a key is found, or the exchange is refused before its body is read
//	Exchange.Admit the body: the model is read, channels are picked, the body is patched, the ticket is made
//
// Both either go on or return a [*Denial], which is all that a client ever learns of a refusal.
package policy
