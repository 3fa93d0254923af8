//! Bindings for JavaScript: what `pkg/` calls.
//!
//! Every export is synchronous and takes plain values; work that waits (fetch, cache, digest,
//! messages) is JavaScript's. An `async fn` that borrows an exported object would fail with
//! "recursive use of an object" as soon as a second call came in before the first one ended.
//!
//! Errors are thrown as JavaScript `Error` objects with a `code` ([`crate::ErrorKind::code`]). A
//! panic ends in a trap: the instance must not be used again, and `pkg/` replaces it.

mod encoder;
mod error;
mod index;
mod loader;

use wasm_bindgen::prelude::*;

/// Runs once when the module is instantiated: panics are printed to the console with their place.
#[wasm_bindgen(start)]
pub fn start() {
    console_error_panic_hook::set_once();
}

/// The SHA-256 of `bytes` in lower-case hex, for pages without `crypto.subtle` (plain http).
#[wasm_bindgen]
pub fn sha256(bytes: &[u8]) -> String {
    crate::hash::sha256_hex(bytes)
}
