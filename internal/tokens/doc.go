// SPDX-License-Identifier: Apache-2.0

// Package tokens says how many tokens a request will be billed for, before it is sent: to reserve money for it, and to hold it to limits.
//
// [Request.Count] counts texts with the encoding of the model; [Request.Bound] takes each byte for a token, which no vocabulary made of bytes
// exceeds, and is enough where the budget is ample. Both walk the body once, build nothing, and fetch nothing. Both say how good each number is:
//
//	Input   what the provider will most probably bill; [Size.Grade] says whether that is exact
//	Most    what it will not exceed, as far as its rules are known, unless [Size.Open] is set
//	Output  the limits on the answer that the request sets itself
//
// # What is exact
//
// For models of OpenAI whose encoding is published:
//
//   - embeddings and completions: texts and lists of tokens;
//   - chats of GPT-3.5, GPT-4 and GPT-4o that have nothing but text: their frame, three tokens for a message and three for the answer, is
//     published too (https://github.com/openai/openai-cookbook, How_to_count_tokens_with_tiktoken).
//
// # What is an estimate
//
//   - chats and responses of later models: texts are exact, the frame is that of GPT-4o;
//   - tools: the cookbook's rule, applied to nested schemas as well;
//   - images, by the tiles or patches that the provider cuts them into; the size is read from the first bytes of an image that is in the body.
//     An image elsewhere counts as one of the largest size;
//   - audio, 10 tokens a second, and files;
//   - models whose vocabulary is not published, all that are not OpenAI's: as if they used o200k_base.
//
// # What is a bound
//
// Most allows for what is not known: 8 tokens around each message, 64 around a request, 640 for instructions that some providers add when there are
// tools, each byte of text a token where the vocabulary is not known, and likewise for each member that this package has no rule for.
// A request that refers to what is kept elsewhere, such as the response before it or a file, is [Size.Open]: only the model's context window bounds it.
//
// # Large bodies
//
// The first [CountedText] bytes of text are counted. What comes after is taken to have as many tokens to a byte as that had, and counts
// in Most with each byte. So a body costs at most some 100 ms, whatever is in it, and 13 ms if it is prose.
package tokens
