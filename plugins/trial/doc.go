// SPDX-License-Identifier: Apache-2.0

// Package trial tries plugins out: it looks into a module, holds it to cases that its author has written down, and measures what its calls cost.
//
// A case goes the whole way of an exchange: the request is read by [prompt], judged through [chain] by the real host, and the response by [answer]. A stream must come out the
// same however its bytes were cut, so each case is played with every cut in two and byte by byte; a text ([Case.Text]) also with every cut of the
// text into events, since a model's tokens fall anywhere.
//
// # Cases
//
// A case is a file in the txtar format, NAME.txtar: a sentence that says what it shows, then sections. Sections that are not needed are left out.
//
//	-- settings --        lines "name: value", see below
//	-- config --          for weir_configure
//	-- request --         the client's JSON
//	-- response.sse --    a recorded stream
//	-- response.json --   a recorded response that is no stream
//	-- response.text --   a text that a chat answers with, cut in every place
//	-- answer NAME --     what an upstream answers to a call: a status, headers, an empty line and a body, or "no answer"
//	-- want --            what becomes of the exchange, a fact a line
//	-- want.request --    the body that the provider gets, if it is not the client's
//	-- want.response --   the bytes that the client gets
//	-- want.text --       the texts and calls that the client reads in it
//	-- want.calls --      the calls to upstreams, as they were made
//
// Of want.response and want.text a case has one or both. Settings are operation, tenant and key (a number and a name), address, header and response-header (name: value; may
// repeat), channels, budget, input-tokens, time (RFC 3339), grants (all that the module imports, unless said), show-body, status and cuts: all, unless said; events, which
// cuts a stream behind each event alone; or none.
//
// # Plugins that speak proxy-wasm
//
// They are held to cases too, by the host of package proxywasm. Upstreams that a case has answers for may be called: each answer is for one call, in order, and the last for all that
// follow. want has a line for each call, for each property that the plugin set (what Envoy's access logs would show of it), and for each of its metrics. A plugin that answers itself
// has its answer in want.response. Time stands still, and random numbers are the same in each play, so that signatures are too. Streams are cut everywhere, as Envoy may cut them; for a plugin
// that is not made for that there is the setting cuts.
package trial
