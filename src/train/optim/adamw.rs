//! AdamW.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::in_place::{BLOCK, change_in_place};
use super::update::Update;
use crate::error::{Error, ErrorKind, Result};
#[cfg(feature = "cuda")]
use crate::train::nn::gpu;
use crate::train::nn::gradients::{Gradient, Gradients};
use crate::train::nn::host::HostSlice;
use crate::train::nn::parameters::{Parameter, Parameters, find};

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

/// Exponential means of a parameter's gradient and of its square.
enum Moments {
    Host { first: Vec<f32>, second: Vec<f32> },
    Device { first: Tensor, second: Tensor },
}

impl Moments {
    fn zeros(parameter: &Parameter) -> Result<Self> {
        if parameter.var.device().is_cpu() {
            let len = parameter.var.elem_count();
            return Ok(Moments::Host { first: vec![0.0; len], second: vec![0.0; len] });
        }
        let zeros = parameter.var.as_detached_tensor().zeros_like()?;
        Ok(Moments::Device { first: zeros.copy()?, second: zeros })
    }
}

/// Adam with decoupled weight decay (Loshchilov & Hutter 2019, as `torch.optim.AdamW`), one pass
/// over the parameters. Word embedding rows that a batch did not touch are neither decayed nor
/// moved, and their moments rest (as `torch.optim.SparseAdam`).
pub struct AdamW {
    config: AdamWConfig,
    steps: usize,
    /// By name; a parameter's moments begin with its first gradient.
    moments: HashMap<String, Moments>,
}

impl AdamW {
    /// No steps taken; moments are 0 until a parameter gets its first gradient.
    ///
    /// # Errors
    /// `input_invalid` when a constant is out of range.
    pub fn new(config: AdamWConfig) -> Result<Self> {
        let in_unit = |x: f64| (0.0..1.0).contains(&x);
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let valid = in_unit(config.beta1)
            && in_unit(config.beta2)
            && positive(config.eps)
            && (config.weight_decay == 0.0 || positive(config.weight_decay))
            && config.max_grad_norm.is_none_or(positive);
        if !valid {
            return Err(Error::new(
                ErrorKind::InputInvalid,
                format!("AdamW: a constant is out of range in {config:?}"),
            ));
        }
        Ok(AdamW { config, steps: 0, moments: HashMap::new() })
    }

    /// The constants.
    pub fn config(&self) -> &AdamWConfig {
        &self.config
    }

    /// Steps taken.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Moves all trainable parameters that have a gradient.
    ///
    /// # Errors
    /// `non_finite` when the gradients' norm is not finite; nothing is changed then.
    pub fn step(
        &mut self,
        parameters: &Parameters,
        gradients: &Gradients,
        learning_rate: f64,
    ) -> Result<StepStats> {
        if gradients.entries.len() != parameters.len() {
            return Err(Error::new(
                ErrorKind::InputInvalid,
                "the gradients belong to another set of parameters",
            ));
        }
        let grad_norm = gradients.global_norm()?;
        if !grad_norm.is_finite() {
            return Err(Error::new(
                ErrorKind::NonFinite,
                format!("the gradient's norm is {grad_norm}; no weight was changed"),
            ));
        }
        let clip = self.config.max_grad_norm.filter(|&max| grad_norm as f64 > max);
        self.steps += 1;
        let config = &self.config;
        let update = Update {
            grad_scale: clip.map_or(1.0, |max| (max / (grad_norm as f64 + 1e-6)) as f32),
            beta1: config.beta1 as f32,
            beta2: config.beta2 as f32,
            step_size: (learning_rate / (1.0 - config.beta1.powi(self.steps as i32))) as f32,
            second_scale: (1.0 / (1.0 - config.beta2.powi(self.steps as i32)).sqrt()) as f32,
            eps: config.eps as f32,
            shrink: 1.0,
        };
        let shrink = (1.0 - learning_rate * config.weight_decay) as f32;
        for (parameter, gradient) in parameters.iter().zip(&gradients.entries) {
            let Some(gradient) = gradient.as_ref().filter(|_| parameter.trainable) else {
                continue;
            };
            let moments = match self.moments.get_mut(&parameter.name) {
                Some(moments) => moments,
                None => {
                    let zeros = Moments::zeros(parameter)?;
                    self.moments.entry(parameter.name.clone()).or_insert(zeros)
                }
            };
            let shrink = if parameter.decay { shrink } else { 1.0 };
            move_parameter(parameter, gradient, moments, Update { shrink, ..update })?;
        }
        Ok(StepStats { grad_norm, clipped: clip.is_some() })
    }

    /// Moments and step count, ready for a safetensors file.
    ///
    /// # Errors
    /// When a device copy fails.
    pub fn state(&self, parameters: &Parameters) -> Result<HashMap<String, Tensor>> {
        let mut state = HashMap::new();
        let steps = Tensor::new(&[self.steps as i64], &Device::Cpu)?;
        state.insert("adamw.steps".to_owned(), steps);
        for parameter in parameters.iter() {
            let Some(moments) = self.moments.get(&parameter.name) else {
                continue;
            };
            let (first, second) = match moments {
                Moments::Host { first, second } => {
                    let tensor =
                        |x: &[f32]| Tensor::from_slice(x, parameter.var.dims(), &Device::Cpu);
                    (tensor(first)?, tensor(second)?)
                }
                Moments::Device { first, second } => (first.copy()?, second.copy()?),
            };
            state.insert(format!("adamw.first.{}", parameter.name), first);
            state.insert(format!("adamw.second.{}", parameter.name), second);
        }
        Ok(state)
    }

