//! The feed-forward layer's non-linearity.

use rayon::prelude::*;

use super::vector::{ROW_BLOCK, exp, simd};
use crate::config::Activation;

/// `(f(x), f′(x))`. The normal distribution function follows Abramowitz & Stegun 7.1.26, whose
/// error of 1.5 · 10⁻⁷ is that of an `f32` near 1.
#[inline(always)]
fn gelu(x: f32) -> (f32, f32) {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let density = exp(-z * z);
    let tail = ((((1.061_405_4 * t - 1.453_152_1) * t + 1.421_413_8) * t - 0.284_496_72) * t
        + 0.254_829_6)
        * t
        * density
        * 0.5;
    let below = if x >= 0.0 { 1.0 - tail } else { tail };
    // 1/√(2π)
    (x * below, below + x * density * 0.398_942_3)
}

#[inline(always)]
fn gelu_tanh(x: f32) -> (f32, f32) {
    const ROOT: f32 = 0.797_884_6; // √(2/π)
    let inner = ROOT * (x + 0.044_715 * x * x * x);
    let tanh = 1.0 - 2.0 / (exp(2.0 * inner) + 1.0);
    let slope = ROOT * (1.0 + 3.0 * 0.044_715 * x * x);
    (0.5 * x * (1.0 + tanh), 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * slope)
}

#[inline(always)]
fn relu(x: f32) -> (f32, f32) {
    if x > 0.0 { (x, 1.0) } else { (0.0 * x, 0.0) }
}

/// Adds `bias` to every row of `x`, then replaces `x` by `f(x)`; the derivative at each place goes
/// to `slope`, if given.
pub fn bias_activation(
    activation: Activation,
    x: &mut [f32],
    bias: &[f32],
    slope: Option<&mut [f32]>,
) {
    match activation {
        Activation::Gelu => run(x, bias, slope, gelu),
        Activation::GeluTanh => run(x, bias, slope, gelu_tanh),
        Activation::Relu => run(x, bias, slope, relu),
    }
}

#[inline(always)]
fn run(
    x: &mut [f32],
    bias: &[f32],
    slope: Option<&mut [f32]>,
    f: impl Fn(f32) -> (f32, f32) + Sync + Copy,
) {
    let cols = bias.len();
    match slope {
        Some(slope) => {
            assert_eq!(x.len(), slope.len());
            x.par_chunks_mut(ROW_BLOCK * cols)
                .zip(slope.par_chunks_mut(ROW_BLOCK * cols))
                .for_each(|(x, slope)| {
                    simd(
                        #[inline(always)]
                        || {
                            for (x, slope) in
                                x.chunks_exact_mut(cols).zip(slope.chunks_exact_mut(cols))
                            {
                                for ((x, slope), &bias) in x.iter_mut().zip(slope).zip(bias) {
                                    (*x, *slope) = f(*x + bias);
                                }
                            }
                        },
                    )
                });
        }
        None => x.par_chunks_mut(ROW_BLOCK * cols).for_each(|x| {
            simd(
                #[inline(always)]
                || {
                    for x in x.chunks_exact_mut(cols) {
                        for (x, &bias) in x.iter_mut().zip(bias) {
                            *x = f(*x + bias).0;
                        }
                    }
                },
            )
        }),
    }
}

/// `gradient *= slope`.
pub fn backward(gradient: &mut [f32], slope: &[f32]) {
    assert_eq!(gradient.len(), slope.len());
    const BLOCK: usize = 1 << 14;
    gradient.par_chunks_mut(BLOCK).zip(slope.par_chunks(BLOCK)).for_each(|(gradient, slope)| {
        simd(|| gradient.iter_mut().zip(slope).for_each(|(gradient, &slope)| *gradient *= slope))
    });
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_gradient, noise};
    use super::*;

    #[test]
    fn known_values() {
        // torch.nn.functional.gelu at ±1, 3, −5; the tanh form at 1.
        for (x, expected) in
            [(1.0, 0.841_344_7), (-1.0, -0.158_655_3), (3.0, 2.995_950_2), (-5.0, -1.433_258e-6)]
        {
            assert!((gelu(x).0 - expected).abs() < 3e-7 * (1.0 + x.abs()), "{x}: {}", gelu(x).0);
        }
        assert!((gelu_tanh(1.0).0 - 0.841_192).abs() < 1e-6);
    }

    #[test]
    fn slopes_agree_with_differences() {
        let (x, bias) = (noise(3 * 40, 5), noise(40, 6));
        for activation in [Activation::Gelu, Activation::GeluTanh] {
            let (mut y, mut slope) = (x.clone(), vec![0.0; x.len()]);
            bias_activation(activation, &mut y, &bias, Some(&mut slope));
            check_gradient("slope", &x, &slope, 1e-3, |x| {
                let mut y = x.to_vec();
                bias_activation(activation, &mut y, &bias, None);
                y.iter().map(|&y| y as f64).sum()
            });
        }
    }
}
