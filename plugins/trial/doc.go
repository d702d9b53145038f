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
//	-- want --            what becomes of the exchange, a fact a line
//	-- want.request --    the body that the provider gets, if it is not the client's
//	-- want.response --   the bytes that the client gets
//	-- want.text --       the texts and calls that the client reads in it
//
// Of want.response and want.text a case has one or both. Settings are operation, tenant and key (a number and a name), address, header and response-header (name: value; may
// repeat), channels, budget, input-tokens, time (RFC 3339), grants (all that the module imports, unless said), show-body and status.
package trial
