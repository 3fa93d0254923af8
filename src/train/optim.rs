//! AdamW, learning-rate schedules and averages of weights.

use std::collections::HashMap;
use std::sync::Mutex;

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Tensor};
use rayon::prelude::*;

#[cfg(feature = "cuda")]
use super::gpu;
use super::model::{Gradient, Gradients, HostSlice, Parameter, Parameters, find};
use super::ops::simd;
use crate::error::{Error, ErrorKind, Result};

/// Values that one thread takes at a time.
const BLOCK: usize = 1 << 14;

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
    pub fn learning_rate(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let length = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let done = ((step - self.warmup_steps) as f64 / length as f64).min(1.0);
        let left = match self.decay {
            Decay::Constant => 1.0,
            Decay::Linear => 1.0 - done,
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
        };
        self.peak * (self.final_fraction + (1.0 - self.final_fraction) * left)
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

/// The numbers of one step.
#[derive(Clone, Copy)]
pub(super) struct Update {
    /// Gradients are multiplied by this.
    pub(super) grad_scale: f32,
    pub(super) beta1: f32,
    pub(super) beta2: f32,
    /// `learning rate / (1 − β₁ᵗ)`.
    pub(super) step_size: f32,
    /// `1 / √(1 − β₂ᵗ)`.
    pub(super) second_scale: f32,
    pub(super) eps: f32,
    /// Weights are multiplied by this first.
    pub(super) shrink: f32,
}

impl Update {
    #[inline(always)]
    fn apply(&self, weights: &mut [f32], first: &mut [f32], second: &mut [f32], gradient: &[f32]) {
        simd(
            #[inline(always)]
            || {
                let moments = first.iter_mut().zip(second);
                for ((w, (m, v)), &g) in weights.iter_mut().zip(moments).zip(gradient) {
                    let g = g * self.grad_scale;
                    *m = self.beta1 * *m + (1.0 - self.beta1) * g;
                    *v = self.beta2 * *v + (1.0 - self.beta2) * g * g;
                    let denominator = v.sqrt() * self.second_scale + self.eps;
                    *w = *w * self.shrink - self.step_size * *m / denominator;
                }
            },
        );
    }
}

/// Changes a weight in main memory in place.
struct InPlace<F>(Mutex<F>);

impl<F: FnMut(&mut [f32])> InplaceOp1 for InPlace<F> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let CpuStorage::F32(values) = storage else {
            candle_core::bail!("a parameter is not f32");
        };
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("a parameter is not contiguous");
        };
        let mut change = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut values[start..end]);
        Ok(())
    }
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
            var.inplace_op1(&InPlace(Mutex::new(|weights: &mut [f32]| {
                for (&row, gradient) in rows.iter().zip(values.chunks_exact(cols)) {
                    let at = row as usize * cols..(row as usize + 1) * cols;
                    let (first, second) = (&mut first[at.clone()], &mut second[at.clone()]);
                    update.apply(&mut weights[at], first, second, gradient);
                }
            })))?;
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
            var.inplace_op1(&InPlace(Mutex::new(|weights: &mut [f32]| {
                for (&row, gradient) in rows.iter().zip(values.chunks_exact(cols)) {
                    let at = row as usize * cols..(row as usize + 1) * cols;
                    let (first, second) = (&mut first[at.clone()], &mut second[at.clone()]);
                    update.apply(&mut weights[at], first, second, gradient);
                }
            })))?;
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
    parameter.var.inplace_op1(&InPlace(Mutex::new(|weights: &mut [f32]| {
        weights
            .par_chunks_mut(BLOCK)
            .zip(first.par_chunks_mut(BLOCK))
            .zip(second.par_chunks_mut(BLOCK))
            .zip(gradient.par_chunks(BLOCK))
            .for_each(|(((w, m), v), g)| update.apply(w, m, v, g));
    })))?;
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

/// An average of weights over steps.
pub struct WeightAverage {
    /// None: the plain mean of all updates; `Some(d)`: `average = d · average + (1 − d) · weights`.
    decay: Option<f64>,
    updates: usize,
    averages: HashMap<String, Tensor>,
}

impl WeightAverage {
    /// Starts empty. `decay` of `None` gives the plain mean of all updates, `Some(d)` the moving
    /// average `d · average + (1 − d) · weights` that starts at the first update's weights.
    pub fn new(decay: Option<f64>) -> Self {
        WeightAverage { decay, updates: 0, averages: HashMap::new() }
    }

