//! What happens to rows of floats between the matrix products, written so that the compiler
//! vectorizes it for whichever instruction set it is inlined into. Nothing here depends on the
//! vector width: sums across a row are always [`LANES`] partial sums joined by one fixed tree.

use super::{LANES, LayerNormArgs, RowsMut, SoftmaxArgs};
use crate::config::Activation;
use crate::quant::{PROBABILITY_MAX, RowScale, round_to_i32};

type Lanes = [f32; LANES];

#[inline(always)]
fn lanes(row: &[f32], at: usize) -> &Lanes {
    row[at..at + LANES].try_into().expect("rows are padded to whole lanes")
}

/// Joins partial sums in the fixed tree: 16 → 8 → 4 → 2 → 1.
#[inline(always)]
pub(super) fn tree(mut sums: Lanes, join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            sums[i] = join(sums[i], sums[i + width]);
        }
        width /= 2;
    }
    sums[0]
}

#[inline(always)]
fn min(a: f32, b: f32) -> f32 {
    if b < a { b } else { a }
}

#[inline(always)]
fn max(a: f32, b: f32) -> f32 {
    if a < b { b } else { a }
}

/// Where the approximation of the normal distribution function meets 0 and 1.
const PHI_END: f32 = 4.5;
/// Minimax fit of `(Φ(x) − ½) / x` in powers of x² on |x| ≤ 4.5, weighted by x² (the error that
/// GELU sees) and constrained to reach 0 and 1 at the ends.
const PHI: [f32; 9] = [
    0.398_708_58,
    -0.065_977_3,
    0.009_580_674,
    -0.001_036_259_7,
    8.121_078e-5,
    -4.431_784e-6,
    1.580_309e-7,
    -3.284_055_5e-9,
    3.000_168_5e-11,
];

/// `x · Φ(x)`; absolute error at most 7.5e-5 for |x| ≤ 100 (checked in this module's tests).
#[inline(always)]
pub(super) fn gelu(x: f32) -> f32 {
    let t = min(max(x, -PHI_END), PHI_END);
    let u = t * t;
    let mut p = PHI[8];
    for i in (0..8).rev() {
        p = p * u + PHI[i];
    }
    x * (p * t + 0.5)
}

/// Minimax fit of 2^f on |f| ≤ ½, exact at 0; relative error 2.9e-6.
const EXP2: [f32; 5] = [1.0, 0.693_124_1, 0.240_240_92, 0.055_906_82, 0.009_583_171];

/// `exp(x)` for x ≤ 0; relative error at most 5e-6 down to −20, and `exp(-20)` below that, which
/// is zero for every use here.
#[inline(always)]
pub(super) fn exp_negative(x: f32) -> f32 {
    let t = max(x, -20.0) * std::f32::consts::LOG2_E;
    let n = round_to_i32(t);
    let f = t - n as f32;
    let mut p = EXP2[4];
    for i in (0..4).rev() {
        p = p * f + EXP2[i];
    }
    f32::from_bits((p.to_bits() as i32 + (n << 23)) as u32)
}

/// `x · ½ (1 + tanh(√(2/π) (x + 0.044715 x³)))`, by `½ (1 + tanh z) = 1 / (1 + exp(−2z))`.
#[inline(always)]
pub(super) fn gelu_tanh(x: f32) -> f32 {
    let z = 1.595_769_1 * (x + 0.044_715 * (x * x * x));
    let e = exp_negative(if z < 0.0 { z } else { -z });
    let upper = 1.0 / (1.0 + e);
    x * if z < 0.0 { e * upper } else { upper }
}

#[inline(always)]
fn activate(x: &mut [f32], f: impl Fn(f32) -> f32) -> (f32, f32) {
    let (mut low, mut high) = ([0.0; LANES], [0.0; LANES]);
    for chunk in x.chunks_exact_mut(LANES) {
        for i in 0..LANES {
            let y = f(chunk[i]);
            chunk[i] = y;
            low[i] = min(low[i], y);
            high[i] = max(high[i], y);
        }
    }
    (tree(low, min), tree(high, max))
}

#[inline(always)]
pub(super) fn quantize_rows(
    x: &mut [f32],
    stride: usize,
    activation: Option<Activation>,
    out: RowsMut<'_>,
) {
    let rows = x.chunks_exact_mut(stride).zip(out.data.chunks_exact_mut(stride));
    for ((x, out), scale) in rows.zip(out.scales) {
        let (low, high) = match activation {
            None => activate(x, |x| x),
            Some(Activation::Gelu) => activate(x, gelu),
            Some(Activation::GeluTanh) => activate(x, gelu_tanh),
            Some(Activation::Relu) => activate(x, |x| max(x, 0.0)),
        };
        *scale = RowScale::from_range(low, high);
        for (x, q) in x.chunks_exact(LANES).zip(out.chunks_exact_mut(LANES)) {
            for i in 0..LANES {
                q[i] = scale.quantize(x[i]);
            }
        }
    }
}

