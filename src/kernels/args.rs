//! What kernels take and where they write.

use crate::quant::RowScale;

/// Quantized activations: `scales.len()` rows of `stride` bytes.
#[derive(Clone, Copy, Debug)]
pub struct QuantizedRows<'a> {
    /// `rows × stride`, values 0 … 127.
    pub data: &'a [u8],
    /// Padded columns, a multiple of [`LANES`](super::LANES).
    pub stride: usize,
    /// One per row.
    pub scales: &'a [RowScale],
}

/// Where [`Kernels::quantize_rows`](super::Kernels::quantize_rows) writes.
#[derive(Debug)]
pub struct RowsMut<'a> {
    /// `rows × stride` bytes.
    pub data: &'a mut [u8],
    /// One per row.
    pub scales: &'a mut [RowScale],
}

/// Arguments of [`Kernels::add_layer_norm`](super::Kernels::add_layer_norm):
/// `(x − mean) / sqrt(variance + eps) · weight + bias`.
#[derive(Clone, Copy, Debug)]
pub struct LayerNormArgs<'a> {
    /// Real columns of a row; the stride is `weight.len()`.
    pub columns: usize,
    /// Gain, padded with zeros.
    pub weight: &'a [f32],
    /// Bias, padded with zeros.
    pub bias: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
}

/// Arguments of [`Kernels::softmax`](super::Kernels::softmax): score `[r][k]` stands for
/// `scores[r][k] · score_scales[r]`; the output is `round(8192 · exp(score − row maximum))`, zero from
/// `keys` to `stride`, and its sum. `scores` is used up; two of a row differ by less than 2³¹.
#[derive(Clone, Copy, Debug)]
pub struct SoftmaxArgs<'a> {
    /// Real keys of a row.
    pub keys: usize,
    /// Columns of `scores` and of `out`, a multiple of [`LANES`](super::LANES).
    pub stride: usize,
    /// One per row, not negative.
    pub score_scales: &'a [f32],
}