    /// Takes the present weights of trainable parameters in.
    ///
    /// # Errors
    /// When a device copy fails.
    pub fn update(&mut self, parameters: &Parameters) -> Result<()> {
        self.updates += 1;
        let share = match self.decay {
            Some(decay) => 1.0 - decay,
            None => 1.0 / self.updates as f64,
        };
        for parameter in parameters.iter().filter(|parameter| parameter.trainable) {
            let weights = parameter.var.as_detached_tensor();
            match self.averages.get_mut(&parameter.name) {
                Some(average) if average.device().is_cpu() && weights.device().is_cpu() => {
                    let weights = HostSlice::new(&weights)?;
                    let share = share as f32;
                    average.inplace_op1(&InPlace(Mutex::new(|average: &mut [f32]| {
                        average.par_chunks_mut(BLOCK).zip(weights.par_chunks(BLOCK)).for_each(
                            |(average, weights)| {
                                simd(|| {
                                    for (average, &w) in average.iter_mut().zip(weights) {
                                        *average += share * (w - *average);
                                    }
                                })
                            },
                        );
                    })))?;
                }
                Some(average) => {
                    *average = (&*average + ((weights - &*average)? * share)?)?;
                }
                None => {
                    self.averages.insert(parameter.name.clone(), weights.copy()?);
                }
            }
        }
        Ok(())
    }

    /// Number of updates.
    pub fn updates(&self) -> usize {
        self.updates
    }

    /// The averaged weights by parameter name, the present ones for what was never averaged, for
    /// [`Parameters::load`].
    ///
    /// # Errors
    /// `input_invalid` before the first update.
    pub fn tensors(&self, parameters: &Parameters) -> Result<HashMap<String, Tensor>> {
        if self.updates == 0 {
            return Err(Error::new(ErrorKind::InputInvalid, "no weights were averaged yet"));
        }
        let mut tensors = parameters.to_tensors()?;
        for (name, average) in &self.averages {
            tensors.insert(name.clone(), average.copy()?);
        }
        Ok(tensors)
    }

    /// Everything that a resumed run needs.
    ///
    /// # Errors
    /// When a device copy fails.
    pub fn state(&self) -> Result<HashMap<String, Tensor>> {
        let mut state = HashMap::new();
        let updates = Tensor::new(&[self.updates as i64], &Device::Cpu)?;
        state.insert("average.updates".to_owned(), updates);
        for (name, average) in &self.averages {
            state.insert(format!("average.{name}"), average.copy()?);
        }
        Ok(state)
    }

