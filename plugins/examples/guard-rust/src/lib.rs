// SPDX-License-Identifier: Apache-2.0

//! Refuses prompts with words of its configuration (one a line), and tags the others with their length.

use std::sync::OnceLock;
use weir_plugin::{Exchange, Verdict};

static WORDS: OnceLock<Vec<String>> = OnceLock::new();

fn configure(config: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(config).map_err(|_| "the configuration is not UTF-8".to_string())?;
    let words: Vec<String> = text.lines().map(str::trim).filter(|w| !w.is_empty()).map(String::from).collect();
    WORDS.set(words).map_err(|_| "configured twice".to_string())
}

fn request(x: &Exchange) -> Verdict {
    let words = WORDS.get().map(Vec::as_slice).unwrap_or(&[]);
    let mut length = 0;
    for t in x.texts() {
        length += t.text.len();
        if words.iter().any(|w| t.contains(w)) {
            return Verdict::deny(403, "forbidden_word", "This prompt has a word that is not allowed here.");
        }
    }
    Verdict::go_on().tag("prompt_bytes", &length.to_string())
}

weir_plugin::plugin!(configure: configure, request: request);
