// SPDX-License-Identifier: Apache-2.0

// Package bpe counts the tokens of a text as OpenAI's encodings cl100k_base and o200k_base make them, exactly, without making them.
//
// An encoding is a pattern that cuts a text into pieces, and byte pair encoding (BPE) of each piece: its bytes are the first
// tokens, and as long as any two neighbours make up a token of the vocabulary, those are joined whose token has the lowest rank,
// the leftmost first. What this package counts is what tiktoken 0.14 returns, for every text of valid UTF-8; internal/tokens/bpe/oracle compares the two.
//
// # How it is done
//
//	split.go       the two patterns, by hand: a regular expression would be 10 times slower, and quadratic on some texts
//	classes.go     the classes of characters that they name, of Unicode 16
//	vocabulary.go  tables: which pieces are a token, and which pairs of tokens make one
//	merge.go       short pieces: the lowest pair is looked for anew after each join
//	queue.go       long pieces: a queue of pairs with one bucket for each rank
//
// Two facts about these vocabularies make this short; gen checks them when it writes the embedded files. Every token is what BPE
// makes of its own bytes, so a piece that is a token needs no joining. And whenever two neighbours make up a token, they are the two
// that its own encoding ends with, so pairs can be looked up by the tokens' numbers in place of their bytes. It follows that the
// pairs which a join brings about have higher ranks than its own, so that the ranks of joins only rise, and the queue needs neither a heap nor sorting: all is linear in the length of the text.
//
// # Costs
//
// A count allocates nothing. English takes some 15 ns a byte, and the worst text 90. The first count with an encoding loads its tables, which takes
// 65 ms for o200k_base and 20 ms for cl100k_base, and keeps 9 MB and 4.6 MB; see [Encoding.Load]. A piece above 64 bytes takes 24 bytes of
// memory for each of its own and 0.8 MB for the buckets, from a pool; pieces above 64 KiB, which no honest text has, take turns.
package bpe

//go:generate go run ./gen
