//! A differentiable BERT: the model of [`crate::weights::FloatModel`] with gradients.
//!
//! On the CPU the whole encoder runs through the fused operations of [`super::ops`] on packed rows
//! (one row per token, no padding) and keeps a tape of what the backward pass needs. On other
//! devices the same model is composed from candle's differentiable operations on padded batches.
//! Both give the same [`ForwardOutput`], and [`BertModel::backward`] hides the difference:
//!
//! ```ignore
//! let a = model.forward(&batch_a, &ForwardOptions::training())?;
//! let b = model.forward(&batch_b, &ForwardOptions::training())?;
//! let loss = losses::cosine_mse(&a.pooled, &b.pooled, &scores)?;
//! let gradients = model.backward(&loss, vec![a, b])?;
//! optimizer.step(model.parameters(), &gradients, schedule.learning_rate(step))?;
//! ```

use std::collections::HashMap;

use candle_core::{Device, Tensor, Var};

use crate::config::ModelConfig;
use crate::error::Result;
use crate::weights::FloatModel;

/// Sentences as token ids, one after another without padding; the order is kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenBatch {
    ids: Vec<u32>,
    offsets: Vec<usize>,
}

impl TokenBatch {
    /// A batch of `sequences`, each with at least one token.
    ///
    /// # Errors
    /// `input_invalid` for an empty batch or an empty sequence, naming its index.
    pub fn new<S: AsRef<[u32]>>(_sequences: &[S]) -> Result<Self> {
        todo!()
    }

    /// All ids, sentence after sentence.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// `num_sentences + 1` positions in [`TokenBatch::ids`] where sentences begin and end.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// Number of sentences.
    pub fn num_sentences(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Number of tokens of all sentences.
    pub fn num_tokens(&self) -> usize {
        self.ids.len()
    }
}

/// A named weight of a model.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Such as `layers.0.query.weight`; unique within a model.
    pub name: String,
    /// The value, in place.
    pub var: Var,
    /// Whether gradients are computed for it and the optimizer moves it.
    pub trainable: bool,
    /// Whether weight decay applies (matrices, but neither biases nor layer normalizations).
    pub decay: bool,
}

/// The weights of a model in a fixed order.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    list: Vec<Parameter>,
}

impl Parameters {
    /// In their order.
    pub fn iter(&self) -> std::slice::Iter<'_, Parameter> {
        self.list.iter()
    }

    /// The parameter called `name`.
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.list.iter().find(|parameter| parameter.name == name)
    }

    /// Number of parameters (tensors).
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Numbers in all of them and in the trainable ones.
    pub fn count(&self) -> (usize, usize) {
        todo!()
    }

    /// Copies of all values by name, ready for a safetensors file.
    ///
    /// # Errors
    /// When a device copy fails.
    pub fn to_tensors(&self) -> Result<HashMap<String, Tensor>> {
        todo!()
    }

    /// Sets every parameter from `tensors`; extra entries are ignored.
    ///
    /// # Errors
    /// `weights_mismatch` when one is missing or has another shape; nothing is changed then.
    pub fn load(&self, _tensors: &HashMap<String, Tensor>) -> Result<()> {
        todo!()
    }

    /// An error naming the first parameter that holds a NaN or an infinity.
    ///
    /// # Errors
    /// `non_finite`.
    pub fn check_finite(&self) -> Result<()> {
        todo!()
    }
}

/// Which weights stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freeze {
    /// The word embedding rows.
    pub word_embeddings: bool,
    /// Position embeddings and the embedding's layer normalization.
    pub other_embeddings: bool,
    /// This many layers, counted from the lowest.
    pub lowest_layers: usize,
}

/// Dropout of one forward pass. Masks are a function of `seed`, the place in the model and the
/// position in the batch, so a pass can be repeated exactly and there is no state to save.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// On the embeddings and before each residual sum.
    pub hidden: f32,
    /// On attention probabilities.
    pub attention: f32,
    /// A new one for every pass, such as a hash of run seed, step and view.
    pub seed: u64,
}

/// Quantization-aware forward: values are rounded as [`crate::quant`] does at run time, gradients
/// pass straight through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FakeQuant {
    /// Largest magnitude of a quantized weight: 127, 63, 31 for 8, 7, 6 bits;
    /// [`crate::quant::WEIGHT_MAX`] is what ships.
    pub weight_max: i8,
    /// Whether activations are rounded before each linear layer (7 bits, per row).
    pub activations: bool,
    /// Whether word embedding rows are rounded to 8 bits.
    pub embeddings: bool,
}

