//! The sizes and choices that define a model.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The non-linearity of the feed-forward layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Activation {
    /// `x · Φ(x)` with the exact normal distribution function (BERT's `gelu`).
    #[default]
    Gelu,
    /// The tanh approximation (`gelu_new`, `gelu_pytorch_tanh`).
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

/// How token states become one sentence embedding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Pooling {
    /// The mean over all of the sentence's tokens, special tokens included.
    #[default]
    Mean,
    /// The state of the first token.
    Cls,
}

/// Which end of a text is cut off if it has more tokens than the model takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TruncationSide {
    /// The beginning is kept.
    #[default]
    Right,
    /// The end is kept, special tokens included; the prefix is cut off first.
    Left,
}

impl TruncationSide {
    /// `right` or `left`.
    pub fn name(self) -> &'static str {
        match self {
            TruncationSide::Right => "right",
            TruncationSide::Left => "left",
        }
    }

    fn is_default(&self) -> bool {
        *self == TruncationSide::default()
    }
}

/// The non-linearity of a dense module after pooling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DenseActivation {
    /// None.
    #[default]
    Identity,
    /// The hyperbolic tangent.
    Tanh,
    /// `max(x, 0)`.
    Relu,
    /// `1 / (1 + exp(−x))`.
    Sigmoid,
    /// `x · Φ(x)` with the normal distribution function.
    Gelu,
}

/// A step between pooling and the embedding, a module of sentence-transformers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type", deny_unknown_fields)]
#[non_exhaustive]
pub enum AfterPooling {
    /// `activation(weight · x + bias)`.
    Dense {
        /// Values that go in.
        in_features: usize,
        /// Values that come out.
        out_features: usize,
        /// What is done to each of them.
        activation: DenseActivation,
    },
    /// Division by the length.
    Normalize,
}

/// The configuration stored in a model file.
///
/// Names follow Hugging Face's BERT configuration. `max_position_embeddings` counts *usable*
/// positions: for RoBERTa checkpoints the converter has already removed the offset rows, and
/// token-type embeddings are folded into the position embeddings.
///
/// Fields beyond `prefix` are written only where they say something, so a model that needs none of
/// them has the same bytes and the same id as before they were there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Where the weights came from: `bert`, `roberta`, `xlm-roberta`, `distilbert`, `electra`.
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
    /// Names of prefixes that the model was trained with, such as `query`; for information. `prefix` is
    /// the one in use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prompts: BTreeMap<String, String>,
    /// Which end of too long a text is cut off.
    #[serde(default, skip_serializing_if = "TruncationSide::is_default")]
    pub truncation_side: TruncationSide,
    /// RoBERTa counts positions over the tokens that are not this one, which has a position of its
    /// own. `None`: every token counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad_token_id: Option<u32>,
    /// Width of the embeddings where it is not `hidden_size` (ELECTRA): a linear layer follows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding_size: Option<usize>,
    /// What happens to the pooled states, in order. Division by the length always comes last and is
    /// not listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after_pooling: Vec<AfterPooling>,
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
    /// Longest `prefix`, and longest prompt or name of one, in bytes.
    pub const PREFIX_BYTES: usize = 1024;
    /// Most `prompts`.
    pub const PROMPTS: usize = 64;
    /// Most steps `after_pooling`.
    pub const AFTER_POOLING: usize = 8;
}

impl ModelConfig {
    /// Width of one attention head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Width of a token's embedding, before the projection to `hidden_size` if there is one.
    pub fn embedding_width(&self) -> usize {
        self.embedding_size.unwrap_or(self.hidden_size)
    }

    /// Values of a sentence embedding: `hidden_size`, or what the last dense module gives.
    pub fn dimension(&self) -> usize {
        let dense = |step: &AfterPooling| match step {
            AfterPooling::Dense { out_features, .. } => Some(*out_features),
            AfterPooling::Normalize => None,
        };
        self.after_pooling.iter().rev().find_map(dense).unwrap_or(self.hidden_size)
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
        self.validate_additions()
    }

    /// The fields that only some models have.
    fn validate_additions(&self) -> Result<()> {
        let in_range = |name: &str, value: usize, max: usize| {
            if (1..=max).contains(&value) {
                Ok(())
            } else {
                Err(Error::config_invalid(format!("{name} is {value}; expected 1 to {max}")))
            }
        };
        if self.prompts.len() > limits::PROMPTS {
            return Err(Error::config_invalid(format!(
                "it has {} prompts; at most {} are allowed",
                self.prompts.len(),
                limits::PROMPTS
            )));
        }
        for (name, prompt) in &self.prompts {
            if name.len().max(prompt.len()) > limits::PREFIX_BYTES {
                return Err(Error::config_invalid(format!(
                    "prompt {:.20?} has {} bytes; at most {} are allowed",
                    name,
                    name.len().max(prompt.len()),
                    limits::PREFIX_BYTES
                )));
            }
        }
        if self.pad_token_id.is_some_and(|id| id as usize >= limits::VOCAB_SIZE) {
            return Err(Error::config_invalid(format!(
                "pad_token_id is {}; expected less than {}",
                self.pad_token_id.unwrap_or_default(),
                limits::VOCAB_SIZE
            )));
        }
        if let Some(size) = self.embedding_size {
            in_range("embedding_size", size, limits::HIDDEN_SIZE)?;
        }
        in_range(
            "after_pooling's steps + 1",
            self.after_pooling.len() + 1,
            limits::AFTER_POOLING + 1,
        )?;
        let mut width = self.hidden_size;
        for step in &self.after_pooling {
            if let &AfterPooling::Dense { in_features, out_features, .. } = step {
                in_range("out_features", out_features, limits::HIDDEN_SIZE)?;
                if in_features != width {
                    return Err(Error::config_invalid(format!(
                        "a dense module takes {in_features} values; {width} come to it"
                    )));
                }
                width = out_features;
            }
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
            ..ModelConfig::default()
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
