// SPDX-License-Identifier: Apache-2.0

// Package answer shows the response of a provider to judges, the plugins of an exchange, and makes of it what they leave: bytes go in as they come, in chunks cut
// anywhere, and bytes for the client come out. It does no input or output of its own, starts nothing, and waits for nobody.
//
//	chunks ─▶ events of a stream ─▶ JSON ─▶ abi.Event ─▶ judge ─▶ judge ─▶ …
//	          or a whole body                               │ verdicts
//	chunks ◀─ the same bytes, the strings concerned changed ┘
//
// [New], then [Answer.Head] once, then [Answer.Write] for each chunk; [Answer.Abort] instead of the last Write if the response broke off.
//
// # Events
//
// The judges see events in the order of the response (plugins/ABI.md, section 5), each judge what the one before has left of them. How the bytes were cut makes no
// difference to the events, nor to the output. A response that is no stream gives the same events with whole texts, and is held until its end. Two things
// may be added to a text that is held back, besides the end of a choice:
//
//   - kind 4 without a reason: a text of the choice ends and another one begins (reasoning, then the answer), or the stream breaks
//     off. An edit of text 0 adds to the one that ends.
//   - kind 3 without text, id and name: the arguments of the call have ended. An edit of text 0 adds to them.
//
// In chat and completions, a choice is what the provider calls so. In responses, an item of the output is a choice: each of its texts ends with kind 4, with the
// reason "stop" for an answer (or why it is incomplete, where that is known by then), without one for reasoning; a call ends with the empty kind 3 alone. Later events of a stream of
// responses repeat texts; they are not judged again but made to say what has become of the texts.
//
// The end (kind 6) is told to every judge, also to those behind one that has denied the head. Usage (kind 5) is told once, with the last count that the provider gave, when nothing but the end is to come.
//
// Of a provider's error (a status other than 2xx) and of embeddings there are kinds 1, 5 and 6 alone, and the body passes as it comes.
//
// # What is changed
//
// What no judge edits goes out byte for byte. An edit puts another string in the place of the JSON string concerned, and takes the log probabilities and
// the annotated repetitions out that would tell the old one. An event of a stream in which nothing is left disappears. A call whose first event is dropped is dropped wholly, and
// those behind it move up.
//
// # What is refused
//
// What this package acts on has one reading or none: JSON as strict as package jsonscan is, keys that stand there once, strings where strings belong. Everything else is an
// [UnreadableError]: with a judge that fails closed the response ends there, else that part goes out as it is.
//
// Not judged: audio, images, annotations such as citations, and what a provider adds under names of its own.
package answer
