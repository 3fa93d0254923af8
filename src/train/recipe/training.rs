//! The options that all stages have which take gradient steps.

use serde::{Deserialize, Serialize};

use super::defaults::is_default;
use super::slot::Slot;

/// The shape of the learning rate after warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Stays.
    Constant,
    /// Falls in a straight line.
    #[default]
    Linear,
    /// Falls as half a cosine.
    Cosine,
}

/// How the factors of matrix products are held while they are multiplied; sums are of 32 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bfloat16 (8 significant bits), faster on CPUs that have AVX-512 BF16, and still
    /// more so with AMX; as they are on others.
    Bf16,
}

/// Averaging of weights over the last part of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Average {
    /// Begins at this part of the stage, 0 … 1.
    pub start: f64,
    /// A sample every so many steps.
    #[serde(default = "default_average_every")]
    pub every: usize,
    /// A moving average with this decay; the plain mean without it.
    #[serde(default)]
    pub decay: Option<f64>,
}

/// What training stages have in common.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Which model is trained.
    #[serde(default)]
    pub model: Slot,
    /// Names of training data.
    #[serde(default)]
    pub data: Vec<String>,
    /// Gradient steps.
    #[serde(default)]
    pub steps: usize,
    /// Ends after this much time even if steps are left; the learning rate follows whichever of
    /// both is further. A stage that reaches this limit is not repeatable to the bit.
    #[serde(default)]
    pub minutes: Option<f64>,
    /// Pairs or triples of one step; `distill`: groups of up to four sentences that belong together.
    #[serde(default = "default_batch")]
    pub batch: usize,
    /// Peak learning rate.
    #[serde(default = "default_learning_rate")]
    pub learning_rate: f64,
    /// Part of the stage in which the learning rate rises.
    #[serde(default = "default_warmup")]
    pub warmup: f64,
    /// How it falls.
    #[serde(default)]
    pub decay: Decay,
    /// What is left of it at the end.
    #[serde(default)]
    pub final_fraction: f64,
    /// Decoupled weight decay.
    #[serde(default = "default_weight_decay")]
    pub weight_decay: f64,
    /// Dropout of states and attention.
    #[serde(default)]
    pub dropout: f32,
    /// Word embeddings stay.
    #[serde(default)]
    pub freeze_word_embeddings: bool,
    /// All embeddings stay.
    #[serde(default)]
    pub freeze_embeddings: bool,
    /// This many lowest layers stay.
    #[serde(default)]
    pub freeze_layers: usize,
    /// `bf16`: linear layers round their factors to bfloat16, which is up to twice as fast on CPUs
    /// with AVX-512 BF16; others compute in 32 bits all the same.
    #[serde(default, skip_serializing_if = "is_default")]
    pub precision: Precision,
    /// Bits of weights in quantization-aware training, 4 to 8; 7 is what ships.
    #[serde(default)]
    pub quantize_bits: Option<u8>,
    /// Averaging of weights.
    #[serde(default)]
    pub average: Option<Average>,
    /// Dev sets are looked at before the first and every so many steps; without it only at the end.
    #[serde(default)]
    pub evaluate_every: Option<usize>,
    /// A checkpoint every so many steps, besides those by time.
    #[serde(default)]
    pub checkpoint_every: Option<usize>,
}

fn default_average_every() -> usize {
    10
}

fn default_batch() -> usize {
    32
}

fn default_learning_rate() -> f64 {
    5e-5
}

fn default_warmup() -> f64 {
    0.1
}

fn default_weight_decay() -> f64 {
    0.01
}