    /// Restores what [`WeightAverage::state`] gave.
    ///
    /// # Errors
    /// `weights_mismatch` when an entry is missing or has another shape.
    pub fn load_state(
        &mut self,
        parameters: &Parameters,
        state: &HashMap<String, Tensor>,
    ) -> Result<()> {
        let updates = find(state, "average.updates", &[1])?.to_vec1::<i64>()?[0] as usize;
        let mut averages = HashMap::new();
        for parameter in parameters.iter() {
            let name = format!("average.{}", parameter.name);
            if state.contains_key(&name) {
                let value = find(state, &name, parameter.var.dims())?;
                let value =
                    value.to_device(parameter.var.device())?.to_dtype(DType::F32)?.copy()?;
                averages.insert(parameter.name.clone(), value);
            }
        }
        (self.updates, self.averages) = (updates, averages);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::train::golden::{Golden, assert_close, values};
    use crate::train::ops::pool::Pool;

    const CONFIG: AdamWConfig = AdamWConfig {
        beta1: 0.9,
        beta2: 0.98,
        eps: 1e-6,
        weight_decay: 0.1,
        max_grad_norm: Some(1.0),
    };
    const RATES: [f64; 4] = [0.01, 0.03, 0.02, 0.005];

    fn parameters(golden: &Golden) -> Parameters {
        let parameter = |name: &str, decay| Parameter {
            name: name.to_owned(),
            var: Var::from_tensor(golden.tensor(&format!("adamw.{name}.0"))).expect("a tensor"),
            trainable: true,
            decay,
        };
        Parameters { list: vec![parameter("weight", true), parameter("bias", false)] }
    }

    fn gradients(golden: &Golden, step: usize, device: bool) -> Gradients {
        let pool = std::sync::Arc::new(Pool::default());
        let entry = |name: &str| {
            let gradient = golden.tensor(&format!("adamw.grad.{name}.{step}"));
            Some(if device {
                Gradient::Device(gradient.clone())
            } else {
                Gradient::Host(pool.copy(&values(gradient)))
            })
        };
        Gradients { entries: vec![entry("weight"), entry("bias")] }
    }

    #[test]
    fn steps_equal_pytorch() {
        let golden = Golden::load();
        for device in [false, true] {
            let parameters = parameters(&golden);
            let mut optimizer = AdamW::new(CONFIG).expect("valid");
            for (step, rate) in (1..).zip(RATES) {
                let gradients = gradients(&golden, step, device);
                let stats = optimizer.step(&parameters, &gradients, rate).expect("finite");
                assert_eq!(stats.clipped, step % 2 == 1, "step {step}: norm {}", stats.grad_norm);
                for parameter in parameters.iter() {
                    let name = &parameter.name;
                    let expected = golden.values(&format!("adamw.{name}.{step}"));
                    assert_close(name, &values(&parameter.var), &expected, 2e-6, 0.0);
                }
            }
        }
    }

    #[test]
    fn device_steps_equal_host_steps() {
        let golden = Golden::load();
        let parameters = parameters(&golden);
        let weight = parameters.get("weight").expect("known");
        let tensor = |x: &[f32]| Tensor::from_slice(x, weight.var.dims(), &Device::Cpu);
        let update = Update {
            grad_scale: 0.5,
            beta1: 0.9,
            beta2: 0.99,
            step_size: 0.02,
            second_scale: 1.5,
            eps: 1e-6,
            shrink: 0.99,
        };
        let mut w = values(&weight.var);
        let (mut m, mut v) = (vec![0.1; w.len()], vec![0.2; w.len()]);
        let gradient = golden.tensor("adamw.grad.weight.1");
        let moved = device_step(
            &weight.var,
            &tensor(&m).expect("fits"),
            &tensor(&v).expect("fits"),
            gradient,
            update,
        )
        .expect("shapes fit");
        update.apply(&mut w, &mut m, &mut v, &values(gradient));
        assert_close("weights", &values(&moved.weights), &w, 1e-6, 0.0);
        assert_close("first", &values(&moved.first), &m, 1e-6, 0.0);
        assert_close("second", &values(&moved.second), &v, 1e-6, 0.0);
    }

    /// The whole way of a weight on a GPU, with its rows and all at once.
    #[test]
    fn weights_with_moments_on_a_device_move_as_those_in_main_memory() {
        let golden = Golden::load();
        let pool = std::sync::Arc::new(Pool::default());
        let update = Update {
            grad_scale: 0.5,
            beta1: 0.9,
            beta2: 0.99,
            step_size: 0.02,
            second_scale: 1.5,
            eps: 1e-6,
            shrink: 0.99,
        };
        let dense = golden.values("adamw.grad.weight.1");
        let rows = [dense[5..10].to_vec(), dense[20..25].to_vec()].concat();
        let run = |sparse: bool, on_device: bool| {
            let parameters = parameters(&golden);
            let weight = parameters.get("weight").expect("known");
            let dims = weight.var.dims().to_vec();
            let start = |value: f32| vec![value; weight.var.elem_count()];
            let tensor = |x: Vec<f32>, dims: &[usize]| {
                Tensor::from_vec(x, dims, &Device::Cpu).expect("fits")
            };
            let gradient = match (sparse, on_device) {
                (true, true) => Gradient::DeviceRows {
                    rows: Tensor::new(&[1u32, 4], &Device::Cpu).expect("a tensor"),
                    values: tensor(rows.clone(), &[2, 5]),
                },
                (true, false) => Gradient::HostRows { rows: vec![1, 4], values: pool.copy(&rows) },
                (false, true) => Gradient::Device(tensor(dense.clone(), &dims)),
                (false, false) => Gradient::Host(pool.copy(&dense)),
            };
            let mut moments = match on_device {
                true => Moments::Device {
                    first: tensor(start(0.1), &dims),
                    second: tensor(start(0.2), &dims),
                },
                false => Moments::Host { first: start(0.1), second: start(0.2) },
            };
            for _ in 0..2 {
                move_parameter(weight, &gradient, &mut moments, update).expect("fits");
            }
            let mut optimizer = AdamW::new(CONFIG).expect("valid");
            optimizer.moments.insert("weight".to_owned(), moments);
            let state = optimizer.state(&parameters).expect("copies");
            let moment = |which: &str| values(&state[&format!("adamw.{which}.weight")]);
            [values(&weight.var), moment("first"), moment("second")]
        };
        for sparse in [false, true] {
            let (host, device) = (run(sparse, false), run(sparse, true));
            for (device, host) in device.iter().zip(&host) {
                assert_close("moved", device, host, 1e-6, 0.0);
            }
        }
    }

    #[test]
    fn rows_without_gradient_rest() {
        let golden = Golden::load();
        let run = |sparse: bool| {
            let parameters = parameters(&golden);
            let mut optimizer = AdamW::new(CONFIG).expect("valid");
            let pool = std::sync::Arc::new(Pool::default());
            let dense = golden.values("adamw.grad.weight.2");
            let gradient = if sparse {
                let mut rows = dense[5..10].to_vec();
                rows.extend_from_slice(&dense[20..25]);
                Gradient::HostRows { rows: vec![1, 4], values: pool.copy(&rows) }
            } else {
                let mut all = vec![0.0; dense.len()];
                all[5..10].copy_from_slice(&dense[5..10]);
                all[20..25].copy_from_slice(&dense[20..25]);
                Gradient::Host(pool.copy(&all))
            };
            let gradients = Gradients { entries: vec![Some(gradient), None] };
            optimizer.step(&parameters, &gradients, 0.01).expect("finite");
            values(&parameters.get("weight").expect("known").var)
        };
        let (sparse, dense, before) = (run(true), run(false), golden.values("adamw.weight.0"));
        for row in 0..6 {
            let at = row * 5..row * 5 + 5;
            let expected = if row == 1 || row == 4 { &dense } else { &before };
            assert_eq!(sparse[at.clone()], expected[at], "row {row}");
        }
    }

    #[test]
    fn a_restored_optimizer_goes_on_bit_for_bit() {
        let golden = Golden::load();
        let straight = parameters(&golden);
        let mut optimizer = AdamW::new(CONFIG).expect("valid");
        let mut resumed = None;
        for (step, rate) in (1..).zip(RATES) {
            if step == 3 {
                let state = optimizer.state(&straight).expect("copies");
                let copy = parameters(&golden);
                copy.load(&straight.to_tensors().expect("copies")).expect("same shapes");
                let mut other = AdamW::new(CONFIG).expect("valid");
                other.load_state(&copy, &state).expect("complete");
                assert_eq!(other.steps(), 2);
                resumed = Some((copy, other));
            }
            let gradients = gradients(&golden, step, false);
            optimizer.step(&straight, &gradients, rate).expect("finite");
            if let Some((copy, other)) = &mut resumed {
                other.step(copy, &gradients, rate).expect("finite");
            }
        }
        let (copy, _) = resumed.expect("step 3 came");
        for (a, b) in straight.iter().zip(copy.iter()) {
            assert_eq!(values(&a.var), values(&b.var));
        }
    }

    #[test]
    fn a_gradient_that_is_not_finite_changes_nothing() {
        let golden = Golden::load();
        let parameters = parameters(&golden);
        let mut optimizer = AdamW::new(CONFIG).expect("valid");
        let mut gradients = gradients(&golden, 1, false);
        if let Some(Gradient::Host(values)) = &mut gradients.entries[0] {
            values[3] = f32::NAN;
        }
        let error = optimizer.step(&parameters, &gradients, 0.1).expect_err("NaN");
        assert_eq!((error.code(), optimizer.steps()), ("non_finite", 0));
        let weight = &parameters.get("weight").expect("known").var;
        assert_eq!(values(weight), golden.values("adamw.weight.0"));
        let bad = AdamWConfig { beta1: 1.0, ..CONFIG };
        assert_eq!(AdamW::new(bad).err().expect("refused").code(), "input_invalid");
    }

    #[test]
    fn schedules_rise_and_fall() {
        let schedule = Schedule {
            peak: 1.0,
            warmup_steps: 4,
            total_steps: 14,
            decay: Decay::Linear,
            final_fraction: 0.2,
        };
        let at = |schedule: &Schedule, step| (schedule.learning_rate(step) * 1e4).round() / 1e4;
        assert_eq!(
            [0, 3, 4, 9, 14, 99].map(|step| at(&schedule, step)),
            [0.25, 1.0, 1.0, 0.6, 0.2, 0.2]
        );
        let cosine = Schedule { decay: Decay::Cosine, final_fraction: 0.0, ..schedule };
        assert_eq!([4, 9, 14].map(|step| at(&cosine, step)), [1.0, 0.5, 0.0]);
        let constant = Schedule { decay: Decay::Constant, warmup_steps: 0, ..schedule };
        assert_eq!([0, 50].map(|step| at(&constant, step)), [1.0, 1.0]);
    }

    #[test]
    fn averages_of_weights() {
        let golden = Golden::load();
        let parameters = parameters(&golden);
        let set = |value: f64| {
            for parameter in parameters.iter() {
                let value = parameter.var.as_detached_tensor().zeros_like().and_then(|x| x + value);
                parameter.var.set(&value.expect("a tensor")).expect("same shape");
            }
        };
        for (decay, expected) in [(None, 2.0), (Some(0.9), 1.0 + 0.09 + 0.2)] {
            let mut average = WeightAverage::new(decay);
            assert_eq!(average.tensors(&parameters).expect_err("empty").code(), "input_invalid");
            for value in [1.0, 2.0] {
                set(value);
                average.update(&parameters).expect("copies");
            }
            let mut restored = WeightAverage::new(decay);
            let state = average.state().expect("copies");
            restored.load_state(&parameters, &state).expect("complete");
            set(3.0);
            restored.update(&parameters).expect("copies");
            assert_eq!(restored.updates(), 3);
            let tensors = restored.tensors(&parameters).expect("not empty");
            assert_close("average", &values(&tensors["bias"]), &[expected; 5], 1e-6, 0.0);
        }
    }
}
