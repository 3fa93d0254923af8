//! Korean sentence embeddings, computed where the text is.

#[cfg(all(feature = "train", target_arch = "wasm32"))]
compile_error!("the `train` feature is native only: build for wasm32 with --no-default-features");

mod bytes;
pub mod config;
#[cfg(feature = "cli")]
pub mod convert;
mod error;
#[cfg(feature = "cli")]
pub mod eval;
pub mod format;
pub mod kernels;
pub mod model;
pub mod quant;
pub mod search;
pub mod tokenizer;
#[cfg(feature = "train")]
pub mod train;
#[cfg(target_arch = "wasm32")]
mod wasm;
pub mod weights;

pub use bytes::AlignedBytes;
pub use config::ModelConfig;
pub use error::{Error, ErrorKind, Result};
pub use model::{Encoded, Encoder, ModelInfo};
