//! The table of functions that an instruction set fills, and how it is filled.

use super::args::{LayerNormArgs, QuantizedRows, RowsMut, SoftmaxArgs};
use super::attention::{AttentionArgs, AttentionScratch};
use super::packed_matrix::PackedMatrix;
use crate::config::Activation;

/// One table of kernels. Whatever safe code passes, nothing is read or written outside of the slices:
/// what does not fit is a panic.
pub struct Kernels {
    /// `scalar`, `simd128`, `relaxed`, `relaxed-dot`, `avx2`, `avx512vnni`, `amx`.
    pub name: &'static str,
    /// `out[r][c] = f32(Σₖ (a[r][k] − zero[r]) · w[c][k]) · (scale_a[r] · scale_w[c]) + bias[c]`;
    /// `out` is `rows × w.rows()`.
    pub gemm: fn(a: QuantizedRows<'_>, w: &PackedMatrix, out: &mut [f32]),
    /// Exact product of 16-bit integers: `out[r][c] = Σₖ a[r][k] · b[k][c]`. `a` is
    /// `rows × depth` (depth even); `b` holds pairs of depth, `[depth / 2][columns][2]`;
    /// `columns` is a multiple of [`LANES`](super::LANES). The caller keeps every sum within 31 bits.
    pub gemm_i16: fn(a: &[i16], depth: usize, b: &[i16], columns: usize, out: &mut [i32]),
    /// Applies `activation` (if any) to rows of `stride` columns in place, then quantizes them.
    pub quantize_rows:
        fn(x: &mut [f32], stride: usize, activation: Option<Activation>, out: RowsMut<'_>),
    /// `x = LayerNorm(x + residual)` over the first `columns` of each row; see [`LayerNormArgs`]. A
    /// row that is not finite becomes NaN, so that it is seen in the end.
    pub add_layer_norm: fn(x: &mut [f32], residual: Option<&[f32]>, norm: LayerNormArgs<'_>),
    /// Attention probabilities from integer scores; see [`SoftmaxArgs`].
    pub softmax: fn(scores: &mut [i32], args: SoftmaxArgs<'_>, out: &mut [i16], sums: &mut [i32]),
    /// Multi-head self-attention over the tokens of one sentence: per head
    /// `context[t] = Σₖ softmaxₖ(q[t] · k[k] / √d) · v[k]`; `context` is
    /// `tokens × heads · padded(head_size)`.
    pub attention: fn(args: AttentionArgs<'_>, scratch: &mut AttentionScratch, context: &mut [f32]),
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernels").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The table of an instruction set: its tiles, and the row functions compiled for it.
macro_rules! table {
    ($name:literal, $features:literal, $tile:ty, $lanes:ty) => {{
        use crate::config::Activation;
        use crate::kernels::args::{LayerNormArgs, QuantizedRows, RowsMut, SoftmaxArgs};
        use crate::kernels::attention::{self, AttentionArgs, AttentionScratch};
        use crate::kernels::packed_matrix::PackedMatrix;
        use crate::kernels::table::Kernels;
        use crate::kernels::{rows, tiles};

        #[target_feature(enable = $features)]
        fn gemm(a: QuantizedRows<'_>, w: &PackedMatrix, out: &mut [f32]) {
            // SAFETY: this function enables what the tile needs.
            unsafe { tiles::gemm::<$tile>(a, w, out) }
        }
        #[target_feature(enable = $features)]
        fn gemm_i16(a: &[i16], depth: usize, b: &[i16], columns: usize, out: &mut [i32]) {
            // SAFETY: this function enables what the tile needs.
            unsafe { tiles::product_i16::<$tile>((a, depth), depth, (b, columns), out) }
        }
        #[target_feature(enable = $features)]
        fn attend(a: AttentionArgs<'_>, scratch: &mut AttentionScratch, context: &mut [f32]) {
            // SAFETY: this function enables what tile and lanes need.
            unsafe { attention::attention::<$tile, $lanes>(a, scratch, context) }
        }
        #[target_feature(enable = $features)]
        fn quantize(x: &mut [f32], stride: usize, f: Option<Activation>, out: RowsMut<'_>) {
            // SAFETY: this function enables what the lanes need.
            unsafe { rows::quantize_rows::<$lanes>(x, stride, f, out) }
        }
        #[target_feature(enable = $features)]
        fn add_layer_norm(x: &mut [f32], residual: Option<&[f32]>, norm: LayerNormArgs<'_>) {
            // SAFETY: this function enables what the lanes need.
            unsafe { rows::add_layer_norm::<$lanes>(x, residual, norm) }
        }
        #[target_feature(enable = $features)]
        fn softmax(scores: &mut [i32], args: SoftmaxArgs<'_>, out: &mut [i16], sums: &mut [i32]) {
            // SAFETY: this function enables what the lanes need.
            unsafe { $crate::kernels::softmax::softmax::<$lanes>(scores, args, out, sums) }
        }
        // Where the features need no detection, calling these functions is safe.
        #[allow(unused_unsafe)]
        Kernels {
            name: $name,
            // SAFETY (here and below): the table is handed out only where the features were detected
            // or, in WebAssembly, where the module that needs them was accepted.
            gemm: |a, w, out| unsafe { gemm(a, w, out) },
            // SAFETY: as above.
            gemm_i16: |a, depth, b, columns, out| unsafe { gemm_i16(a, depth, b, columns, out) },
            // SAFETY: as above.
            quantize_rows: |x, stride, f, out| unsafe { quantize(x, stride, f, out) },
            // SAFETY: as above.
            add_layer_norm: |x, residual, norm| unsafe { add_layer_norm(x, residual, norm) },
            // SAFETY: as above.
            softmax: |scores, args, out, sums| unsafe { softmax(scores, args, out, sums) },
            // SAFETY: as above.
            attention: |args, scratch, context| unsafe { attend(args, scratch, context) },
        }
    }};
}
pub(super) use table;
