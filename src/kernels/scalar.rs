//! The definition: plain loops that say what every other table must compute, bit for bit.

use super::args::QuantizedRows;
use super::lanes::{LANES, Plain};
use super::pack::offset;
use super::packed_matrix::PackedMatrix;
use super::table::Kernels;
use super::tiles::{Out, Panel, Rows, RowsI16, Tile, check_gemm, product_i16};
use super::{attention, rows, softmax};
use crate::quant::RowScale;

/// The table of definitions.
pub static KERNELS: Kernels = Kernels {
    name: "scalar",
    gemm,
    // SAFETY (here and below): plain tiles and lanes need no instruction set.
    gemm_i16: |a, depth, b, columns, out| unsafe {
        product_i16::<PlainTile>((a, depth), depth, (b, columns), out)
    },
    // SAFETY: as above.
    quantize_rows: |x, stride, f, out| unsafe { rows::quantize_rows::<Plain>(x, stride, f, out) },
    // SAFETY: as above.
    add_layer_norm: |x, residual, norm| unsafe { rows::add_layer_norm::<Plain>(x, residual, norm) },
    // SAFETY: as above.
    softmax: |scores, args, out, sums| unsafe {
        softmax::softmax::<Plain>(scores, args, out, sums)
    },
    // SAFETY: as above.
    attention: |args, scratch, context| unsafe {
        attention::attention::<PlainTile, Plain>(args, scratch, context)
    },
};

fn gemm(a: QuantizedRows<'_>, w: &PackedMatrix, out: &mut [f32]) {
    check_gemm(&a, w, out);
    for (r, scale) in a.scales.iter().enumerate() {
        let row = &a.data[r * a.stride..][..w.cols()];
        for c in 0..w.rows() {
            let weight = |k| i32::from(w.weights()[offset(c, k, w.cols())]);
            let sum: i32 = row.iter().enumerate().map(|(k, &x)| i32::from(x) * weight(k)).sum();
            let sum = (sum - scale.zero_point * w.sums()[c]) as f32;
            out[r * w.rows() + c] = sum * (scale.scale * w.scales()[c]) + w.bias()[c];
        }
    }
}

/// The product of 16 bits, which is defined over tiles.
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
                    // Of numbers that are not finite anything may come, which then wraps.
                    let sum = (0..depth).fold(0i32, |sum, k| {
                        let x = i32::from(*a.data.add(r * a.stride + k));
                        let b = i32::from(*b.add((k / 2 * columns + c) * 2 + k % 2));
                        sum.wrapping_add(x * b)
                    });
                    *out.data.add(r * out.stride + c) = sum;
                }
            }
        }
    }
}
