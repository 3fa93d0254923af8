//! Averages of weights.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::in_place::{BLOCK, change_in_place};
use crate::error::{Error, ErrorKind, Result};
use crate::train::nn::host::HostSlice;
use crate::train::nn::ops::vector::simd;
use crate::train::nn::parameters::{Parameters, find};

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
                    change_in_place(average, |average| {
                        average.par_chunks_mut(BLOCK).zip(weights.par_chunks(BLOCK)).for_each(
                            |(average, weights)| {
                                simd(|| {
                                    for (average, &w) in average.iter_mut().zip(weights) {
                                        *average += share * (w - *average);
                                    }
                                })
                            },
                        );
                    })?;
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
    use crate::train::nn::parameters::Parameter;

    fn parameters(golden: &Golden) -> Parameters {
        let parameter = |name: &str, decay| Parameter {
            name: name.to_owned(),
            var: Var::from_tensor(golden.tensor(&format!("adamw.{name}.0"))).expect("a tensor"),
            trainable: true,
            decay,
        };
        Parameters { list: vec![parameter("weight", true), parameter("bias", false)] }
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
