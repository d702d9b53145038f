// SPDX-License-Identifier: Apache-2.0

// Refuses prompts with words of its configuration (one a line), and tags the others with their length.

import { Bytes, Exchange, Verdict } from "../../../sdk/assemblyscript/weir";
export { weir_abi_1, weir_alloc } from "../../../sdk/assemblyscript/weir";

let words: string[] = [];

export function weir_configure(at: usize, length: i32): u64 {
  words = new Bytes(at, length).text().split("\n").map<string>((w) => w.trim()).filter((w) => w.length > 0);
  return 0;
}

export function weir_request(at: usize, length: i32): u64 {
  const texts = new Exchange(at, length).texts;
  let bytes = 0;
  for (let i = 0; i < texts.length; i++) {
    bytes += String.UTF8.byteLength(texts[i].text);
    for (let j = 0; j < words.length; j++) {
      if (texts[i].text.includes(words[j])) {
        return Verdict.deny(403, "forbidden_word", "This prompt has a word that is not allowed here.").answer();
      }
    }
  }
  return Verdict.goOn().tag("prompt_bytes", bytes.toString()).answer();
}
