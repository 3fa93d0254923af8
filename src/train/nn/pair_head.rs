//! What turns the vector of a pair of texts into a score.

use candle_core::{DType, Tensor, Var};

use super::bert::BertModel;
use super::random::random_values;
use crate::error::Result;

/// The head of a cross-encoder: `linear(tanh(linear(vector)))`, as RoBERTa's classification head on
/// the pooled vector. Its weights live in the model's parameters (`head.…`).
pub struct PairHead {
    dense_weight: Var,
    dense_bias: Var,
    out_weight: Var,
    out_bias: Var,
}

impl PairHead {
    /// Adds a head with `outputs` logits to `model`, randomly initialized from `seed`.
    ///
    /// # Errors
    /// `input_invalid` if the model has a head already.
    pub fn attach(model: &mut BertModel, outputs: usize, seed: u64) -> Result<Self> {
        let hidden = model.config().hidden_size;
        let device = model.device().clone();
        let matrix = |rows: usize, seed: u64| {
            Tensor::from_vec(random_values(rows * hidden, 0.02, seed), (rows, hidden), &device)
        };
        let zeros = |len: usize| Tensor::zeros(len, DType::F32, &device);
        Ok(PairHead {
            dense_weight: model.add_parameter("head.dense.weight", matrix(hidden, seed)?, true)?,
            dense_bias: model.add_parameter("head.dense.bias", zeros(hidden)?, false)?,
            out_weight: model.add_parameter(
                "head.out.weight",
                matrix(outputs, seed.wrapping_add(1))?,
                true,
            )?,
            out_bias: model.add_parameter("head.out.bias", zeros(outputs)?, false)?,
        })
    }

    /// `n × outputs` logits from `n × hidden` vectors, such as
    /// [`ForwardOutput::pooled`](super::output::ForwardOutput::pooled).
    ///
    /// # Errors
    /// When the width does not fit.
    pub fn forward(&self, vectors: &Tensor) -> Result<Tensor> {
        let inner = vectors.matmul(&self.dense_weight.t()?)?.broadcast_add(&self.dense_bias)?;
        let inner = inner.tanh()?;
        Ok(inner.matmul(&self.out_weight.t()?)?.broadcast_add(&self.out_bias)?)
    }
}