    /// Restores what [`AdamW::state`] gave.
    ///
    /// # Errors
    /// `weights_mismatch` when an entry is missing or has another shape; nothing is changed then.
    pub fn load_state(
        &mut self,
        parameters: &Parameters,
        state: &HashMap<String, Tensor>,
    ) -> Result<()> {
        let steps = find(state, "adamw.steps", &[1])?.to_vec1::<i64>()?[0] as usize;
        let mut moments = HashMap::new();
        for parameter in parameters.iter() {
            let first_name = format!("adamw.first.{}", parameter.name);
            if !state.contains_key(&first_name) {
                continue;
            }
            let dims = parameter.var.dims();
            let first = find(state, &first_name, dims)?;
            let second = find(state, &format!("adamw.second.{}", parameter.name), dims)?;
            let restored = if parameter.var.device().is_cpu() {
                let values = |x: &Tensor| x.flatten_all()?.to_vec1::<f32>();
                Moments::Host { first: values(first)?, second: values(second)? }
            } else {
                let device = parameter.var.device();
                Moments::Device {
                    first: first.to_device(device)?,
                    second: second.to_device(device)?,
                }
            };
            moments.insert(parameter.name.clone(), restored);
        }
        (self.steps, self.moments) = (steps, moments);
        Ok(())
    }
}

fn move_parameter(
    parameter: &Parameter,
    gradient: &Gradient,
    moments: &mut Moments,
    update: Update,
) -> Result<()> {
    let var = &parameter.var;
    match (gradient, moments) {
        (Gradient::Host(gradient), Moments::Host { first, second }) => {
            host_step(parameter, first, second, gradient, update)
        }
        (Gradient::HostRows { rows, values }, Moments::Host { first, second }) => {
            let cols = var.dim(1)?;
            change_in_place(&var, |weights| {
                for (&row, gradient) in rows.iter().zip(values.chunks_exact(cols)) {
                    let at = row as usize * cols..(row as usize + 1) * cols;
                    let (first, second) = (&mut first[at.clone()], &mut second[at.clone()]);
                    update.apply(&mut weights[at], first, second, gradient);
                }
            })?;
            Ok(())
        }
        // An added parameter, differentiated by candle.
        (Gradient::Device(gradient), Moments::Host { first, second }) => {
            let gradient = gradient.contiguous()?;
            host_step(parameter, first, second, &HostSlice::new(&gradient)?, update)
        }
        (Gradient::DeviceRows { rows, values }, Moments::Host { first, second }) => {
            let (rows, values) = (rows.to_vec1::<u32>()?, values.contiguous()?);
            let values = HostSlice::new(&values)?;
            let cols = var.dim(1)?;
            change_in_place(&var, |weights| {
                for (&row, gradient) in rows.iter().zip(values.chunks_exact(cols)) {
                    let at = row as usize * cols..(row as usize + 1) * cols;
                    let (first, second) = (&mut first[at.clone()], &mut second[at.clone()]);
                    update.apply(&mut weights[at], first, second, gradient);
                }
            })?;
            Ok(())
        }
        #[cfg(feature = "cuda")]
        (Gradient::Device(gradient), Moments::Device { first, second })
            if var.device().is_cuda() =>
        {
            let (weights, gradient) = (var.as_detached_tensor(), gradient.contiguous()?);
            Ok(gpu::adamw(&weights, first, second, &gradient, update)?)
        }
        (Gradient::Device(gradient), Moments::Device { first, second }) => {
            let weights = var.as_detached_tensor();
            let moved = device_step(&weights, first, second, gradient, update)?;
            (*first, *second) = (moved.first, moved.second);
            Ok(var.set(&moved.weights)?)
        }
        (Gradient::DeviceRows { rows, values }, Moments::Device { first, second }) => {
            let select = |x: &Tensor| x.index_select(rows, 0);
            let weights = var.as_detached_tensor();
            let (old, old_first, old_second) = (select(&weights)?, select(first)?, select(second)?);
            let moved = device_step(&old, &old_first, &old_second, values, update)?;
            *first = first.index_add(rows, &(moved.first - old_first)?, 0)?;
            *second = second.index_add(rows, &(moved.second - old_second)?, 0)?;
            Ok(var.set(&weights.index_add(rows, &(moved.weights - old)?, 0)?)?)
        }
        (Gradient::Host(_) | Gradient::HostRows { .. }, Moments::Device { .. }) => Err(Error::new(
            ErrorKind::InputInvalid,
            format!("{}: gradient and weight lie on different devices", parameter.name),
        )),
    }
}

fn host_step(
    parameter: &Parameter,
    first: &mut [f32],
    second: &mut [f32],
    gradient: &[f32],
    update: Update,
) -> Result<()> {
    change_in_place(&parameter.var, |weights| {
        weights
            .par_chunks_mut(BLOCK)
            .zip(first.par_chunks_mut(BLOCK))
            .zip(second.par_chunks_mut(BLOCK))
            .zip(gradient.par_chunks(BLOCK))
            .for_each(|(((w, m), v), g)| update.apply(w, m, v, g));
    })?;
    Ok(())
}

struct Moved {
    weights: Tensor,
    first: Tensor,
    second: Tensor,
}

fn device_step(
    weights: &Tensor,
    first: &Tensor,
    second: &Tensor,
    gradient: &Tensor,
    update: Update,
) -> Result<Moved> {
    let (beta1, beta2) = (update.beta1 as f64, update.beta2 as f64);
    let gradient = (gradient * update.grad_scale as f64)?;
    let first = ((first * beta1)? + (&gradient * (1.0 - beta1))?)?;
    let second = ((second * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
    let denominator = ((second.sqrt()? * update.second_scale as f64)? + update.eps as f64)?;
    let change = ((&first / denominator)? * update.step_size as f64)?;
    let weights = ((weights * update.shrink as f64)? - change)?;
    Ok(Moved { weights, first, second })
}

#[cfg(test)]
mod tests;
