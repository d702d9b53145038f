// SPDX-License-Identifier: Apache-2.0

//! Plugins for Weir, in Rust. A plugin is a function from a request, or a part of a response, to a verdict:
//!
//! ```ignore
//! use weir_plugin::{Exchange, Verdict};
//!
//! fn request(x: &Exchange) -> Verdict {
//!     if x.texts().any(|t| t.contains("PRIVATE KEY")) {
//!         return Verdict::deny(403, "no_secrets", "Take the key out of the prompt.");
//!     }
//!     Verdict::go_on()
//! }
//! weir_plugin::plugin!(request: request);
//! ```
//!
//! Build it with `crate-type = ["cdylib"]` for `wasm32-unknown-unknown`. Nothing that a call leaves in memory is there in the next one; what has to last goes into
//! [`Verdict::state`]. What `configure` stores lasts: it runs before the memory is frozen. The interface is plugins/ABI.md of Weir.

mod given;
pub mod host;
mod search;
mod verdict;

pub use given::{Event, Exchange, Fields, Header, Kind, Message, Text, Tool, ToolCall, Usage};
pub use search::{contains, find};
pub use verdict::Verdict;

/// Exports a plugin's functions: `configure: fn(&[u8]) -> Result<(), String>`, `request: fn(&Exchange) -> Verdict`, `event: fn(&Event) -> Verdict`. Export only
/// what you need: without `event`, the response never leaves the proxy.
#[macro_export]
macro_rules! plugin {
    ($($hook:ident : $f:path),+ $(,)?) => {
        #[no_mangle]
        pub extern "C" fn weir_abi_1() {}

        #[no_mangle]
        pub extern "C" fn weir_alloc(size: u32) -> *mut u8 {
            $crate::raw::alloc(size)
        }

        $($crate::hook!($hook, $f);)+
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! hook {
    (configure, $f:path) => {
        /// # Safety
        /// Called by the host with what weir_alloc gave.
        #[no_mangle]
        pub unsafe extern "C" fn weir_configure(at: *const u8, len: u32) -> u64 {
            let f: fn(&[u8]) -> Result<(), String> = $f;
            match f(unsafe { $crate::raw::input(at, len) }) {
                Ok(()) => 0,
                Err(why) => $crate::raw::answer(why.into_bytes()),
            }
        }
    };
    (request, $f:path) => {
        /// # Safety
        /// Called by the host with what weir_alloc gave.
        #[no_mangle]
        pub unsafe extern "C" fn weir_request(at: *const u8, len: u32) -> u64 {
            let f: fn(&$crate::Exchange) -> $crate::Verdict = $f;
            $crate::raw::answer(f(&$crate::Exchange::new(unsafe { $crate::raw::input(at, len) })).into_bytes())
        }
    };
    (event, $f:path) => {
        /// # Safety
        /// Called by the host with what weir_alloc gave.
        #[no_mangle]
        pub unsafe extern "C" fn weir_event(at: *const u8, len: u32) -> u64 {
            let f: fn(&$crate::Event) -> $crate::Verdict = $f;
            $crate::raw::answer(f(&$crate::Event::new(unsafe { $crate::raw::input(at, len) })).into_bytes())
        }
    };
}

#[doc(hidden)]
pub mod raw {
    /// Room for the input. It is never freed: the memory is put back after the call.
    pub fn alloc(size: u32) -> *mut u8 {
        let mut room = core::mem::ManuallyDrop::new(Vec::<u8>::with_capacity(size as usize));
        room.as_mut_ptr()
    }

    /// # Safety
    /// The host has written so many bytes there.
    pub unsafe fn input<'a>(at: *const u8, len: u32) -> &'a [u8] {
        if len == 0 {
            return &[];
        }
        unsafe { core::slice::from_raw_parts(at, len as usize) }
    }

    /// Hands bytes over to the host.
    pub fn answer(bytes: Vec<u8>) -> u64 {
        if bytes.is_empty() {
            return 0;
        }
        let bytes = core::mem::ManuallyDrop::new(bytes);
        (bytes.as_ptr() as usize as u64) << 32 | bytes.len() as u64
    }
}
