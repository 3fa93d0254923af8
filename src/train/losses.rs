//! Losses, each a scalar tensor with gradients. Sentence vectors need not be normalized: every loss
//! on angles does that itself.

use candle_core::{Tensor, Var};

use super::model::BertModel;
use crate::error::Result;

/// The rows of `x` (`n × hidden`) divided by their L2 norms.
///
/// # Errors
/// When a tensor operation fails (wrong rank).
pub fn normalize(_x: &Tensor) -> Result<Tensor> {
    todo!()
}

/// The cosine of row `i` of `a` and row `i` of `b` (`n × hidden` both): `n` values.
///
/// # Errors
/// `input_invalid` when the shapes differ.
pub fn pair_cosine(_a: &Tensor, _b: &Tensor) -> Result<Tensor> {
    todo!()
}

/// Supervised SimCSE (Gao et al. 2021, eq. 5): every anchor against all positives and all hard
/// negatives of the batch, cosine / `temperature`, cross entropy.
///
/// `positives` is `n × hidden` (row i belongs to anchor i), `negatives` `m × hidden`, any number.
/// With `groups` (one per anchor) all positives whose anchor is of the same group count as
/// positives of each other (the mean of their log-probabilities is taken, as in SupCon), so that
/// repeated premises and paraphrase sets are not pushed apart.
///
/// # Errors
/// `input_invalid` when shapes, groups or temperature do not fit.
pub fn supervised_simcse(
    _anchors: &Tensor,
    _positives: &Tensor,
    _negatives: Option<&Tensor>,
    _groups: Option<&[u32]>,
    _temperature: f32,
) -> Result<Tensor> {
    todo!()
}

/// Mean squared error of the cosine of each pair against `scores` (say, 0 … 1).
///
/// # Errors
/// `input_invalid` when the numbers of rows differ.
pub fn cosine_mse(_a: &Tensor, _b: &Tensor, _scores: &[f32]) -> Result<Tensor> {
    todo!()
}

/// CoSENT (Su 2022): `log(1 + Σ exp(scale · (cosᵢ − cosⱼ)))` over all pairs with scoreᵢ < scoreⱼ;
/// only the order of the scores counts. The usual `scale` is 20.
///
/// # Errors
/// `input_invalid` when the numbers of rows differ.
pub fn cosent(_a: &Tensor, _b: &Tensor, _scores: &[f32], _scale: f32) -> Result<Tensor> {
    todo!()
}

/// Mean squared difference of two `tokens × hidden` states; the teacher's side gets no gradient.
///
/// # Errors
/// `input_invalid` when the shapes differ.
pub fn token_state_mse(_student: &Tensor, _teacher: &Tensor) -> Result<Tensor> {
    todo!()
}

/// Mean of `1 − cos` between student and teacher vectors; the teacher's side gets no gradient.
///
/// # Errors
/// `input_invalid` when the shapes differ.
pub fn pooled_cosine_distance(_student: &Tensor, _teacher: &Tensor) -> Result<Tensor> {
    todo!()
}

/// Kullback–Leibler divergence from the teacher's to the student's distribution of similarities
/// within the batch: row-wise softmax of cosine / `tau` over the other sentences (the diagonal is
/// left out). The widths of student and teacher may differ; the teacher gets no gradient.
///
/// # Errors
/// `input_invalid` when the numbers of rows differ or are below 2.
pub fn similarity_kl(_student: &Tensor, _teacher: &Tensor, _tau: f32) -> Result<Tensor> {
    todo!()
}

/// Binary cross entropy of `sigmoid(logits)` against `targets` in 0 … 1, the usual loss of a
/// cross-encoder that regresses similarity. `logits` is `n` or `n × 1`.
///
/// # Errors
/// `input_invalid` when the numbers differ.
pub fn binary_cross_entropy(_logits: &Tensor, _targets: &[f32]) -> Result<Tensor> {
    todo!()
}

/// Cross entropy of `n × classes` logits against class numbers.
///
/// # Errors
/// `input_invalid` when the numbers differ or a class is out of range.
pub fn cross_entropy(_logits: &Tensor, _classes: &[u32]) -> Result<Tensor> {
    todo!()
}

/// The head of a cross-encoder: `linear(tanh(linear(first token's state)))`, as RoBERTa's
/// classification head. Its weights live in the model's parameters (`head.…`).
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
    pub fn attach(_model: &mut BertModel, _outputs: usize, _seed: u64) -> Result<Self> {
        todo!()
    }

    /// `n × outputs` logits from `n × hidden` vectors.
    ///
    /// # Errors
    /// When the width does not fit.
    pub fn forward(&self, _vectors: &Tensor) -> Result<Tensor> {
        let _ = (&self.dense_weight, &self.dense_bias, &self.out_weight, &self.out_bias);
        todo!()
    }
}
