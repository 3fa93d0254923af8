//! From the pooled states to the embedding: sentence-transformers' modules after pooling.
//!
//! Everything is a sum, a product, a quotient or a root of single or double floats in a fixed order, each
//! correctly rounded, so the bits are the same on every machine. The functions of `std` are not: `exp`
//! and `tanh` are the platform's.

use crate::config::{AfterPooling, DenseActivation};
use crate::format::ModelFile;
use crate::kernels::{LANES, tree_sum};

/// Runs the model's modules over `pooled` (`hidden_size` values) and leaves the embedding, of length
/// 1, in `out`. A length of zero or beyond all numbers gives NaN in every value.
pub(super) fn run(file: &ModelFile, pooled: Vec<f32>, out: &mut [f32]) {
    let mut values = pooled;
    let mut modules = file.dense.iter();
    for step in &file.config.after_pooling {
        match step {
            AfterPooling::Normalize => normalize(&mut values),
            AfterPooling::Dense { activation, .. } => {
                let module = modules.next().expect("as many modules as the config says were read");
                let (weight, bias) = file.dense(module);
                values = dense(&values, weight, bias, *activation);
            }
        }
    }
    out.copy_from_slice(&values);
    normalize(out);
}

/// `activation(weight · x + bias)`; `weight` is `bias.len() × x.len()`.
fn dense(x: &[f32], weight: &[f32], bias: &[f32], activation: DenseActivation) -> Vec<f32> {
    let rows = weight.chunks_exact(x.len()).zip(bias);
    let value = |sum: f32| if sum.is_finite() { activate(sum, activation) } else { f32::NAN };
    rows.map(|(row, &bias)| value(dot(row, x) + bias)).collect()
}

/// Over 16 partial sums, like every sum across a row.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
        for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    tree_sum(sums)
}

fn activate(x: f32, activation: DenseActivation) -> f32 {
    let wide = f64::from(x);
    match activation {
        DenseActivation::Identity => x,
        DenseActivation::Relu => x.max(0.0),
        DenseActivation::Tanh => {
            let e = exp(-2.0 * wide.abs());
            let size = ((1.0 - e) / (1.0 + e)) as f32;
            if x < 0.0 { -size } else { size }
        }
        DenseActivation::Sigmoid => {
            let e = exp(-wide.abs());
            (if x < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) }) as f32
        }
        DenseActivation::Gelu => (wide * normal_distribution(wide)) as f32,
    }
}

/// The normal distribution function, by formula 7.1.26 of Abramowitz and Stegun for the error
/// function; absolute error below 1e-7.
fn normal_distribution(x: f64) -> f64 {
    const FIT: [f64; 5] =
        [0.254_829_592, -0.284_496_736, 1.421_413_741, -1.453_152_027, 1.061_405_429];
    let z = x.abs() * std::f64::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let tail = t * FIT.iter().rev().fold(0.0, |sum, &c| sum * t + c) * exp(-z * z) / 2.0;
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// `e^x` for x ≤ 0, relative error below 1e-14; 0 below −700.
fn exp(x: f64) -> f64 {
    /// `ln 2` in two parts, of which multiples of the first are exact.
    const LN_2: [f64; 2] = [0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10];
    /// Adding it rounds to the nearest integer and leaves that in the low bits.
    const MAGIC: f64 = 6_755_399_441_055_744.0; // 1.5 · 2⁵²
    // Written so that NaN goes on.
    if x < -700.0 {
        return 0.0;
    }
    let shifted = x * std::f64::consts::LOG2_E + MAGIC;
    let k = shifted - MAGIC;
    let r = x - k * LN_2[0] - k * LN_2[1];
    // Taylor's series of e^r, |r| ≤ 0.35, from its thirteenth power down.
    let series = (1..=13).rev().fold(1.0, |sum, n| 1.0 + sum * r / f64::from(n));
    series * f64::from_bits(((k as i64 + 1023) as u64) << 52)
}

/// Divides `x` by its length, computed over 16 partial sums like every sum across a row. Zero or
/// non-finite length gives NaN in every value.
pub(super) fn normalize(x: &mut [f32]) {
    let length = dot(x, x).sqrt();
    let length = if length.is_finite() && length > 0.0 { length } else { f32::NAN };
    x.iter_mut().for_each(|x| *x /= length);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_stay_within_their_stated_errors() {
        for i in -4000..=4000 {
            let x = i as f64 * 0.01;
            let near = |activation, exact: f64| {
                let ours = f64::from(activate(x as f32, activation));
                assert!(
                    (ours - exact).abs() <= 2e-7 * (1.0 + x.abs()),
                    "{activation:?} {x}: {ours} {exact}"
                );
            };
            let x = f64::from(x as f32);
            near(DenseActivation::Tanh, x.tanh());
            near(DenseActivation::Sigmoid, 1.0 / (1.0 + (-x).exp()));
            near(DenseActivation::Relu, x.max(0.0));
            near(DenseActivation::Identity, x);
            if x <= 0.0 {
                assert!((exp(x) - x.exp()).abs() <= 1e-14 * x.exp(), "{x}");
            }
        }
        // Φ(1) and Φ(−2), as tables have them.
        assert!((normal_distribution(1.0) - 0.841_344_746).abs() < 1e-7);
        assert!((normal_distribution(-2.0) - 0.022_750_132).abs() < 1e-7);
        assert_eq!(activate(0.0, DenseActivation::Tanh), 0.0);
        assert_eq!(activate(1e4, DenseActivation::Tanh), 1.0);
        assert!(activate(f32::NAN, DenseActivation::Tanh).is_nan());
    }

    #[test]
    fn activations_are_the_same_bits_everywhere() {
        // Of the values that the same formulas give in Python.
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        for activation in [DenseActivation::Tanh, DenseActivation::Sigmoid, DenseActivation::Gelu] {
            for i in -500..500 {
                let bits = activate(i as f32 * 0.013, activation).to_bits();
                hash = (hash ^ u64::from(bits)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        assert_eq!(hash, HASH, "{hash:#x}");
    }

    const HASH: u64 = 0x1b07_b171_6fdf_95e7;
}
