//! Sums, products and the exponential over slices, for the widest SIMD instructions of the machine and in
//! an order that depends on the sizes alone.

use std::sync::LazyLock;

use rayon::prelude::*;

/// Rows that one thread takes at a time.
pub(crate) const ROW_BLOCK: usize = 32;
/// Columns that one thread takes at a time in sums over rows.
const COLUMN_BLOCK: usize = 64;

static ARCH: LazyLock<pulp::Arch> = LazyLock::new(pulp::Arch::new);

/// Runs `f` compiled for the widest SIMD instructions of this machine.
#[inline(always)]
pub(crate) fn simd<R>(f: impl FnOnce() -> R) -> R {
    ARCH.dispatch(f)
}

/// Calls `f(first row, rows)` for blocks of rows of `x`, in parallel.
pub(crate) fn for_row_blocks(x: &mut [f32], cols: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    x.par_chunks_mut(ROW_BLOCK * cols)
        .enumerate()
        .for_each(|(block, rows)| simd(|| f(block * ROW_BLOCK, rows)));
}

/// `out[c] = Σ_r x[r][c]`, rows in order.
pub fn column_sums(x: &[f32], cols: usize, out: &mut [f32]) {
    assert_eq!(out.len(), cols);
    out.par_chunks_mut(COLUMN_BLOCK).enumerate().for_each(|(block, out)| {
        simd(|| {
            out.fill(0.0);
            let width = out.len();
            for row in x.chunks_exact(cols) {
                let row = &row[block * COLUMN_BLOCK..][..width];
                for (sum, &value) in out.iter_mut().zip(row) {
                    *sum += value;
                }
            }
        })
    });
}

/// `out[c] = Σ_r x[r][c] · y[r][c]`, rows in order.
pub fn column_dots(x: &[f32], y: &[f32], cols: usize, out: &mut [f32]) {
    assert_eq!(out.len(), cols);
    assert_eq!(x.len(), y.len());
    out.par_chunks_mut(COLUMN_BLOCK).enumerate().for_each(|(block, out)| {
        simd(|| {
            out.fill(0.0);
            let width = out.len();
            for (x, y) in x.chunks_exact(cols).zip(y.chunks_exact(cols)) {
                let x = &x[block * COLUMN_BLOCK..][..width];
                let y = &y[block * COLUMN_BLOCK..][..width];
                for ((sum, &x), &y) in out.iter_mut().zip(x).zip(y) {
                    *sum += x * y;
                }
            }
        })
    });
}

/// `x += y`.
pub fn add_in_place(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    const BLOCK: usize = 1 << 14;
    x.par_chunks_mut(BLOCK).zip(y.par_chunks(BLOCK)).for_each(|(x, y)| {
        simd(|| x.iter_mut().zip(y).for_each(|(x, &y)| *x += y));
    });
}

/// A sum in sixteen partial sums, which vectorizes and rounds less than one running sum.
#[inline(always)]
pub(crate) fn sum16(x: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0f32; 16];
    let blocks = x.chunks_exact(16);
    let rest = blocks.remainder();
    for block in blocks {
        for lane in 0..16 {
            sums[lane] += term(block[lane]);
        }
    }
    for (sum, &value) in sums.iter_mut().zip(rest) {
        *sum += term(value);
    }
    fold16(sums)
}

/// `Σ x · y` in sixteen partial sums.
#[inline(always)]
pub(crate) fn dot16(x: &[f32], y: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    let (xs, ys) = (x.chunks_exact(16), y.chunks_exact(16));
    let (x_rest, y_rest) = (xs.remainder(), ys.remainder());
    for (x, y) in xs.zip(ys) {
        for lane in 0..16 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    for (sum, (&x, &y)) in sums.iter_mut().zip(x_rest.iter().zip(y_rest)) {
        *sum += x * y;
    }
    fold16(sums)
}

#[inline(always)]
fn fold16(mut sums: [f32; 16]) -> f32 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
    }
    sums[0]
}

/// `eˣ` with a relative error below 2⁻²², branch-free so that loops over it vectorize. NaN stays NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    use crate::quant::ROUNDING_MAGIC;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUNDING_MAGIC;
    let n = shifted - ROUNDING_MAGIC;
    // ln 2 in two parts, the first with trailing zeros so that n · it is exact.
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    p = p * (r * r) + r + 1.0;
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUNDING_MAGIC.to_bits() as i32);
    p * f32::from_bits((exponent.wrapping_add(127) << 23) as u32)
}

#[cfg(test)]
mod tests {
    use super::super::testing::noise;
    use super::*;

    #[test]
    fn exp_is_close_everywhere() {
        let mut worst = 0.0f64;
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            worst = worst.max((exp(x) as f64 / (x as f64).exp() - 1.0).abs());
        }
        assert!(worst < 2.4e-7, "{worst}");
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn column_sums_and_dots() {
        let (x, y) = (noise(7 * 70, 1), noise(7 * 70, 2));
        let (mut sums, mut dots) = (vec![0.0; 70], vec![0.0; 70]);
        column_sums(&x, 70, &mut sums);
        column_dots(&x, &y, 70, &mut dots);
        for c in 0..70 {
            let sum: f32 = (0..7).map(|r| x[r * 70 + c]).sum();
            let dot: f32 = (0..7).map(|r| x[r * 70 + c] * y[r * 70 + c]).sum();
            assert!((sum - sums[c]).abs() < 1e-5 && (dot - dots[c]).abs() < 1e-5);
        }
    }
}
