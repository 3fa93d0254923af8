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

use candle_core::{DType, Device, Tensor, Var};

use super::batch::TokenBatch;
use super::gradients::{Gradient, Gradients};
use super::layout::{FIRST_LAYER, POSITIONS, WORDS, layer_base};
use super::network::Network;
use super::options::{FakeQuant, ForwardOptions, Freeze};
use super::output::ForwardOutput;
use super::parameters::{Parameter, Parameters};
use super::{composed, fused};
use crate::config::ModelConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::train::recipe::Precision;

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

pub(super) fn composed_here() -> bool {
    #[cfg(test)]
    return COMPOSED.get();
    #[cfg(not(test))]
    false
}

/// A post-norm BERT with gradients.
pub struct BertModel {
    pub(super) network: Network,
    pub(super) tokenizer_json: Vec<u8>,
    pub(super) composed: bool,
}

impl BertModel {
    /// The sizes.
    pub fn config(&self) -> &ModelConfig {
        &self.network.config
    }

    /// All weights, the model's first, then added ones.
    pub fn parameters(&self) -> &Parameters {
        &self.network.parameters
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.network.device
    }

    /// Runs on the CPU what other devices run, for comparison and where memory is scarce.
    pub fn use_composed_operations(&mut self, composed: bool) {
        self.composed = composed || !self.network.device.is_cpu();
    }

    /// How linear layers hold their factors, forward and backward: on the CPU those of the fused
    /// operations, on a GPU all products of the encoder (bf16 is TF32 there).
    pub fn use_precision(&mut self, precision: Precision) {
        self.network.precision = precision;
    }

    /// Sets the trainable flags of the encoder's weights.
    ///
    /// # Errors
    /// `input_invalid` when there are fewer layers than `freeze.lowest_layers`.
    pub fn freeze(&mut self, freeze: Freeze) -> Result<()> {
        if freeze.lowest_layers > self.network.config.num_hidden_layers {
            return Err(Error::new(
                ErrorKind::InputInvalid,
                format!(
                    "cannot freeze {} layers of a model with {}",
                    freeze.lowest_layers, self.network.config.num_hidden_layers
                ),
            ));
        }
        let end = layer_base(self.network.config.num_hidden_layers);
        for (index, parameter) in self.network.parameters.list[..end].iter_mut().enumerate() {
            parameter.trainable = match index {
                WORDS => !freeze.word_embeddings,
                POSITIONS..FIRST_LAYER => !freeze.other_embeddings,
                _ => index >= layer_base(freeze.lowest_layers),
            };
        }
        Ok(())
    }

    /// Adds a weight that is not part of the encoder (a head): it is saved, optimized and given
    /// gradients with the rest, but does not appear in [`BertModel::to_float_model`].
    ///
    /// # Errors
    /// `input_invalid` if the name is taken.
    pub fn add_parameter(&mut self, name: &str, value: Tensor, decay: bool) -> Result<Var> {
        if self.network.parameters.get(name).is_some() {
            return Err(Error::new(
                ErrorKind::InputInvalid,
                format!("the model has a parameter called {name} already"),
            ));
        }
        let value = value.to_device(&self.network.device)?.to_dtype(DType::F32)?;
        let var = Var::from_tensor(&value)?;
        let name = name.to_owned();
        self.network.parameters.list.push(Parameter {
            name,
            var: var.clone(),
            trainable: true,
            decay,
        });
        Ok(var)
    }

    /// Runs the encoder.
    ///
    /// # Errors
    /// `input_invalid` for an id outside of the vocabulary, a sentence longer than the positions, or
    /// a layer that does not exist.
    pub fn forward(&self, batch: &TokenBatch, options: &ForwardOptions) -> Result<ForwardOutput> {
        batch.check(self.network.config.vocab_size, self.network.config.max_position_embeddings)?;
        let layers = self.network.config.num_hidden_layers;
        if let Some(layer) = options.layer_states.iter().find(|&&layer| layer >= layers) {
            return Err(Error::new(
                ErrorKind::InputInvalid,
                format!("states of layer {layer} wanted; the model has {layers} layers"),
            ));
        }
        if self.composed {
            composed::in_precision(self.network.precision, || {
                composed::forward(&self.network, batch, options)
            })
        } else {
            fused::forward(&self.network, batch, options, &mut |_, _| {})
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
        batch.check(self.network.config.vocab_size, self.network.config.max_position_embeddings)?;
        fused::forward(&self.network, batch, &ForwardOptions::default(), observe).map(|_| ())
    }

    /// Sentence embeddings without a tape: pooled and L2-normalized, `num_sentences · hidden`.
    ///
    /// # Errors
    /// As [`BertModel::forward`].
    pub fn encode(&self, batch: &TokenBatch, quantize: Option<FakeQuant>) -> Result<Vec<f32>> {
        let options = ForwardOptions { quantize, ..ForwardOptions::default() };
        let pooled = self.forward(batch, &options)?.pooled.to_device(&Device::Cpu)?;
        let mut values = pooled.flatten_all()?.to_vec1::<f32>()?;
        for row in values.chunks_exact_mut(self.network.config.hidden_size) {
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
        let store = composed::in_precision(self.network.precision, || loss.backward())?;
        let mut gradients = Gradients::empty(self.network.parameters.len());
        let mut rows: Option<Vec<u32>> = None;
        let mut in_graph = layer_base(self.network.config.num_hidden_layers);
        for output in outputs {
            match output.tape {
                Some(tape) => {
                    let gradient = |tensor: &Tensor| store.get(tensor).cloned();
                    let of_output = fused::OutputGradients {
                        token_states: gradient(&output.token_states),
                        pooled: gradient(&output.pooled),
                        layer_states: output.layer_states.iter().map(gradient).collect(),
                    };
                    fused::backward(&self.network, tape, of_output, &mut gradients)?;
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
        for (index, parameter) in self.network.parameters.list.iter().enumerate().skip(in_graph) {
            let Some(gradient) = store.get(&parameter.var).filter(|_| parameter.trainable) else {
                continue;
            };
            gradients.entries[index] = Some(match rows.take_if(|_| index == WORDS) {
                Some(mut rows) => {
                    rows.sort_unstable();
                    rows.dedup();
                    let len = rows.len();
                    let rows = Tensor::from_vec(rows, len, &self.network.device)?;
                    let values = gradient.index_select(&rows, 0)?;
                    Gradient::DeviceRows { rows, values }
                }
                None => Gradient::Device(gradient.clone()),
            });
        }
        Ok(gradients)
    }
}

#[cfg(test)]
mod tests;