#[inline(always)]
pub(super) fn add_layer_norm(x: &mut [f32], residual: Option<&[f32]>, norm: LayerNormArgs<'_>) {
    let stride = norm.weight.len();
    let whole = norm.columns / LANES * LANES;
    for (r, x) in x.chunks_exact_mut(stride).enumerate() {
        let mut sums = [0.0; LANES];
        if let Some(residual) = residual {
            let residual = &residual[r * stride..(r + 1) * stride];
            for (x, y) in x.chunks_exact_mut(LANES).zip(residual.chunks_exact(LANES)) {
                for i in 0..LANES {
                    x[i] += y[i];
                    sums[i] += x[i];
                }
            }
        } else {
            for x in x.chunks_exact(LANES) {
                for i in 0..LANES {
                    sums[i] += x[i];
                }
            }
        }
        let mean = tree(sums, |a, b| a + b) / norm.columns as f32;

        let mut squares = [0.0; LANES];
        for x in x[..whole].chunks_exact(LANES) {
            for i in 0..LANES {
                let d = x[i] - mean;
                squares[i] += d * d;
            }
        }
        for i in 0..norm.columns - whole {
            let d = x[whole + i] - mean;
            squares[i] += d * d;
        }
        let variance = tree(squares, |a, b| a + b) / norm.columns as f32;
        let factor = 1.0 / (variance + norm.eps).sqrt();

        for at in (0..stride).step_by(LANES) {
            let (weight, bias) = (lanes(norm.weight, at), lanes(norm.bias, at));
            let x = &mut x[at..at + LANES];
            for i in 0..LANES {
                x[i] = (x[i] - mean) * factor * weight[i] + bias[i];
            }
        }
        // Padding has weight and bias 0, but (0 − mean) · 0 may be −0.
        x[norm.columns..].fill(0.0);
    }
}

#[inline(always)]
pub(super) fn softmax(
    scores: &mut [i32],
    args: SoftmaxArgs<'_>,
    out: &mut [i16],
    sums: &mut [i32],
) {
    let SoftmaxArgs { keys, stride, query_scales, key_scales } = args;
    let rows = scores.chunks_exact_mut(stride).zip(out.chunks_exact_mut(stride));
    for ((scores, out), (&query, sum)) in rows.zip(query_scales.iter().zip(sums)) {
        // The integer scores become floats in place.
        let mut best = [f32::MIN; LANES];
        for (chunk, scales) in scores.chunks_exact_mut(LANES).zip(key_scales.chunks_exact(LANES)) {
            for i in 0..LANES {
                chunk[i] = (chunk[i] as f32 * scales[i] * query).to_bits() as i32;
            }
        }
        scores[keys..].fill(f32::MIN.to_bits() as i32);
        for chunk in scores.chunks_exact(LANES) {
            for i in 0..LANES {
                best[i] = max(best[i], f32::from_bits(chunk[i] as u32));
            }
        }
        let best = tree(best, max);
        let mut total = [0i32; LANES];
        for (chunk, out) in scores.chunks_exact(LANES).zip(out.chunks_exact_mut(LANES)) {
            for i in 0..LANES {
                let score = f32::from_bits(chunk[i] as u32);
                let p = round_to_i32(exp_negative(score - best) * PROBABILITY_MAX as f32);
                out[i] = p as i16;
                total[i] += p;
            }
        }
        *sum = total.iter().sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Φ by the integral of the density (Simpson), good to 1e-12: an oracle with no shared code.
    fn phi(x: f64) -> f64 {
        let steps = 2000;
        let h = x / steps as f64;
        let f = |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let mut sum = f(0.0) + f(x);
        for i in 1..steps {
            sum += f(i as f64 * h) * if i % 2 == 1 { 4.0 } else { 2.0 };
        }
        0.5 + sum * h / 3.0
    }

    #[test]
    fn gelu_stays_within_its_stated_error() {
        let mut worst = 0.0f64;
        for i in -2000..=2000 {
            let x = i as f32 * 0.005;
            worst = worst.max((gelu(x) as f64 - x as f64 * phi(x as f64)).abs());
        }
        for x in [-100.0f32, -30.0, 30.0, 100.0] {
            worst = worst.max((gelu(x) - x.max(0.0)).abs() as f64);
        }
        assert!(worst <= 7.5e-5, "{worst}");
        assert_eq!(gelu(0.0), 0.0);
    }

    #[test]
    fn exp_and_tanh_gelu_stay_within_their_stated_errors() {
        for i in 0..=20_000 {
            let x = -i as f32 * 0.001;
            let exact = (x as f64).exp();
            assert!((exp_negative(x) as f64 - exact).abs() <= 5e-6 * exact, "{x}");
        }
        assert_eq!(exp_negative(0.0), 1.0);
        assert!(exp_negative(-1e30) < 3e-9);
        for i in -1000..=1000 {
            let x = i as f32 * 0.01;
            let z =
                (2.0 / std::f64::consts::PI).sqrt() * (x as f64 + 0.044715 * (x as f64).powi(3));
            let exact = x as f64 * 0.5 * (1.0 + z.tanh());
            assert!((gelu_tanh(x) as f64 - exact).abs() <= 1e-4, "{x}");
        }
    }
}
