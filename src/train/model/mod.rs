//! A differentiable BERT: the model of [`crate::weights::FloatModel`] with gradients.
//!
//! On the CPU the whole encoder runs through the fused operations of [`super::ops`] on packed rows
//! (one row per token, no padding) and keeps a tape of what the backward pass needs. On other
//! devices the same model is composed from candle's differentiable operations on padded batches.
//! Both give the same [`ForwardOutput`], and [`BertModel::backward`] hides the difference:
//!
//! ```ignore
//! let output = model.forward(&batch, &ForwardOptions::training())?;
//! let (a, b) = (output.pooled.narrow(0, 0, n)?, output.pooled.narrow(0, n, n)?);
//! let loss = losses::cosine_mse(&a, &b, &scores)?;
//! let gradients = model.backward(&loss, vec![output])?;
//! optimizer.step(model.parameters(), &gradients, schedule.learning_rate(step))?;
//! ```

mod batch;
mod composed;
mod fused;
mod parameters;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use batch::TokenBatch;
pub(in crate::train) use parameters::{Gradient, HostSlice, find};
pub use parameters::{Gradients, Parameter, Parameters};

use super::ops::pool::Pool;
use crate::config::ModelConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::matmul::Precision;
use crate::weights::{FloatModel, Layer, LayerNorm, Linear, Matrix};

/// The order of the parameters: these, then [`LAYER_PARAMETERS`] for each layer; a bias follows its
/// weight.
const WORDS: usize = 0;
const POSITIONS: usize = 1;
const EMBEDDING_NORM: usize = 2;
const FIRST_LAYER: usize = 4;
const LAYER_PARAMETERS: usize = 16;
const QUERY: usize = 0;
const KEY: usize = 2;
const VALUE: usize = 4;
const ATTENTION_OUTPUT: usize = 6;
const ATTENTION_NORM: usize = 8;
const INTERMEDIATE: usize = 10;
const OUTPUT: usize = 12;
const OUTPUT_NORM: usize = 14;
const LAYER_NAMES: [(&str, usize); 8] = [
    ("query", QUERY),
    ("key", KEY),
    ("value", VALUE),
    ("attention_output", ATTENTION_OUTPUT),
    ("attention_norm", ATTENTION_NORM),
    ("intermediate", INTERMEDIATE),
    ("output", OUTPUT),
    ("output_norm", OUTPUT_NORM),
];
/// Places of a layer where dropout may act.
const FORWARD_SITES: u32 = 3;

fn layer_base(layer: usize) -> usize {
    FIRST_LAYER + layer * LAYER_PARAMETERS
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
/// pass straight through. The finer rounding inside attention (9 bits and more) is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FakeQuant {
    /// Largest magnitude of a quantized weight: 127, 63, 31 for 8, 7, 6 bits;
    /// [`crate::quant::WEIGHT_MAX`] is what ships.
    pub weight_max: i8,
    /// Whether activations are rounded before each linear layer (7 bits, per row).
    pub activations: bool,
    /// Whether word and position embedding rows are rounded to 8 bits.
    pub embeddings: bool,
}

impl FakeQuant {
    /// What the model file and the run time do.
    pub fn shipped() -> Self {
        FakeQuant { weight_max: crate::quant::WEIGHT_MAX, activations: true, embeddings: true }
    }
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
    train: bool,
    /// Of a fused pass in training mode.
    tape: Option<fused::Tape>,
    /// Word embedding rows that a composed pass in training mode used.
    rows: Option<Vec<u32>>,
}

