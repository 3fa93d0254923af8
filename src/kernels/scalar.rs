//! The definition: plain loops that say what every other table must compute, bit for bit.

use super::lanes::Plain;
use super::pack::{PackedMatrix, offset};
use super::{Kernels, QuantizedRows, rows};

/// The table of definitions.
pub static KERNELS: Kernels = Kernels {
    name: "scalar",
    gemm,
    gemm_i16,
    // SAFETY of the calls: plain lanes need no instruction set.
    quantize_rows: |x, stride, f, out| unsafe { rows::quantize_rows::<Plain>(x, stride, f, out) },
    add_layer_norm: |x, residual, norm| unsafe { rows::add_layer_norm::<Plain>(x, residual, norm) },
    softmax: |scores, args, out, sums| unsafe { rows::softmax::<Plain>(scores, args, out, sums) },
};

fn gemm(a: QuantizedRows<'_>, w: &PackedMatrix<'_>, out: &mut [f32]) {
    for (r, scale) in a.scales.iter().enumerate() {
        let row = &a.data[r * a.stride..][..w.cols];
        for c in 0..w.rows {
            let mut sum = 0i32;
            for (k, &x) in row.iter().enumerate() {
                sum += x as i32 * w.data[offset(c, k, w.cols)] as i32;
            }
            out[r * w.rows + c] = dequantize(sum, scale.zero_point, scale.scale, w, c);
        }
    }
}

/// The float that an integer sum stands for.
#[inline(always)]
fn dequantize(sum: i32, zero_point: i32, scale: f32, w: &PackedMatrix<'_>, c: usize) -> f32 {
    (sum - zero_point * w.sums[c]) as f32 * (scale * w.scales[c]) + w.bias[c]
}

fn gemm_i16(a: &[i16], depth: usize, b: &[i16], columns: usize, out: &mut [i32]) {
    for (row, out) in a.chunks_exact(depth).zip(out.chunks_exact_mut(columns)) {
        for (c, out) in out.iter_mut().enumerate() {
            *out = row
                .iter()
                .enumerate()
                .map(|(k, &x)| x as i32 * b[(k / 2 * columns + c) * 2 + k % 2] as i32)
                .sum();
        }
    }
}
