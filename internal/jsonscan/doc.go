// SPDX-License-Identifier: Apache-2.0

// Package jsonscan reads the few members of a JSON object that the gateway acts on, and changes them, without touching the
// other bytes.
//
// A gateway that decides on one reading of a body and forwards bytes that the provider reads otherwise can be talked past its
// own rules: which of two "model" members counts differs from parser to parser, and some take "MODEL" or "mod\u0065l" for
// "model". So [Keys.Scan] is stricter than most parsers:
//
//   - the whole text must be one object by the grammar of RFC 8259, with nothing behind it and no byte order mark;
//   - strings must be valid UTF-8, without raw control characters and without lone surrogates;
//   - arrays and objects nest at most [MaxDepth] deep;
//   - a key that is looked for may stand there once, and only in its plain spelling: no escapes, no other case, no characters
//     that fold to its letters (U+212A to k, U+017F to s).
//
// Whatever Scan accepts, encoding/json accepts too, and finds the same values (a fuzz test holds that). Keys that are not
// looked for may repeat: what they mean is between the client and the provider.
package jsonscan
