//! Korean sentence embeddings, computed where the text is: in a web page, in Node or natively.
//!
//! A model file goes in as bytes; text becomes unit vectors of `hidden_size` values, whose dot
//! product is the cosine similarity:
//!
//! ```
//! use munjang::{Encoder, search::similarity_matrix};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/munjang-ko-small.munjang");
//! let encoder = Encoder::from_bytes(std::fs::read(path)?)?;
//! let encoded = encoder.encode_batch(&["비가 옵니다.", "밖에 비가 내려요.", "주가가 올랐다."])?;
//!
//! let n = encoder.config().hidden_size;
//! assert_eq!(encoded.embeddings.len(), 3 * n);
//! let scores = similarity_matrix(&encoded.embeddings, &encoded.embeddings, n);
//! assert!(scores[1] > scores[2], "rain is more like rain than like shares");
//! # Ok(())
//! # }
//! ```
//!
//! An embedding is the same bits alone or in any batch, in every SIMD build and on every machine. The way
//! of the data is [`tokenizer`] → [`model`] → [`search`]; a model file is described in
//! [`format`](mod@format) and made from a Hugging Face checkpoint by `convert` (feature `cli`) or
//! by training (feature `train`, native only).
//!
//! # Features
//! None is on by default: the library alone loads the shipped model and models like it, and encodes
//! and searches. `cli`: the command line, checkpoint conversion and evaluation. `parallel` (in `cli`):
//! batches over the threads of a rayon pool. `general-tokenizers` (in `cli`): tokenizers of every
//! kind; without it only Unigram ones like the shipped model's. `train`: the training recipe on
//! candle. `cuda`: training on an NVIDIA GPU. For WebAssembly build without features, or with
//! `general-tokenizers` if it is needed.

#[cfg(all(feature = "train", target_arch = "wasm32"))]
compile_error!("the `train` feature is native only");

mod bytes;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod config;
#[cfg(feature = "cli")]
pub mod convert;
mod error;
#[cfg(feature = "cli")]
pub mod eval;
#[cfg(not(target_arch = "wasm32"))]
#[doc(hidden)]
pub mod files;
pub mod format;
mod hash;
pub mod index;
mod kernels;
pub mod model;
mod quant;
pub mod search;
#[cfg(feature = "cli")]
#[cfg_attr(not(feature = "train"), allow(dead_code))]
mod table;
pub mod tokenizer;
#[cfg(feature = "train")]
pub mod train;
#[cfg(target_arch = "wasm32")]
mod wasm;
pub mod weights;

/// For this crate's own benches, tests and fuzz targets; no part of its API.
#[doc(hidden)]
pub mod internals {
    pub use crate::bytes::SharedSlice;

    pub mod kernels {
        pub use crate::kernels::*;
    }
    pub mod quant {
        pub use crate::quant::*;
    }
}

pub use bytes::AlignedBytes;
pub use config::ModelConfig;
pub use error::{Error, ErrorKind, Result};
#[cfg(not(target_arch = "wasm32"))]
pub use model::Manifest;
pub use model::{Encoded, Encoder, ModelInfo};
