// SPDX-License-Identifier: Apache-2.0

//! Helpers of the host. A plugin that uses one needs its capability: `log`, `clock`, `regexp`, `pii`, `json`, `counters`, `tokens`.

#[cfg(target_arch = "wasm32")]
mod import {
    #[link(wasm_import_module = "weir")]
    extern "C" {
        pub fn log(level: i32, at: *const u8, len: usize);
        pub fn now() -> i64;
        pub fn find(pattern: *const u8, pattern_len: usize, text: *const u8, len: usize, out: *mut [u32; 2], max: usize) -> i32;
        pub fn scan(kinds: u32, text: *const u8, len: usize, out: *mut [u32; 3], max: usize) -> i32;
        pub fn json(text: *const u8, len: usize, path: *const u8, path_len: usize) -> i64;
        pub fn count(name: *const u8, len: usize, delta: i64, window: i64) -> i64;
        pub fn tokens() -> i64;
    }
}

/// Kinds of [`scan`].
pub mod kind {
    pub const EMAIL: u32 = 1;
    pub const CARD: u32 = 2;
    pub const IBAN: u32 = 4;
    pub const SSN: u32 = 8;
    pub const IPV4: u32 = 16;
    pub const PHONE: u32 = 32;
    pub const SECRET: u32 = 64;
    pub const ALL: u32 = 127;
}

/// Logs a line: level 0 debug, 1 info, 2 warn, 3 error.
#[cfg(target_arch = "wasm32")]
pub fn log(level: i32, line: &str) {
    unsafe { import::log(level, line.as_ptr(), line.len()) }
}

/// Nanoseconds since 1970, the same for the whole call.
#[cfg(target_arch = "wasm32")]
pub fn now() -> i64 {
    unsafe { import::now() }
}

/// An estimate of the tokens of the request's input; 0 if nothing is known, and for events. It is counted when this is called: some 15 µs for each KB.
#[cfg(target_arch = "wasm32")]
pub fn input_tokens() -> i64 {
    unsafe { import::tokens() }
}

/// The first `max` matches of a regular expression (RE2 syntax), as ranges of bytes; nothing if the pattern is wrong.
#[cfg(target_arch = "wasm32")]
pub fn find(pattern: &str, text: &str, max: usize) -> Option<Vec<core::ops::Range<usize>>> {
    let mut out = vec![[0u32; 2]; max];
    let n = unsafe { import::find(pattern.as_ptr(), pattern.len(), text.as_ptr(), text.len(), out.as_mut_ptr(), max) };
    let n = usize::try_from(n).ok()?;
    Some(out[..n].iter().map(|m| m[0] as usize..m[1] as usize).collect())
}

/// The first `max` pieces of personal data or secrets: range of bytes and kind.
#[cfg(target_arch = "wasm32")]
pub fn scan(kinds: u32, text: &str, max: usize) -> Vec<(core::ops::Range<usize>, u32)> {
    let mut out = vec![[0u32; 3]; max];
    let n = unsafe { import::scan(kinds, text.as_ptr(), text.len(), out.as_mut_ptr(), max) };
    out[..n as usize].iter().map(|m| (m[0] as usize..m[1] as usize, m[2])).collect()
}

/// A value in a JSON text, as it stands there, by a path such as `messages.0.content`.
#[cfg(target_arch = "wasm32")]
pub fn json<'a>(text: &'a [u8], path: &str) -> Option<&'a [u8]> {
    let r = unsafe { import::json(text.as_ptr(), text.len(), path.as_ptr(), path.len()) };
    if r < 0 {
        return None;
    }
    let (start, len) = ((r >> 32) as usize, (r & 0xffff_ffff) as usize);
    text.get(start..start + len)
}

/// A string in a JSON text, without its quotes and escapes, by a path.
#[cfg(target_arch = "wasm32")]
pub fn json_string(text: &[u8], path: &str) -> Option<String> {
    let value = core::str::from_utf8(json(text, path)?).ok()?;
    Some(unescaped(value.strip_prefix('"')?.strip_suffix('"')?))
}

/// What a JSON string stands for. A character beyond the first 65,536 is written as two escapes, so that it is put together in UTF-16.
#[cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]
fn unescaped(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    let mut units = Vec::new(); // of escapes that follow one another
    let mut rest = s;
    while let Some(at) = rest.find('\\') {
        if at > 0 {
            out.push_str(&String::from_utf16_lossy(&units));
            units.clear();
            out.push_str(&rest[..at]);
        }
        let mut after = rest[at + 1..].chars();
        units.push(match after.next() {
            Some('b') => 8,
            Some('f') => 12,
            Some('n') => 10,
            Some('r') => 13,
            Some('t') => 9,
            Some('u') => {
                let digits = after.as_str().get(..4).unwrap_or("");
                after = after.as_str()[digits.len()..].chars();
                u16::from_str_radix(digits, 16).unwrap_or(0xfffd)
            }
            Some(c) => c as u16, // a quote, a slash or a backslash
            None => 0xfffd,
        });
        rest = after.as_str();
    }
    out.push_str(&String::from_utf16_lossy(&units));
    out.push_str(rest);
    out
}

/// Adds to a counter of this tenant and returns its new value. It begins at 0 again every `window` milliseconds (0: never). Nothing if there is no room for another counter.
#[cfg(target_arch = "wasm32")]
pub fn count(name: &str, delta: i64, window: i64) -> Option<i64> {
    match unsafe { import::count(name.as_ptr(), name.len(), delta, window) } {
        i64::MIN => None,
        n => Some(n),
    }
}
