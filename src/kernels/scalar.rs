//! The definition: plain loops that say what every other table must compute, bit for bit.

use super::lanes::Plain;
use super::pack::{PackedMatrix, offset};
use super::tiles::{Out, Panel, Rows, RowsI16, Tile};
use super::{Kernels, LANES, QuantizedRows, attention, rows, softmax};
use crate::quant::RowScale;

/// The table of definitions.
pub static KERNELS: Kernels = Kernels {
    name: "scalar",
    gemm,
    gemm_i16,
    // SAFETY of the calls: plain lanes need no instruction set.
    quantize_rows: |x, stride, f, out| unsafe { rows::quantize_rows::<Plain>(x, stride, f, out) },
    add_layer_norm: |x, residual, norm| unsafe { rows::add_layer_norm::<Plain>(x, residual, norm) },
    softmax: |scores, args, out, sums| unsafe {
        softmax::softmax::<Plain>(scores, args, out, sums)
    },
    attention: |args, scratch, context| unsafe {
        attention::attention::<PlainTile, Plain>(args, scratch, context)
    },
};

fn gemm(a: QuantizedRows<'_>, w: &PackedMatrix<'_>, out: &mut [f32]) {
    for (r, scale) in a.scales.iter().enumerate() {
        let row = &a.data[r * a.stride..][..w.cols];
        for c in 0..w.rows {
            let sum: i32 = row
                .iter()
                .enumerate()
                .map(|(k, &x)| x as i32 * w.data[offset(c, k, w.cols)] as i32)
                .sum();
            let sum = (sum - scale.zero_point * w.sums[c]) as f32;
            out[r * w.rows + c] = sum * (scale.scale * w.scales[c]) + w.bias[c];
        }
    }
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

/// The 16-bit product for attention, which is defined over tiles.
struct PlainTile;

impl Tile for PlainTile {
    const ROWS: usize = 1;
    const ROWS_I16: usize = 1;

    unsafe fn block<const R: usize>(_: Rows, _: Panel<'_>, _: &[RowScale; R], _: Out<f32>) {
        unreachable!("the definition's gemm has no tiles")
    }

    unsafe fn block_i16<const R: usize>(
        a: RowsI16,
        depth: usize,
        b: *const i16,
        columns: usize,
        out: Out<i32>,
    ) {
        for r in 0..R {
            for c in 0..LANES {
                // SAFETY: the caller's promises (see `Tile::block_i16`).
                unsafe {
                    let sum: i32 = (0..depth)
                        .map(|k| {
                            let x = *a.data.add(r * a.stride + k) as i32;
                            x * *b.add((k / 2 * columns + c) * 2 + k % 2) as i32
                        })
                        .sum();
                    *out.data.add(r * out.stride + c) = sum;
                }
            }
        }
    }
}
