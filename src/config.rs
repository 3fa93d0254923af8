//! The sizes and choices that define a model.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The non-linearity of the feed-forward layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Activation {
    /// `x · Φ(x)` with the exact normal distribution function (BERT's `gelu`).
    Gelu,
    /// The tanh approximation (`gelu_new`, `gelu_pytorch_tanh`).
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

/// How token states become one sentence embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Pooling {
    /// The mean over all of the sentence's tokens, special tokens included.
    Mean,
    /// The state of the first token.
    Cls,
}

/// The configuration stored in a model file.
///
/// Names follow Hugging Face's BERT configuration. `max_position_embeddings` counts *usable*
/// positions: for RoBERTa checkpoints the converter has already removed the offset rows, and
/// token-type embeddings are folded into the position embeddings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Where the weights came from: `bert`, `roberta`, `xlm-roberta`, `distilbert`.
    pub model_type: String,
    /// Rows of the word embedding.
    pub vocab_size: usize,
    /// Width of a token state and of the sentence embedding.
    pub hidden_size: usize,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Usable positions: the largest number of tokens of one sentence, special tokens included.
    pub max_position_embeddings: usize,
    /// Added to the variance in layer normalization: 1e-12 to 1.
    pub layer_norm_eps: f32,
    /// The feed-forward non-linearity.
    pub hidden_act: Activation,
    /// How token states become one vector.
    pub pooling: Pooling,
    /// Put before every text by the encoder, such as `"query: "`; empty for none.
    #[serde(default)]
    pub prefix: String,
}

/// Upper bounds of what this build runs. They keep a hostile file from asking for absurd sizes and
/// the integer sums of the kernels inside 32 bits (see `docs/DESIGN.md`).
pub mod limits {
    /// Largest `hidden_size`.
    pub const HIDDEN_SIZE: usize = 4096;
    /// Largest `intermediate_size`; 127 · 127 · 16384 < 2³¹.
    pub const INTERMEDIATE_SIZE: usize = 16384;
    /// Largest `num_hidden_layers`.
    pub const NUM_HIDDEN_LAYERS: usize = 64;
    /// Largest `vocab_size`.
    pub const VOCAB_SIZE: usize = 1 << 20;
    /// Largest `max_position_embeddings`: attention weights (up to 8192) times values (up to 255) over
    /// this many keys stay below 2³¹.
    pub const MAX_POSITION_EMBEDDINGS: usize = 1024;
    /// Largest width of one attention head: two 12-bit factors over this many terms, and the
    /// difference of two such sums, stay below 2³¹.
    pub const HEAD_SIZE: usize = 256;
    /// Of `layer_norm_eps`: what published models use lies well within. Without a smallest one the row
    /// of equal values would be divided by zero.
    pub const LAYER_NORM_EPS: std::ops::RangeInclusive<f32> = 1e-12..=1.0;
    /// Longest `prefix` in bytes.
    pub const PREFIX_BYTES: usize = 1024;
}

impl ModelConfig {
    /// Width of one attention head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Checks every field against [`limits`] and the others.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`](crate::ErrorKind::ConfigInvalid), naming the field, its value and what was expected.
    pub fn validate(&self) -> Result<()> {
        let in_range = |name: &str, value: usize, max: usize| {
            if (1..=max).contains(&value) {
                Ok(())
            } else {
                Err(Error::config_invalid(format!("{name} is {value}; expected 1 to {max}")))
            }
        };
        in_range("vocab_size", self.vocab_size, limits::VOCAB_SIZE)?;
        in_range("hidden_size", self.hidden_size, limits::HIDDEN_SIZE)?;
        in_range("num_hidden_layers", self.num_hidden_layers, limits::NUM_HIDDEN_LAYERS)?;
        in_range("num_attention_heads", self.num_attention_heads, self.hidden_size)?;
        in_range("intermediate_size", self.intermediate_size, limits::INTERMEDIATE_SIZE)?;
        in_range(
            "max_position_embeddings",
            self.max_position_embeddings,
            limits::MAX_POSITION_EMBEDDINGS,
        )?;
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(Error::config_invalid(format!(
                "hidden_size {} is not a multiple of num_attention_heads {}",
                self.hidden_size, self.num_attention_heads
            )));
        }
        in_range("hidden_size / num_attention_heads", self.head_size(), limits::HEAD_SIZE)?;
        if !limits::LAYER_NORM_EPS.contains(&self.layer_norm_eps) {
            return Err(Error::config_invalid(format!(
                "layer_norm_eps is {:e}; expected {:e} to {}",
                self.layer_norm_eps,
                limits::LAYER_NORM_EPS.start(),
                limits::LAYER_NORM_EPS.end()
            )));
        }
        if self.prefix.len() > limits::PREFIX_BYTES {
            return Err(Error::config_invalid(format!(
                "prefix has {} bytes; at most {} are allowed",
                self.prefix.len(),
                limits::PREFIX_BYTES
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn layer_norm_eps_has_bounds() {
        let config = |layer_norm_eps| ModelConfig {
            model_type: "bert".into(),
            vocab_size: 10,
            hidden_size: 16,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 16,
            max_position_embeddings: 8,
            layer_norm_eps,
            hidden_act: Activation::Gelu,
            pooling: Pooling::Mean,
            prefix: String::new(),
        };
        for eps in [1e-12, 1e-7, 1e-5, 1.0] {
            config(eps).validate().unwrap();
        }
        for eps in [0.0, -0.0, 9.9e-13, 1e-45, -1e-5, 1.001, f32::INFINITY, f32::NAN, -f32::NAN] {
            let error = config(eps).validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
            assert!(error.to_string().contains("expected 1e-12 to 1"), "{error}");
        }
    }
}
