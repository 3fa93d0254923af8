//! The encoder.
use crate::bytes::AlignedBytes;
use crate::config::ModelConfig;
use crate::error::Result;

/// What a loaded model is.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// The model id: 16 hex digits of a hash over the model's content.
    pub model_id: String,
    /// Version of the file format.
    pub format_version: u32,
    /// Size of the model file in bytes.
    pub bytes: usize,
    /// Name of the SIMD kernels in use: `scalar`, `simd128`, `relaxed`, `avx2`, ….
    pub kernel: &'static str,
    /// Sizes and choices.
    pub config: ModelConfig,
}

/// Embeddings of a batch and what happened to its texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// `n × hidden_size`, row-major, in input order, each row of length 1.
    pub embeddings: Vec<f32>,
    /// Tokens of each text before truncation, prefix and special tokens included.
    pub token_counts: Vec<u32>,
    /// For each text whether tokens were cut off (`token_counts[i] > max_position_embeddings`).
    pub truncated: Vec<bool>,
}

/// A sentence encoder.
pub struct Encoder {}

impl Encoder {
    /// Checks a model file and readies it.
    pub fn from_bytes(_bytes: impl Into<AlignedBytes>) -> Result<Self> {
        unreachable!("written next")
    }
    /// What was loaded.
    pub fn info(&self) -> ModelInfo {
        unreachable!("written next")
    }
    /// The sentence embedding of `text`, `hidden_size` values of length 1.
    pub fn encode(&self, _text: &str) -> Result<Vec<f32>> {
        unreachable!("written next")
    }
    /// The embeddings of many texts, in input order, with a truncation report.
    pub fn encode_batch<S: AsRef<str> + Sync>(&self, _texts: &[S]) -> Result<Encoded> {
        unreachable!("written next")
    }
    /// Embeddings of token ids (special tokens included by the caller), `n × hidden_size`.
    pub fn encode_ids<I: AsRef<[u32]> + Sync>(&self, _batch: &[I]) -> Result<Vec<f32>> {
        unreachable!("written next")
    }
    /// Tokens of `text` before truncation, prefix and special tokens included.
    pub fn count_tokens(&self, _text: &str) -> Result<usize> {
        unreachable!("written next")
    }
}
