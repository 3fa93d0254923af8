//! AdamW, learning-rate schedules and averages of weights.

use std::collections::HashMap;

use candle_core::Tensor;

use super::model::{Gradients, Parameters};
use crate::error::Result;

/// The shape of the learning rate after warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Stays.
    Constant,
    /// Falls in a straight line.
    Linear,
    /// Falls as half a cosine.
    Cosine,
}

/// Learning rate over steps: linear warm-up to `peak`, then `decay` to `peak · final_fraction`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Largest learning rate.
    pub peak: f64,
    /// Steps of warm-up.
    pub warmup_steps: usize,
    /// Steps in all.
    pub total_steps: usize,
    /// How it falls.
    pub decay: Decay,
    /// What is left at the end, 0 … 1.
    pub final_fraction: f64,
}

impl Schedule {
    /// The rate of step `step`, counted from 0.
    pub fn learning_rate(&self, _step: usize) -> f64 {
        todo!()
    }
}

/// Constants of [`AdamW`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the square root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, for parameters with `decay` set.
    pub weight_decay: f64,
    /// Gradients are scaled down to this global norm.
    pub max_grad_norm: Option<f64>,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        AdamWConfig {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.01,
            max_grad_norm: Some(1.0),
        }
    }
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepStats {
    /// Global norm before clipping.
    pub grad_norm: f32,
    /// Whether gradients were scaled down.
    pub clipped: bool,
}

/// Adam with decoupled weight decay (Loshchilov & Hutter 2019, as `torch.optim.AdamW`), one pass
/// over the parameters. Word embedding rows that a batch did not touch are neither decayed nor
/// moved, and their moments rest (as `torch.optim.SparseAdam`).
pub struct AdamW {
    config: AdamWConfig,
}

impl AdamW {
    /// Zero moments for every trainable parameter.
    ///
    /// # Errors
    /// When memory on the device runs out.
    pub fn new(_parameters: &Parameters, config: AdamWConfig) -> Result<Self> {
        Ok(AdamW { config })
    }

    /// The constants.
    pub fn config(&self) -> &AdamWConfig {
        &self.config
    }

    /// Steps taken.
    pub fn steps(&self) -> usize {
        todo!()
    }

    /// Moves all trainable parameters that have a gradient.
    ///
    /// # Errors
    /// `non_finite` when the gradients' norm is not finite; nothing is changed then.
    pub fn step(
        &mut self,
        _parameters: &Parameters,
        _gradients: &Gradients,
        _learning_rate: f64,
    ) -> Result<StepStats> {
        todo!()
    }

    /// Moments and step count, ready for a safetensors file.
    ///
    /// # Errors
    /// When a device copy fails.
    pub fn state(&self) -> Result<HashMap<String, Tensor>> {
        todo!()
    }

    /// Restores what [`AdamW::state`] gave.
    ///
    /// # Errors
    /// `weights_mismatch` when an entry is missing or has another shape.
    pub fn load_state(&mut self, _state: &HashMap<String, Tensor>) -> Result<()> {
        todo!()
    }
}

/// An average of weights over steps.
pub struct WeightAverage {
    /// None: the plain mean of all updates; `Some(d)`: `average = d · average + (1 − d) · weights`.
    pub decay: Option<f64>,
}

impl WeightAverage {
    /// Starts empty.
    pub fn new(decay: Option<f64>) -> Self {
        WeightAverage { decay }
    }

    /// Takes the present weights in.
    ///
    /// # Errors
    /// When a device copy fails.
    pub fn update(&mut self, _parameters: &Parameters) -> Result<()> {
        todo!()
    }

    /// Number of updates.
    pub fn updates(&self) -> usize {
        todo!()
    }

    /// The averaged weights by parameter name, for [`Parameters::load`].
    ///
    /// # Errors
    /// `input_invalid` before the first update.
    pub fn tensors(&self) -> Result<HashMap<String, Tensor>> {
        todo!()
    }

    /// Everything that a resumed run needs.
    ///
    /// # Errors
    /// When a device copy fails.
    pub fn state(&self) -> Result<HashMap<String, Tensor>> {
        todo!()
    }

    /// Restores what [`WeightAverage::state`] gave.
    ///
    /// # Errors
    /// `weights_mismatch` when an entry is missing.
    pub fn load_state(&mut self, _state: &HashMap<String, Tensor>) -> Result<()> {
        todo!()
    }
}
