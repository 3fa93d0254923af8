//! Named weights.

use std::collections::HashMap;

use candle_core::{DType, Tensor, Var};

use crate::error::{Error, ErrorKind, Result};

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

impl Parameter {
    /// The value for a differentiable expression: with gradients only if it is trainable.
    pub(super) fn tensor(&self) -> Tensor {
        if self.trainable { self.var.as_tensor().clone() } else { self.var.as_detached_tensor() }
    }
}

/// The weights of a model in a fixed order.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    pub(in crate::train) list: Vec<Parameter>,
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
        let size = |parameter: &Parameter| parameter.var.elem_count();
        let all = self.list.iter().map(size).sum();
        (all, self.list.iter().filter(|parameter| parameter.trainable).map(size).sum())
    }

    /// Copies of all values by name, ready for a safetensors file.
    ///
    /// # Errors
    /// When a device copy fails.
    pub fn to_tensors(&self) -> Result<HashMap<String, Tensor>> {
        self.list
            .iter()
            .map(|parameter| {
                Ok((parameter.name.clone(), parameter.var.as_detached_tensor().copy()?))
            })
            .collect()
    }

    /// Sets every parameter from `tensors`; extra entries are ignored.
    ///
    /// # Errors
    /// `weights_mismatch` when one is missing or has another shape; nothing is changed then.
    pub fn load(&self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        let values = self
            .list
            .iter()
            .map(|parameter| {
                let value = find(tensors, &parameter.name, parameter.var.dims())?;
                Ok(value.to_device(parameter.var.device())?.to_dtype(DType::F32)?)
            })
            .collect::<Result<Vec<Tensor>>>()?;
        for (parameter, value) in self.list.iter().zip(values) {
            parameter.var.set(&value)?;
        }
        Ok(())
    }

    /// An error naming the first parameter that holds a NaN or an infinity.
    ///
    /// # Errors
    /// `non_finite`.
    pub fn check_finite(&self) -> Result<()> {
        for parameter in &self.list {
            let sum = parameter.var.as_detached_tensor().abs()?.max_all()?.to_scalar::<f32>()?;
            let total = parameter.var.as_detached_tensor().sum_all()?.to_scalar::<f32>()?;
            // A maximum may pass over NaN; a sum does not.
            if !sum.is_finite() || total.is_nan() {
                return Err(Error::new(
                    ErrorKind::NonFinite,
                    format!("{} holds values that are not finite", parameter.name),
                ));
            }
        }
        Ok(())
    }
}

/// The tensor `name` of `tensors`, if it has the shape `dims`.
pub(in crate::train) fn find<'a>(
    tensors: &'a HashMap<String, Tensor>,
    name: &str,
    dims: &[usize],
) -> Result<&'a Tensor> {
    let tensor = tensors.get(name).ok_or_else(|| {
        Error::new(ErrorKind::WeightsMismatch, format!("tensor {name} is missing"))
    })?;
    if tensor.dims() != dims {
        return Err(Error::new(
            ErrorKind::WeightsMismatch,
            format!("tensor {name} has shape {:?}; expected {dims:?}", tensor.dims()),
        ));
    }
    Ok(tensor)
}
