//! The gradients of a model's parameters.

use candle_core::{DType, Tensor};

#[cfg(feature = "cuda")]
use super::gpu;
use super::ops::pool::Buffer;
use super::ops::vector::{add_in_place, dot16, simd};
use super::parameters::Parameters;
use crate::error::{Error, ErrorKind, Result};

/// One parameter's gradient.
pub(in crate::train) enum Gradient {
    /// All values, in main memory.
    Host(Buffer),
    /// Some rows of a matrix in main memory, ascending; all others are 0.
    HostRows { rows: Vec<u32>, values: Buffer },
    /// All values, on the model's device.
    Device(Tensor),
    /// Some rows (ascending) on the model's device: indices and values.
    DeviceRows { rows: Tensor, values: Tensor },
}

/// The gradients of one or more backward passes, parallel to a model's [`Parameters`].
pub struct Gradients {
    pub(in crate::train) entries: Vec<Option<Gradient>>,
}

impl Gradients {
    pub(super) fn empty(len: usize) -> Self {
        Gradients { entries: (0..len).map(|_| None).collect() }
    }

    /// Adds `other` (of the same model) to `self`, for accumulation over small batches.
    ///
    /// # Errors
    /// `input_invalid` if they belong to different models.
    pub fn accumulate(&mut self, other: Gradients) -> Result<()> {
        if self.entries.len() != other.entries.len() {
            return Err(Error::new(
                ErrorKind::InputInvalid,
                "gradients of different models cannot be added",
            ));
        }
        for (entry, other) in self.entries.iter_mut().zip(other.entries) {
            if let Some(other) = other {
                add_gradient(entry, other)?;
            }
        }
        Ok(())
    }

    /// Multiplies everything by `factor`, such as one over the number of accumulated batches.
    ///
    /// # Errors
    /// When a device operation fails.
    pub fn scale(&mut self, factor: f32) -> Result<()> {
        for entry in self.entries.iter_mut().flatten() {
            match entry {
                Gradient::Host(values) | Gradient::HostRows { values, .. } => {
                    values.iter_mut().for_each(|value| *value *= factor);
                }
                Gradient::Device(values) | Gradient::DeviceRows { values, .. } => {
                    *values = (&*values * factor as f64)?;
                }
            }
        }
        Ok(())
    }

    /// The L2 norm of everything together; not finite if any gradient is not.
    ///
    /// # Errors
    /// When a device operation fails.
    pub fn global_norm(&self) -> Result<f32> {
        use rayon::prelude::*;
        const BLOCK: usize = 1 << 14;
        let mut total = 0.0f64;
        // One number comes back from a GPU, not one for each parameter, which would be waited for.
        #[cfg(feature = "cuda")]
        let mut on_gpu: Option<gpu::Squares> = None;
        for entry in self.entries.iter().flatten() {
            total += match entry {
                #[cfg(feature = "cuda")]
                Gradient::Device(values) | Gradient::DeviceRows { values, .. }
                    if values.device().is_cuda() =>
                {
                    let squares = match &mut on_gpu {
                        Some(squares) => squares,
                        None => on_gpu.insert(gpu::Squares::new(values.device())?),
                    };
                    squares.add(values)?;
                    0.0
                }
                Gradient::Host(values) | Gradient::HostRows { values, .. } => {
                    let blocks: Vec<f32> = values
                        .par_chunks(BLOCK)
                        .map(|block| simd(|| dot16(block, block)))
                        .collect();
                    blocks.into_iter().map(f64::from).sum::<f64>()
                }
                Gradient::Device(values) | Gradient::DeviceRows { values, .. } => {
                    values.sqr()?.sum_all()?.to_scalar::<f32>()? as f64
                }
            };
        }
        #[cfg(feature = "cuda")]
        if let Some(squares) = on_gpu {
            total += squares.total()?;
        }
        Ok(total.sqrt() as f32)
    }

