// SPDX-License-Identifier: Apache-2.0

// Package prompt reads what a request says to a model, for plugins, and writes into the request what they make of it.
//
//	body ──Read──▶ Prompt ──▶ plugin ──verdict──▶ Prompt.Apply ──▶ body
//
// Only the strings that a verdict edits are written anew; all other bytes of a body stay as the client sent them. Everything that a
// provider may take for text of the prompt is a text or, where it cannot be read, named as media: a plugin that sees neither can be sure that
// there is none. Objects in which a key that counts appears twice, or in a spelling that some parsers take for it, are refused, since the
// plugin and the provider would not read the same.
package prompt
