// SPDX-License-Identifier: Apache-2.0

// Package fake is a provider that speaks OpenAI's API, answers without a model, and keeps an exact ledger of what it served.
//
// It is the other end of every test, of the benchmarks and of dev mode without an OpenAI key. A [Provider] is an
// [http.Handler]; [Provider.Run] and [Provider.Serve] put it behind a server for HTTP/1.1 and h2c.
//
//	GET  /v1/models, /v1/models/{id}
//	POST /v1/chat/completions, /v1/completions, /v1/responses, /v1/embeddings    JSON, and SSE where OpenAI has it
//	GET  /ledger, /ledger?exchange=ID, /ledger?totals=true                       what was served
//	POST /ledger/reset                                                          forget it
//
// # Answers
//
// Answers are a function of the request alone, ids and times included, so that two runs compare. A chat with tools answers
// with a call of the first tool (or of the one that tool_choice names) unless its last message is a tool's result; JSON mode
// answers with a JSON object; n choices are served.
//
// # Tokens
//
//	input      one per four bytes of text, each message, part and tool rounded up by itself, 4 per message, 3 per chat;
//	           an image 255 (85 in low detail); in embeddings and completions a list of integers counts its integers
//	cached     of the input: three quarters, rounded down to a multiple of 128, once the input reaches 1,024
//	output     one per content event of a stream, per choice: 8 to 32, or x-fake-tokens, at most max_tokens and its like
//	reasoning  of the output: a quarter, for models whose name begins with "o"; it has no events of its own
//
// Of a stream that ended early the ledger counts the content events that were written, and the reasoning once the first
// content event was.
//
// # Steering
//
// Request headers steer one answer. A value outside its limits is refused with 400.
//
//	x-fake-delay-ms     wait before the first byte                                                     0…600000
//	x-fake-interval-ms  wait between writes: between events, or between frames with x-fake-frame       0…60000
//	x-fake-tokens       output tokens, reasoning included, per choice; overrules max_tokens             0…100000
//	x-fake-status       answer with this error, in OpenAI's shape                                      400…599
//	x-fake-retry-after  the retry-after of that error, in seconds                                      0…86400
//	x-fake-cut-after    reset the connection after that many events. 0 cuts right after the response's head;
//	                    a JSON answer counts as one event, of which half is written; a stream that has
//	                    fewer events is not cut                                                        0…1000000
//	x-fake-no-usage     true: report no usage anywhere                                                 true, false
//	x-fake-frame        write the body in pieces of that many bytes, wherever events begin or end. Add
//	                    an interval if the peer must see each piece by itself. A large value makes a
//	                    burst of events cheap: one write instead of one per event                      1…1048576
//	x-fake-usage-last   content: report the usage of a chat or completions stream on the last chunk that has
//	                    choices, asked for or not, instead of in a chunk of its own                     content
//
// [Behavior] does the same to every request of a provider, for tests in which a channel is down.
package fake