/// How to run [`BertModel::forward`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ForwardOptions {
    /// Keep what [`BertModel::backward`] needs.
    pub train: bool,
    /// None for no dropout.
    pub dropout: Option<Dropout>,
    /// None for plain 32-bit floats.
    pub quantize: Option<FakeQuant>,
    /// Layers (0 = lowest) whose output states to return as well.
    pub layer_states: Vec<usize>,
}

impl ForwardOptions {
    /// Keeps a tape; no dropout, no quantization.
    pub fn training() -> Self {
        ForwardOptions { train: true, ..ForwardOptions::default() }
    }
}

/// What a forward pass gives. In training mode the tensors carry gradients.
pub struct ForwardOutput {
    /// `num_tokens × hidden`, in the batch's order.
    pub token_states: Tensor,
    /// `num_sentences × hidden`, pooled as the config says, not normalized.
    pub pooled: Tensor,
    /// One `num_tokens × hidden` per entry of [`ForwardOptions::layer_states`].
    pub layer_states: Vec<Tensor>,
}

/// The gradients of one or more backward passes, parallel to a model's [`Parameters`].
pub struct Gradients {}

impl Gradients {
    /// Adds `other` (of the same model) to `self`, for accumulation over small batches.
    ///
    /// # Errors
    /// `input_invalid` if they belong to different models.
    pub fn accumulate(&mut self, _other: Gradients) -> Result<()> {
        todo!()
    }

    /// The L2 norm of everything together; not finite if any gradient is not.
    ///
    /// # Errors
    /// When a device operation fails.
    pub fn global_norm(&self) -> Result<f32> {
        todo!()
    }

    /// A dense copy of one gradient; `None` if the parameter got none.
    ///
    /// # Errors
    /// When a device operation fails.
    pub fn dense(&self, _parameters: &Parameters, _name: &str) -> Result<Option<Tensor>> {
        todo!()
    }
}

/// A post-norm BERT with gradients.
pub struct BertModel {
    config: ModelConfig,
    parameters: Parameters,
    device: Device,
}

impl BertModel {
    /// The model of `weights` on `device`, everything trainable.
    ///
    /// # Errors
    /// `weights_mismatch` when a matrix does not have the shape that the config asks for.
    pub fn from_float_model(_weights: &FloatModel, _device: &Device) -> Result<Self> {
        todo!()
    }

    /// The present weights as the exporter wants them.
    ///
    /// # Errors
    /// `non_finite` if a weight is not finite.
    pub fn to_float_model(&self) -> Result<FloatModel> {
        todo!()
    }

    /// The sizes.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// All weights, the model's first, then added ones.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Sets the trainable flags.
    ///
    /// # Errors
    /// `input_invalid` when there are fewer layers than `freeze.lowest_layers`.
    pub fn freeze(&mut self, _freeze: Freeze) -> Result<()> {
        todo!()
    }

    /// Adds a weight that is not part of the encoder (a head): it is saved, optimized and given
    /// gradients with the rest, but does not appear in [`BertModel::to_float_model`].
    ///
    /// # Errors
    /// `input_invalid` if the name is taken.
    pub fn add_parameter(&mut self, _name: &str, _value: Tensor, _decay: bool) -> Result<Var> {
        todo!()
    }

    /// Runs the encoder.
    ///
    /// # Errors
    /// `input_invalid` for an id outside of the vocabulary or a sentence longer than the positions.
    pub fn forward(&self, _batch: &TokenBatch, _options: &ForwardOptions) -> Result<ForwardOutput> {
        todo!()
    }

    /// Sentence embeddings without a tape: pooled and L2-normalized, `num_sentences · hidden`.
    ///
    /// # Errors
    /// As [`BertModel::forward`].
    pub fn encode(&self, _batch: &TokenBatch, _quantize: Option<FakeQuant>) -> Result<Vec<f32>> {
        todo!()
    }

    /// The gradient of the scalar `loss` for every trainable parameter, through all of `outputs`
    /// (training-mode outputs of this model that the loss was computed from). Weights must not
    /// change between the forward passes and this call.
    ///
    /// # Errors
    /// `non_finite` when the loss is NaN or infinite; `input_invalid` when an output was not made in
    /// training mode.
    pub fn backward(&self, _loss: &Tensor, _outputs: Vec<ForwardOutput>) -> Result<Gradients> {
        todo!()
    }
}

/// Random weights as BERT starts with: normal with deviation 0.02, gains 1, biases 0.
pub fn random_float_model(_config: &ModelConfig, _seed: u64) -> FloatModel {
    todo!()
}