    /// A dense copy of one gradient; `None` if the parameter got none.
    ///
    /// # Errors
    /// `input_invalid` if there is no such parameter; or when a device operation fails.
    pub fn dense(&self, parameters: &Parameters, name: &str) -> Result<Option<Tensor>> {
        let index =
            parameters.iter().position(|parameter| parameter.name == name).ok_or_else(|| {
                Error::new(ErrorKind::InputInvalid, format!("there is no parameter called {name}"))
            })?;
        let var = &parameters.list[index].var;
        let Some(gradient) = self.entries.get(index).and_then(Option::as_ref) else {
            return Ok(None);
        };
        Ok(Some(match gradient {
            Gradient::Host(values) => Tensor::from_slice(values, var.dims(), var.device())?,
            Gradient::HostRows { rows, values } => {
                let cols = var.dim(1)?;
                let mut dense = vec![0.0f32; var.elem_count()];
                for (&row, values) in rows.iter().zip(values.chunks_exact(cols)) {
                    dense[row as usize * cols..][..cols].copy_from_slice(values);
                }
                Tensor::from_vec(dense, var.dims(), var.device())?
            }
            Gradient::Device(values) => values.clone(),
            Gradient::DeviceRows { rows, values } => {
                var.as_detached_tensor().zeros_like()?.index_add(rows, values, 0)?
            }
        }))
    }
}

/// `entry += other`.
pub(super) fn add_gradient(entry: &mut Option<Gradient>, other: Gradient) -> Result<()> {
    *entry = Some(match (entry.take(), other) {
        (None, other) => other,
        (Some(Gradient::Host(mut sum)), Gradient::Host(values)) => {
            add_in_place(&mut sum, &values);
            Gradient::Host(sum)
        }
        (
            Some(Gradient::HostRows { rows: a_rows, values: a }),
            Gradient::HostRows { rows: b_rows, values: b },
        ) => merge_rows(a_rows, a, b_rows, b),
        (Some(Gradient::Device(sum)), Gradient::Device(values)) => {
            Gradient::Device((sum + values)?)
        }
        (
            Some(Gradient::DeviceRows { rows: a_rows, values: a }),
            Gradient::DeviceRows { rows: b_rows, values: b },
        ) => {
            let (a_list, b_list) = (a_rows.to_vec1::<u32>()?, b_rows.to_vec1::<u32>()?);
            let mut rows: Vec<u32> = a_list.iter().chain(&b_list).copied().collect();
            rows.sort_unstable();
            rows.dedup();
            let place = |list: &[u32]| {
                let found: Vec<u32> = list
                    .iter()
                    .map(|row| rows.partition_point(|other| other < row) as u32)
                    .collect();
                Tensor::from_vec(found, list.len(), a.device())
            };
            let sum = Tensor::zeros((rows.len(), a.dim(1)?), DType::F32, a.device())?
                .index_add(&place(&a_list)?, &a, 0)?
                .index_add(&place(&b_list)?, &b, 0)?;
            let len = rows.len();
            Gradient::DeviceRows { rows: Tensor::from_vec(rows, len, a.device())?, values: sum }
        }
        _ => {
            return Err(Error::new(
                ErrorKind::InputInvalid,
                "gradients of different kinds cannot be added",
            ));
        }
    });
    Ok(())
}

fn merge_rows(a_rows: Vec<u32>, a: Buffer, b_rows: Vec<u32>, b: Buffer) -> Gradient {
    let cols = a.len() / a_rows.len().max(1);
    let mut rows: Vec<u32> = a_rows.iter().chain(&b_rows).copied().collect();
    rows.sort_unstable();
    rows.dedup();
    let mut values = a.pool().zeros(rows.len() * cols);
    for (part_rows, part) in [(a_rows, a), (b_rows, b)] {
        for (row, part) in part_rows.iter().zip(part.chunks_exact(cols)) {
            let at = rows.partition_point(|other| other < row);
            let out = &mut values[at * cols..][..cols];
            out.iter_mut().zip(part).for_each(|(out, &x)| *out += x);
        }
    }
    Gradient::HostRows { rows, values }
}