#[cfg(test)]
thread_local! {
    static COMPOSED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// In `work`, models that this thread makes run what other devices run, if `composed` says so.
#[cfg(test)]
pub(in crate::train) fn composed_on_this_thread<R>(composed: bool, work: impl FnOnce() -> R) -> R {
    let before = COMPOSED.replace(composed);
    let result = work();
    COMPOSED.set(before);
    result
}

fn composed_here() -> bool {
    #[cfg(test)]
    return COMPOSED.get();
    #[cfg(not(test))]
    false
}

/// A post-norm BERT with gradients.
pub struct BertModel {
    config: ModelConfig,
    tokenizer_json: Vec<u8>,
    parameters: Parameters,
    device: Device,
    pool: Arc<Pool>,
    composed: bool,
    precision: Precision,
}

impl BertModel {
    /// The model of `weights` on `device`, everything trainable.
    ///
    /// # Errors
    /// `weights_mismatch` when a matrix does not have the shape that the config asks for.
    pub fn from_float_model(weights: &FloatModel, device: &Device) -> Result<Self> {
        let config = &weights.config;
        config.validate()?;
        if weights.layers.len() != config.num_hidden_layers {
            return Err(Error::new(
                ErrorKind::WeightsMismatch,
                format!(
                    "the model has {} layers; its config says {}",
                    weights.layers.len(),
                    config.num_hidden_layers
                ),
            ));
        }
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let mut builder = Builder { device, parameters: Parameters::default() };
        builder.matrix("embeddings.word", &weights.word_embeddings, config.vocab_size, hidden)?;
        let positions = config.max_position_embeddings;
        builder.matrix("embeddings.position", &weights.position_embeddings, positions, hidden)?;
        builder.norm("embeddings.norm", &weights.embedding_norm, hidden)?;
        for (index, layer) in weights.layers.iter().enumerate() {
            for (name, which) in LAYER_NAMES {
                let name = format!("layers.{index}.{name}");
                match which {
                    QUERY => builder.linear(&name, &layer.query, hidden, hidden)?,
                    KEY => builder.linear(&name, &layer.key, hidden, hidden)?,
                    VALUE => builder.linear(&name, &layer.value, hidden, hidden)?,
                    ATTENTION_OUTPUT => {
                        builder.linear(&name, &layer.attention_output, hidden, hidden)?;
                    }
                    ATTENTION_NORM => builder.norm(&name, &layer.attention_norm, hidden)?,
                    INTERMEDIATE => builder.linear(&name, &layer.intermediate, inner, hidden)?,
                    OUTPUT => builder.linear(&name, &layer.output, hidden, inner)?,
                    _ => builder.norm(&name, &layer.output_norm, hidden)?,
                }
            }
        }
        Ok(BertModel {
            config: config.clone(),
            tokenizer_json: weights.tokenizer_json.clone(),
            parameters: builder.parameters,
            device: device.clone(),
            pool: Arc::default(),
            composed: !device.is_cpu() || composed_here(),
            precision: Precision::F32,
        })
    }

    /// The present weights as the exporter wants them.
    ///
    /// # Errors
    /// `non_finite` if a weight is not finite.
    pub fn to_float_model(&self) -> Result<FloatModel> {
        self.parameters.check_finite()?;
        let values = |index: usize| -> Result<Vec<f32>> {
            let tensor = self.parameters.list[index].var.as_detached_tensor();
            Ok(tensor.flatten_all()?.to_vec1::<f32>()?)
        };
        let matrix = |index: usize| -> Result<Matrix> {
            let (rows, cols) = self.parameters.list[index].var.dims2()?;
            Ok(Matrix { rows, cols, data: values(index)? })
        };
        let linear = |index: usize| -> Result<Linear> {
            Ok(Linear { weight: matrix(index)?, bias: values(index + 1)? })
        };
        let norm = |index: usize| -> Result<LayerNorm> {
            Ok(LayerNorm { weight: values(index)?, bias: values(index + 1)? })
        };
        let layers = (0..self.config.num_hidden_layers)
            .map(|layer| {
                let base = layer_base(layer);
                Ok(Layer {
                    query: linear(base + QUERY)?,
                    key: linear(base + KEY)?,
                    value: linear(base + VALUE)?,
                    attention_output: linear(base + ATTENTION_OUTPUT)?,
                    attention_norm: norm(base + ATTENTION_NORM)?,
                    intermediate: linear(base + INTERMEDIATE)?,
                    output: linear(base + OUTPUT)?,
                    output_norm: norm(base + OUTPUT_NORM)?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(FloatModel {
            config: self.config.clone(),
            tokenizer_json: self.tokenizer_json.clone(),
            word_embeddings: matrix(WORDS)?,
            position_embeddings: matrix(POSITIONS)?,
            embedding_norm: norm(EMBEDDING_NORM)?,
            layers,
        })
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

    /// Runs on the CPU what other devices run, for comparison and where memory is scarce.
    pub fn use_composed_operations(&mut self, composed: bool) {
        self.composed = composed || !self.device.is_cpu();
    }

    /// How linear layers hold their factors, forward and backward: on the CPU those of the fused
    /// operations, on a GPU all products of the encoder (bf16 is TF32 there).
    pub fn use_precision(&mut self, precision: Precision) {
        self.precision = precision;
    }

    /// Sets the trainable flags of the encoder's weights.
    ///
    /// # Errors
    /// `input_invalid` when there are fewer layers than `freeze.lowest_layers`.
    pub fn freeze(&mut self, freeze: Freeze) -> Result<()> {
        if freeze.lowest_layers > self.config.num_hidden_layers {
            return Err(Error::new(
                ErrorKind::InputInvalid,
                format!(
                    "cannot freeze {} layers of a model with {}",
                    freeze.lowest_layers, self.config.num_hidden_layers
                ),
            ));
        }
        let end = layer_base(self.config.num_hidden_layers);
        for (index, parameter) in self.parameters.list[..end].iter_mut().enumerate() {
            parameter.trainable = match index {
                WORDS => !freeze.word_embeddings,
                POSITIONS..FIRST_LAYER => !freeze.other_embeddings,
                _ => index >= layer_base(freeze.lowest_layers),
            };
        }
        Ok(())
    }

    fn embeddings_trainable(&self) -> bool {
        self.parameters.list[..FIRST_LAYER].iter().any(|parameter| parameter.trainable)
    }

    /// The lowest layer that gradients must reach.
    fn first_trainable_layer(&self) -> usize {
        if self.embeddings_trainable() {
            return 0;
        }
        let end = layer_base(self.config.num_hidden_layers);
        self.parameters.list[FIRST_LAYER..end]
            .iter()
            .position(|parameter| parameter.trainable)
            .map_or(self.config.num_hidden_layers, |index| index / LAYER_PARAMETERS)
    }

    /// Adds a weight that is not part of the encoder (a head): it is saved, optimized and given
    /// gradients with the rest, but does not appear in [`BertModel::to_float_model`].
    ///
    /// # Errors
    /// `input_invalid` if the name is taken.
    pub fn add_parameter(&mut self, name: &str, value: Tensor, decay: bool) -> Result<Var> {
        if self.parameters.get(name).is_some() {
            return Err(Error::new(
                ErrorKind::InputInvalid,
                format!("the model has a parameter called {name} already"),
            ));
        }
        let value = value.to_device(&self.device)?.to_dtype(DType::F32)?;
        let var = Var::from_tensor(&value)?;
        let name = name.to_owned();
        self.parameters.list.push(Parameter { name, var: var.clone(), trainable: true, decay });
        Ok(var)
    }

    /// Runs the encoder.
    ///
    /// # Errors
    /// `input_invalid` for an id outside of the vocabulary, a sentence longer than the positions, or
    /// a layer that does not exist.
    pub fn forward(&self, batch: &TokenBatch, options: &ForwardOptions) -> Result<ForwardOutput> {
        batch.check(self.config.vocab_size, self.config.max_position_embeddings)?;
        let layers = self.config.num_hidden_layers;
        if let Some(layer) = options.layer_states.iter().find(|&&layer| layer >= layers) {
            return Err(Error::new(
                ErrorKind::InputInvalid,
                format!("states of layer {layer} wanted; the model has {layers} layers"),
            ));
        }
        if self.composed {
            composed::in_precision(self.precision, || composed::forward(self, batch, options))
        } else {
            fused::forward(self, batch, options, &mut |_, _| {})
        }
    }

    /// Runs the encoder and shows `observe` the states (`num_tokens × hidden`) after every layer
    /// normalization, with its number: 0 for the embeddings' and, for layer `i`, 1 + 2 · i after
    /// attention and 2 + 2 · i after the feed-forward.
    ///
    /// # Errors
    /// As [`BertModel::forward`]; `input_invalid` for a model that is not on the CPU.
    pub fn observe_norms(
        &self,
        batch: &TokenBatch,
        observe: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<()> {
        if self.composed {
            return Err(Error::new(ErrorKind::InputInvalid, "states are observed on the CPU only"));
        }
        batch.check(self.config.vocab_size, self.config.max_position_embeddings)?;
        fused::forward(self, batch, &ForwardOptions::default(), observe).map(|_| ())
    }

    /// Sentence embeddings without a tape: pooled and L2-normalized, `num_sentences · hidden`.
    ///
    /// # Errors
    /// As [`BertModel::forward`].
    pub fn encode(&self, batch: &TokenBatch, quantize: Option<FakeQuant>) -> Result<Vec<f32>> {
        let options = ForwardOptions { quantize, ..ForwardOptions::default() };
        let pooled = self.forward(batch, &options)?.pooled.to_device(&Device::Cpu)?;
        let mut values = pooled.flatten_all()?.to_vec1::<f32>()?;
        for row in values.chunks_exact_mut(self.config.hidden_size) {
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
            row.iter_mut().for_each(|x| *x /= norm);
        }
        Ok(values)
    }

    /// The gradient of the scalar `loss` for every trainable parameter, through all of `outputs`
    /// (training-mode outputs of this model that the loss was computed from). Weights must not
    /// change between the forward passes and this call.
    ///
    /// # Errors
    /// `non_finite` when the loss is NaN or infinite; `input_invalid` when an output was not made in
    /// training mode.
    pub fn backward(&self, loss: &Tensor, outputs: Vec<ForwardOutput>) -> Result<Gradients> {
        let value = loss.detach().to_scalar::<f32>()?;
        if !value.is_finite() {
            return Err(Error::new(ErrorKind::NonFinite, format!("the loss is {value}")));
        }
        if outputs.iter().any(|output| !output.train) {
            return Err(Error::new(
                ErrorKind::InputInvalid,
                "an output was made without `train`, so there is nothing to differentiate",
            ));
        }
        let store = composed::in_precision(self.precision, || loss.backward())?;
        let mut gradients = Gradients::empty(self.parameters.len());
        let mut rows: Option<Vec<u32>> = None;
        let mut in_graph = layer_base(self.config.num_hidden_layers);
        for output in outputs {
            match output.tape {
                Some(tape) => {
                    let gradient = |tensor: &Tensor| store.get(tensor).cloned();
                    let of_output = fused::OutputGradients {
                        token_states: gradient(&output.token_states),
                        pooled: gradient(&output.pooled),
                        layer_states: output.layer_states.iter().map(gradient).collect(),
                    };
                    fused::backward(self, tape, of_output, &mut gradients)?;
                }
                None => {
                    in_graph = 0;
                    if let Some(used) = output.rows {
                        rows.get_or_insert_default().extend(used);
                    }
                }
            }
        }
        // What candle itself differentiated: a composed encoder, added parameters.
        for (index, parameter) in self.parameters.list.iter().enumerate().skip(in_graph) {
            let Some(gradient) = store.get(&parameter.var).filter(|_| parameter.trainable) else {
                continue;
            };
            gradients.entries[index] = Some(match rows.take_if(|_| index == WORDS) {
                Some(mut rows) => {
                    rows.sort_unstable();
                    rows.dedup();
                    let len = rows.len();
                    let rows = Tensor::from_vec(rows, len, &self.device)?;
                    let values = gradient.index_select(&rows, 0)?;
                    Gradient::DeviceRows { rows, values }
                }
                None => Gradient::Device(gradient.clone()),
            });
        }
        Ok(gradients)
    }
}

/// Collects parameters and checks their shapes.
struct Builder<'a> {
    device: &'a Device,
    parameters: Parameters,
}

impl Builder<'_> {
    fn push(&mut self, name: String, data: &[f32], dims: &[usize], decay: bool) -> Result<()> {
        if data.len() != dims.iter().product::<usize>() {
            return Err(Error::new(
                ErrorKind::WeightsMismatch,
                format!("{name} has {} values; expected {dims:?}", data.len()),
            ));
        }
        let var = Var::from_slice(data, dims, self.device)?;
        self.parameters.list.push(Parameter { name, var, trainable: true, decay });
        Ok(())
    }

    fn matrix(&mut self, name: &str, matrix: &Matrix, rows: usize, cols: usize) -> Result<()> {
        if (matrix.rows, matrix.cols) != (rows, cols) {
            return Err(Error::new(
                ErrorKind::WeightsMismatch,
                format!("{name} is {} × {}; expected {rows} × {cols}", matrix.rows, matrix.cols),
            ));
        }
        self.push(name.to_owned(), &matrix.data, &[rows, cols], true)
    }

    fn linear(&mut self, name: &str, linear: &Linear, rows: usize, cols: usize) -> Result<()> {
        self.matrix(&format!("{name}.weight"), &linear.weight, rows, cols)?;
        self.push(format!("{name}.bias"), &linear.bias, &[rows], false)
    }

    fn norm(&mut self, name: &str, norm: &LayerNorm, len: usize) -> Result<()> {
        self.push(format!("{name}.weight"), &norm.weight, &[len], false)?;
        self.push(format!("{name}.bias"), &norm.bias, &[len], false)
    }
}

/// Numbers with the normal distribution's first two moments at least: the sum of 12 uniform ones.
fn normal(random: &mut ChaCha8Rng, deviation: f32) -> f32 {
    ((0..12).map(|_| random.random::<f32>()).sum::<f32>() - 6.0) * deviation
}

/// `n` random numbers around 0.
pub(in crate::train) fn random_values(n: usize, deviation: f32, seed: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| normal(&mut random, deviation)).collect()
}

/// Random weights as BERT starts with: normal with deviation 0.02, gains 1, biases 0. There is no
/// tokenizer in it.
pub fn random_float_model(config: &ModelConfig, seed: u64) -> FloatModel {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let mut matrix = |rows: usize, cols: usize| Matrix {
        rows,
        cols,
        data: (0..rows * cols).map(|_| normal(&mut random, 0.02)).collect(),
    };
    let norm = || LayerNorm { weight: vec![1.0; hidden], bias: vec![0.0; hidden] };
    let word_embeddings = matrix(config.vocab_size, hidden);
    let position_embeddings = matrix(config.max_position_embeddings, hidden);
    let mut linear =
        |rows: usize, cols: usize| Linear { weight: matrix(rows, cols), bias: vec![0.0; rows] };
    let layers = (0..config.num_hidden_layers)
        .map(|_| Layer {
            query: linear(hidden, hidden),
            key: linear(hidden, hidden),
            value: linear(hidden, hidden),
            attention_output: linear(hidden, hidden),
            attention_norm: norm(),
            intermediate: linear(inner, hidden),
            output: linear(hidden, inner),
            output_norm: norm(),
        })
        .collect();
    FloatModel {
        config: config.clone(),
        tokenizer_json: Vec::new(),
        word_embeddings,
        position_embeddings,
        embedding_norm: norm(),
        layers,
    }
}
