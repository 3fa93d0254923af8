//! The arithmetic of the encoder, one table of functions per instruction set.
//!
//! [`scalar`] is the definition. Every other table gives the same bits for the same input:
//! integer sums are exact in any order, and float code uses only correctly rounded operations in
//! a fixed order. Kernels take and return slices, allocate nothing and know nothing of models.
//!
//! Float rows are padded with zeros to a multiple of [`LANES`] columns; packed matrices likewise,
//! so that no kernel needs a remainder in columns or depth.

use crate::config::Activation;
use crate::quant::RowScale;

mod attention;
mod lanes;
#[cfg(feature = "train")]
pub mod matmul;
pub mod pack;
mod rows;
pub mod scalar;
mod softmax;
#[cfg(test)]
mod tests;
mod tiles;
#[cfg(target_arch = "wasm32")]
mod wasm32;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub(crate) use attention::grow;
pub use attention::{AttentionArgs, AttentionScratch};
pub use pack::{PackedMatrix, padded};

/// Columns are padded to a multiple of this many; also the number of partial sums of every float
/// reduction.
pub const LANES: usize = 16;

/// Quantized activations: `scales.len()` rows of `stride` bytes.
#[derive(Clone, Copy)]
pub struct QuantizedRows<'a> {
    /// `rows × stride`, values 0 … 127.
    pub data: &'a [u8],
    /// Padded columns, a multiple of [`LANES`].
    pub stride: usize,
    /// One per row.
    pub scales: &'a [RowScale],
}

/// One table of kernels.
pub struct Kernels {
    /// `scalar`, `simd128`, `relaxed`, `avx2`, `avx512vnni`, `amx`.
    pub name: &'static str,
    /// `out[r][c] = f32(Σₖ (a[r][k] − zero[r]) · w[c][k]) · (scale_a[r] · scale_w[c]) + bias[c]`;
    /// `out` is `rows × w.rows`.
    pub gemm: fn(a: QuantizedRows<'_>, w: &PackedMatrix<'_>, out: &mut [f32]),
    /// Exact product of 16-bit integers: `out[r][c] = Σₖ a[r][k] · b[k][c]`. `a` is
    /// `rows × depth` (depth even); `b` holds pairs of depth, `[depth / 2][columns][2]`;
    /// `columns` is a multiple of [`LANES`]. The caller keeps every sum within 31 bits.
    pub gemm_i16: fn(a: &[i16], depth: usize, b: &[i16], columns: usize, out: &mut [i32]),
    /// Applies `activation` (if any) to rows of `stride` columns in place, then quantizes them.
    pub quantize_rows:
        fn(x: &mut [f32], stride: usize, activation: Option<Activation>, out: RowsMut<'_>),
    /// `x = LayerNorm(x + residual)` over the first `columns` of each row; see [`LayerNormArgs`].
    pub add_layer_norm: fn(x: &mut [f32], residual: Option<&[f32]>, norm: LayerNormArgs<'_>),
    /// Attention weights from integer scores; see [`SoftmaxArgs`].
    pub softmax: fn(scores: &mut [i32], args: SoftmaxArgs<'_>, out: &mut [i16], sums: &mut [i32]),
    /// Multi-head self-attention over the tokens of one sentence: per head
    /// `context[t] = Σₖ softmaxₖ(q[t] · k[k] / √d) · v[k]`; `context` is
    /// `tokens × heads · padded(head_size)`.
    pub attention: fn(args: AttentionArgs<'_>, scratch: &mut AttentionScratch, context: &mut [f32]),
}

/// Where [`Kernels::quantize_rows`] writes.
pub struct RowsMut<'a> {
    /// `rows × stride` bytes.
    pub data: &'a mut [u8],
    /// One per row.
    pub scales: &'a mut [RowScale],
}

/// Arguments of [`Kernels::add_layer_norm`]: `(x − mean) / sqrt(variance + eps) · weight + bias`.
#[derive(Clone, Copy)]
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

/// Arguments of [`Kernels::softmax`]: score `[r][k]` stands for `scores[r][k] · steps[r]`; the output
/// is `round(8192 · exp(score − row maximum))`, zero from `keys` to `stride`, and its sum. `scores` is
/// used up; two of a row differ by less than 2³¹.
#[derive(Clone, Copy)]
pub struct SoftmaxArgs<'a> {
    /// Real keys of a row.
    pub keys: usize,
    /// Columns of `scores` and of `out`, a multiple of [`LANES`].
    pub stride: usize,
    /// One per row, not negative.
    pub steps: &'a [f32],
}

/// Joins [`LANES`] partial sums in the fixed tree: 16 → 8 → 4 → 2 → 1.
pub(crate) fn tree_sum(sums: [f32; LANES]) -> f32 {
    rows::tree(sums, |a, b| a + b)
}

/// The best table for this machine.
pub fn select() -> &'static Kernels {
    #[cfg(target_arch = "wasm32")]
    return wasm32::select();
    #[cfg(target_arch = "x86_64")]
    return x86_64::select();
    #[cfg(not(any(target_arch = "wasm32", target_arch = "x86_64")))]
    return &scalar::KERNELS;
}

/// [`pack::channel_sums`], as fast as it goes here.
pub(crate) fn channel_sums(data: &[i8], rows: usize, cols: usize) -> Option<Vec<i32>> {
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    return wasm32::channel_sums(data, rows, cols);
    #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
    pack::channel_sums(data, rows, cols)
}

/// [`pack::exact_steps`] if the products of this machine's best table add in 16 bits; nothing otherwise.
pub(crate) fn exact_steps(data: &[i8], rows: usize, cols: usize) -> Vec<u8> {
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    if wasm32::add_in_16_bits() {
        return wasm32::exact_steps(data, rows, cols);
    }
    let _ = (data, rows, cols);
    Vec::new()
}

/// Every table that runs on this machine, the definition first.
pub fn available() -> Vec<&'static Kernels> {
    #[allow(unused_mut)]
    let mut tables = vec![&scalar::KERNELS];
    #[cfg(target_arch = "wasm32")]
    tables.extend(wasm32::available());
    #[cfg(target_arch = "x86_64")]
    tables.extend(x86_64::available());
    tables
}
