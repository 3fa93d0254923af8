//! The model file on its way in: chunks are copied once, to where the encoder will read them.

use js_sys::Uint8Array;
use wasm_bindgen::prelude::*;

use super::encoder::Encoder;
use super::error::{coded, to_js};
use crate::bytes::AlignedBytes;
use crate::error::{Error, ErrorKind};
use crate::hash::sha256_hex;

/// Memory for one model file, reserved in full before its first byte arrives.
///
/// WebAssembly memory never shrinks, so a file that were collected in pieces and then joined would
/// cost its size twice for the life of the page.
#[wasm_bindgen]
pub struct ModelBuffer {
    bytes: AlignedBytes,
    received: usize,
}

#[wasm_bindgen]
impl ModelBuffer {
    /// Reserves `total_bytes`.
    ///
    /// Throws `out_of_memory` if the page cannot have that much, `input_invalid` if the size is not
    /// a whole number of at least 1.
    #[wasm_bindgen(constructor)]
    pub fn new(total_bytes: f64) -> Result<ModelBuffer, JsValue> {
        if !(total_bytes >= 1.0 && total_bytes.fract() == 0.0) {
            return Err(to_js(Error::new(
                ErrorKind::InputInvalid,
                format!(
                    "a model of {total_bytes} bytes was announced; expected a whole number of at least 1"
                ),
            )));
        }
        // A size past the address space saturates and then fails to be reserved.
        let bytes = AlignedBytes::try_zeroed(total_bytes as usize).ok_or_else(|| {
            coded(
                "out_of_memory",
                &format!(
                    "no memory for a model of {total_bytes} bytes; close other pages or use a smaller model"
                ),
            )
        })?;
        Ok(ModelBuffer { bytes, received: 0 })
    }

    /// Copies the next chunk of the file into place.
    ///
    /// Throws `weights_mismatch` if the chunks together exceed the announced size.
    pub fn push(&mut self, chunk: &Uint8Array) -> Result<(), JsValue> {
        let length = chunk.length() as usize;
        let total = self.total();
        let free = &mut self.bytes.as_mut_slice()[self.received..];
        let Some(target) = free.get_mut(..length) else {
            return Err(to_js(Error::new(
                ErrorKind::WeightsMismatch,
                format!(
                    "the model file goes on after the {total} bytes that were announced (got {} so far)",
                    self.received + length
                ),
            )));
        };
        chunk.copy_to(target);
        self.received += length;
        Ok(())
    }

    /// Bytes received so far.
    #[wasm_bindgen(getter)]
    pub fn received(&self) -> usize {
        self.received
    }

    /// Bytes announced.
    #[wasm_bindgen(getter)]
    pub fn total(&self) -> usize {
        self.bytes.as_slice().len()
    }

    /// Where the bytes begin in the instance's memory. A view made from it holds until the memory
    /// grows, so it must be made anew for each use.
    #[wasm_bindgen(getter)]
    pub fn offset(&self) -> usize {
        self.bytes.as_slice().as_ptr() as usize
    }

    /// The SHA-256 of the bytes received so far, in lower-case hex.
    pub fn sha256(&self) -> String {
        sha256_hex(&self.bytes.as_slice()[..self.received])
    }

    /// Checks the file and makes an encoder that reads the weights where they lie; the buffer is empty
    /// afterwards. After an error of the tokenizer alone it still holds the file, so that an instance
    /// that has other tokenizers can take it over.
    ///
    /// Throws `weights_truncated` if fewer bytes came than were announced, and whatever
    /// [`crate::Encoder::from_bytes`] finds wrong.
    pub fn finish(&mut self) -> Result<Encoder, JsValue> {
        if self.received != self.total() {
            return Err(to_js(Error::new(
                ErrorKind::WeightsTruncated,
                format!(
                    "the model file ended after {} of {} bytes; load it again",
                    self.received,
                    self.total()
                ),
            )));
        }
        let bytes = std::mem::replace(&mut self.bytes, AlignedBytes::zeroed(0));
        self.received = 0;
        Encoder::from_bytes(bytes).map_err(|(error, bytes)| {
            if let Some(bytes) = bytes {
                self.received = bytes.as_slice().len();
                self.bytes = bytes;
            }
            error
        })
    }
}
