//! Values rounded as the run time will round them, kept as floats. Gradients pass straight through,
//! so there is no backward pass here: the ranges are those of the values, and nothing is clipped.

use super::vector::for_row_blocks;
use crate::quant::{RowScale, round_to_i32, symmetric_scale};

/// Rounds each row of `x` to the run time's 7-bit activations.
pub fn activations(x: &mut [f32], cols: usize) {
    for_row_blocks(x, cols, |_, rows| {
        for row in rows.chunks_exact_mut(cols) {
            let (min, max) = range(row);
            let scale = RowScale::from_range(min, max);
            row.iter_mut().for_each(|x| *x = scale.dequantize(scale.quantize(*x)));
        }
    });
}

/// Rounds each row (output channel, or embedding row) of `x` symmetrically to ±`limit`.
pub fn symmetric(x: &mut [f32], cols: usize, limit: i8) {
    for_row_blocks(x, cols, |_, rows| {
        rows.chunks_exact_mut(cols).for_each(|row| symmetric_row(row, limit));
    });
}

/// Rounds one row as [`quantize_symmetric`](crate::quant::quantize_symmetric) does, without the
/// integers in between.
#[inline(always)]
pub fn symmetric_row(row: &mut [f32], limit: i8) {
    let scale = symmetric_scale(row, limit);
    let limit = limit as i32;
    if scale == 0.0 {
        row.fill(0.0);
    } else {
        row.iter_mut()
            .for_each(|x| *x = round_to_i32(*x / scale).clamp(-limit, limit) as f32 * scale);
    }
}

/// Minimum and maximum with 0 among them, in lanes that vectorize.
#[inline(always)]
fn range(row: &[f32]) -> (f32, f32) {
    let (mut min, mut max) = ([0.0f32; 16], [0.0f32; 16]);
    let blocks = row.chunks_exact(16);
    let rest = blocks.remainder();
    let mut take = |lane: usize, x: f32| {
        min[lane] = if x < min[lane] { x } else { min[lane] };
        max[lane] = if x > max[lane] { x } else { max[lane] };
    };
    for block in blocks {
        block.iter().enumerate().for_each(|(lane, &x)| take(lane, x));
    }
    rest.iter().enumerate().for_each(|(lane, &x)| take(lane, x));
    (min.into_iter().fold(0.0, f32::min), max.into_iter().fold(0.0, f32::max))
}

#[cfg(test)]
mod tests {
    use super::super::testing::noise;
    use super::*;
    use crate::quant::{quantize_symmetric, row_scale};

    #[test]
    fn equals_the_run_time_quantizer() {
        let (rows, cols) = (40, 37);
        let x = noise(rows * cols, 1);
        let mut rounded = x.clone();
        activations(&mut rounded, cols);
        for (row, rounded) in x.chunks(cols).zip(rounded.chunks(cols)) {
            let scale = row_scale(row);
            for (&x, &rounded) in row.iter().zip(rounded) {
                assert_eq!(rounded, scale.dequantize(scale.quantize(x)));
            }
        }
        for limit in [127, 63, 31] {
            let mut rounded = x.clone();
            symmetric(&mut rounded, cols, limit);
            for (row, rounded) in x.chunks(cols).zip(rounded.chunks(cols)) {
                let mut integers = vec![0i8; cols];
                let scale = quantize_symmetric(row, limit, &mut integers);
                for (&q, &rounded) in integers.iter().zip(rounded) {
                    assert_eq!(rounded, q as f32 * scale);
                }
            }
        }
    }
}
