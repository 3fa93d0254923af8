//! `LayerNorm(dropout(x) + residual)` and its gradients.

use rayon::prelude::*;

use super::dropout::Mask;
use super::vector::{ROW_BLOCK, dot16, simd, sum16};

/// Normalizes each row of `x`, after `dropout` and the addition of `residual`.
///
/// On return `x` holds the normalized rows before gain and bias, `y` the result, and `inverse` one
/// over each row's standard deviation; [`backward`] wants the first and the last.
#[expect(clippy::too_many_arguments, reason = "one fused pass over the rows")]
pub fn forward(
    x: &mut [f32],
    residual: Option<&[f32]>,
    dropout: Option<Mask>,
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    y: &mut [f32],
    inverse: &mut [f32],
) {
    let cols = weight.len();
    assert_eq!(x.len(), y.len());
    assert_eq!(x.len(), inverse.len() * cols);
    assert!(residual.is_none_or(|residual| residual.len() == x.len()));
    let block = ROW_BLOCK * cols;
    x.par_chunks_mut(block)
        .zip(y.par_chunks_mut(block))
        .zip(inverse.par_chunks_mut(ROW_BLOCK))
        .enumerate()
        .for_each(|(index, ((x, y), inverse))| {
            simd(
                #[inline(always)]
                || {
                    if let Some(mask) = dropout {
                        mask.apply_from(x, index * block);
                    }
                    if let Some(residual) = residual {
                        let residual = &residual[index * block..][..x.len()];
                        x.iter_mut().zip(residual).for_each(|(x, &r)| *x += r);
                    }
                    for ((x, y), inverse) in
                        x.chunks_exact_mut(cols).zip(y.chunks_exact_mut(cols)).zip(inverse)
                    {
                        let mean = sum16(x, |x| x) / cols as f32;
                        let variance = sum16(x, |x| (x - mean) * (x - mean)) / cols as f32;
                        *inverse = 1.0 / (variance + eps).sqrt();
                        for (((x, y), &w), &b) in x.iter_mut().zip(y).zip(weight).zip(bias) {
                            *x = (*x - mean) * *inverse;
                            *y = *x * w + b;
                        }
                    }
                },
            )
        });
}

/// The gradient before normalization, from the gradient `dy` after it; `dx` and `dy` may not be the
/// same slice. Gain and bias get theirs by [`super::vector::column_dots`] of `dy` and `normalized` and
/// [`super::vector::column_sums`] of `dy`.
pub fn backward(dy: &[f32], normalized: &[f32], inverse: &[f32], weight: &[f32], dx: &mut [f32]) {
    let cols = weight.len();
    assert_eq!(dx.len(), dy.len());
    assert_eq!(dx.len(), normalized.len());
    assert_eq!(dx.len(), inverse.len() * cols);
    let block = ROW_BLOCK * cols;
    dx.par_chunks_mut(block)
        .zip(dy.par_chunks(block))
        .zip(normalized.par_chunks(block))
        .zip(inverse.par_chunks(ROW_BLOCK))
        .for_each(|(((dx, dy), normalized), inverse)| {
            simd(
                #[inline(always)]
                || {
                    for (((dx, dy), normalized), &inverse) in dx
                        .chunks_exact_mut(cols)
                        .zip(dy.chunks_exact(cols))
                        .zip(normalized.chunks_exact(cols))
                        .zip(inverse)
                    {
                        for ((dx, &dy), &w) in dx.iter_mut().zip(dy).zip(weight) {
                            *dx = dy * w;
                        }
                        let mean = sum16(dx, |dx| dx) / cols as f32;
                        let slope = dot16(dx, normalized) / cols as f32;
                        for (dx, &n) in dx.iter_mut().zip(normalized) {
                            *dx = (*dx - mean - n * slope) * inverse;
                        }
                    }
                },
            )
        });
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_gradient, noise};
    use super::super::vector::{column_dots, column_sums};
    use super::*;

    const ROWS: usize = 3;
    const COLS: usize = 21;

    fn loss(x: &[f32], residual: &[f32], w: &[f32], b: &[f32], target: &[f32]) -> f64 {
        let (mut x, mut y) = (x.to_vec(), vec![0.0; x.len()]);
        let mut inverse = vec![0.0; ROWS];
        let mask = Mask::new(0.2, 3, 1);
        forward(&mut x, Some(residual), mask, w, b, 1e-5, &mut y, &mut inverse);
        y.iter().zip(target).map(|(&y, &t)| y as f64 * t as f64).sum()
    }

    #[test]
    fn gradients_agree_with_differences() {
        let n = ROWS * COLS;
        let (x, residual, target) = (noise(n, 1), noise(n, 2), noise(n, 3));
        let (w, b) = (noise(COLS, 4), noise(COLS, 5));
        let (mut normalized, mut y, mut inverse) = (x.clone(), vec![0.0; n], vec![0.0; ROWS]);
        let mask = Mask::new(0.2, 3, 1);
        forward(&mut normalized, Some(&residual), mask, &w, &b, 1e-5, &mut y, &mut inverse);
        let mut dx = vec![0.0; n];
        backward(&target, &normalized, &inverse, &w, &mut dx);
        let (mut dw, mut db) = (vec![0.0; COLS], vec![0.0; COLS]);
        column_dots(&target, &normalized, COLS, &mut dw);
        column_sums(&target, COLS, &mut db);
        check_gradient("residual", &residual, &dx, 1e-3, |r| loss(&x, r, &w, &b, &target));
        mask.expect("p is not 0").apply(&mut dx);
        check_gradient("x", &x, &dx, 1e-3, |x| loss(x, &residual, &w, &b, &target));
        check_gradient("weight", &w, &dw, 1e-3, |w| loss(&x, &residual, w, &b, &target));
        check_gradient("bias", &b, &db, 1e-3, |b| loss(&x, &residual, &w, b, &target));
    }
}
