//! What happens to rows of floats between the matrix products. Sums across a row are always
//! [`LANES`] partial sums joined by one fixed tree, so nothing depends on a register's width.

use super::lanes::Lanes;
use super::{LANES, LayerNormArgs, RowsMut, SoftmaxArgs};
use crate::config::Activation;
use crate::quant::{PROBABILITY_MAX, ROUNDING_MAGIC, RowScale};

/// Sixteen values of a row, padded to whole lanes.
#[inline(always)]
pub(super) fn lanes<T>(row: &[T], at: usize) -> &[T; LANES] {
    row[at..at + LANES].try_into().expect("rows are padded to whole lanes")
}

#[inline(always)]
pub(super) fn lanes_mut<T>(row: &mut [T], at: usize) -> &mut [T; LANES] {
    (&mut row[at..at + LANES]).try_into().expect("rows are padded to whole lanes")
}

/// Joins partial sums in the fixed tree: 16 → 8 → 4 → 2 → 1.
#[inline(always)]
pub(super) fn tree(mut sums: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            sums[i] = join(sums[i], sums[i + width]);
        }
        width /= 2;
    }
    sums[0]
}

/// The sixteen floats of `x`.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
pub(super) unsafe fn array<L: Lanes>(x: L) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    // SAFETY: the caller's.
    unsafe { x.store(&mut out) };
    out
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
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn gelu<L: Lanes>(x: L) -> L {
    // SAFETY: the caller's.
    unsafe {
        let t = x.max(L::splat(-PHI_END)).min(L::splat(PHI_END));
        let u = t.mul(t);
        let mut p = L::splat(PHI[8]);
        for i in (0..8).rev() {
            p = p.mul(u).add(L::splat(PHI[i]));
        }
        x.mul(p.mul(t).add(L::splat(0.5)))
    }
}

/// Minimax fit of 2^f on |f| ≤ ½, exact at 0; relative error 2.9e-6.
const EXP2: [f32; 5] = [1.0, 0.693_124_1, 0.240_240_92, 0.055_906_82, 0.009_583_171];

/// `exp(x)` for x ≤ 0; relative error at most 5e-6 down to −20, and `exp(-20)` below that, which
/// is zero for every use here.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn exp_negative<L: Lanes>(x: L) -> L {
    // SAFETY: the caller's.
    unsafe {
        let t = x.max(L::splat(-20.0)).mul(L::splat(std::f32::consts::LOG2_E));
        // The rounded exponent stands in the low bits of `shifted`, whose own exponent the shift
        // pushes out.
        let shifted = t.add(L::splat(ROUNDING_MAGIC));
        let f = t.sub(shifted.sub(L::splat(ROUNDING_MAGIC)));
        let mut p = L::splat(EXP2[4]);
        for i in (0..4).rev() {
            p = p.mul(f).add(L::splat(EXP2[i]));
        }
        L::from_bits(L::add_int(p.bits(), L::to_exponent(shifted.bits())))
    }
}

/// `x · ½ (1 + tanh(√(2/π) (x + 0.044715 x³)))`, by `½ (1 + tanh z) = 1 / (1 + exp(−2z))`.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn gelu_tanh<L: Lanes>(x: L) -> L {
    // SAFETY: the caller's.
    unsafe {
        let cube = x.mul(x).mul(x).mul(L::splat(0.044_715));
        let z = array(L::splat(1.595_769_1).mul(x.add(cube)));
        let e = array(exp_negative(L::load(&z.map(|z| if z < 0.0 { z } else { -z }))));
        let factor = std::array::from_fn(|i| {
            let upper = 1.0 / (1.0 + e[i]);
            if z[i] < 0.0 { e[i] * upper } else { upper }
        });
        x.mul(L::load(&factor))
    }
}

/// What happens to a value before it is quantized. A trait and not a closure: closures do not take
/// part in a function's instruction set, and what they call is then not inlined.
trait Activate {
    /// # Safety
    /// As [`Lanes`].
    unsafe fn apply<L: Lanes>(x: L) -> L;
}

struct Identity;
impl Activate for Identity {
    #[inline(always)]
    unsafe fn apply<L: Lanes>(x: L) -> L {
        x
    }
}

struct Gelu;
impl Activate for Gelu {
    #[inline(always)]
    unsafe fn apply<L: Lanes>(x: L) -> L {
        // SAFETY: the caller's.
        unsafe { gelu(x) }
    }
}

struct GeluTanh;
impl Activate for GeluTanh {
    #[inline(always)]
    unsafe fn apply<L: Lanes>(x: L) -> L {
        // SAFETY: the caller's.
        unsafe { gelu_tanh(x) }
    }
}

struct Relu;
impl Activate for Relu {
    #[inline(always)]
    unsafe fn apply<L: Lanes>(x: L) -> L {
        // SAFETY: the caller's.
        unsafe { x.max(L::splat(0.0)) }
    }
}

/// Applies `A` in place and returns the range of the results with 0.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn activate<L: Lanes, A: Activate>(x: &mut [f32]) -> (f32, f32) {
    // SAFETY: the caller's.
    unsafe {
        let (mut low, mut high) = (L::splat(0.0), L::splat(0.0));
        for at in (0..x.len()).step_by(LANES) {
            let x = lanes_mut(x, at);
            let y = A::apply(L::load(x));
            y.store(x);
            low = low.min(y);
            high = high.max(y);
        }
        (low.lowest(), high.highest())
    }
}

/// See [`super::Kernels::quantize_rows`].
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
pub(super) unsafe fn quantize_rows<L: Lanes>(
    x: &mut [f32],
    stride: usize,
    activation: Option<Activation>,
    out: RowsMut<'_>,
) {
    let rows = x.chunks_exact_mut(stride).zip(out.data.chunks_exact_mut(stride));
    for ((x, out), scale) in rows.zip(out.scales) {
        // SAFETY: the caller's.
        unsafe {
            let (low, high) = match activation {
                None => activate::<L, Identity>(x),
                Some(Activation::Gelu) => activate::<L, Gelu>(x),
                Some(Activation::GeluTanh) => activate::<L, GeluTanh>(x),
                Some(Activation::Relu) => activate::<L, Relu>(x),
            };
            *scale = RowScale::from_range(low, high);
            let inverse = L::splat(scale.inverse);
            for at in (0..stride).step_by(LANES) {
                let q = L::load(lanes(x, at)).mul(inverse).round_plus(scale.zero_point);
                L::store_u7(q, lanes_mut(out, at));
            }
        }
    }
}

/// See [`super::Kernels::add_layer_norm`].
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
pub(super) unsafe fn add_layer_norm<L: Lanes>(
    x: &mut [f32],
    residual: Option<&[f32]>,
    norm: LayerNormArgs<'_>,
) {
    let stride = norm.weight.len();
    let whole = norm.columns / LANES * LANES;
    for (r, x) in x.chunks_exact_mut(stride).enumerate() {
        // SAFETY: the caller's.
        unsafe {
            let mut sums = L::splat(0.0);
            for at in (0..stride).step_by(LANES) {
                let here = lanes_mut(x, at);
                let mut y = L::load(here);
                if let Some(residual) = residual {
                    y = y.add(L::load(lanes(residual, r * stride + at)));
                    y.store(here);
                }
                sums = sums.add(y);
            }
            let mean = sums.sum() / norm.columns as f32;
            // Padding is not part of the variance: it differs from the mean by nothing.
            x[norm.columns..].fill(mean);
            let mean = L::splat(mean);
            let mut squares = L::splat(0.0);
            for at in (0..stride).step_by(LANES) {
                let d = L::load(lanes(x, at)).sub(mean);
                squares = squares.add(d.mul(d));
            }
            let variance = squares.sum() / norm.columns as f32;
            let factor = L::splat(1.0 / (variance + norm.eps).sqrt());
            for at in (0..stride).step_by(LANES) {
                let here = lanes_mut(x, at);
                let y = L::load(here).sub(mean).mul(factor);
                let y = y.mul(L::load(lanes(norm.weight, at)));
                y.add(L::load(lanes(norm.bias, at))).store(here);
            }
            // Weight and bias are 0 there, but the product may be −0.
            if whole < stride {
                x[norm.columns..].fill(0.0);
            }
        }
    }
}

/// See [`super::Kernels::softmax`].
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
pub(super) unsafe fn softmax<L: Lanes>(
    scores: &mut [i32],
    args: SoftmaxArgs<'_>,
    out: &mut [i16],
    sums: &mut [i32],
) {
    let SoftmaxArgs { keys, stride, query_scales, key_scales } = args;
    let rows = scores.chunks_exact_mut(stride).zip(out.chunks_exact_mut(stride));
    for ((scores, out), (&query, sum)) in rows.zip(query_scales.iter().zip(sums)) {
        // SAFETY: the caller's.
        unsafe {
            // The integer scores become floats in place; what is no key's is lowest of all.
            let query = L::splat(query);
            let mut best = L::splat(f32::MIN);
            for at in (0..stride).step_by(LANES) {
                let here = lanes_mut(scores, at);
                let score = L::from_int(L::load_int(here));
                let mut score = score.mul(L::load(lanes(key_scales, at))).mul(query);
                L::store_int(score.bits(), here);
                if at + LANES > keys {
                    here[keys - at..].fill(f32::MIN.to_bits() as i32);
                    score = L::from_bits(L::load_int(here));
                }
                best = best.max(score);
            }
            let best = L::splat(best.highest());
            let mut total = L::splat_int(0);
            for at in (0..stride).step_by(LANES) {
                let score = L::from_bits(L::load_int(lanes(scores, at)));
                let p = exp_negative(score.sub(best)).mul(L::splat(PROBABILITY_MAX as f32));
                let p = p.round_plus(0);
                L::store_i16(p, lanes_mut(out, at));
                total = L::add_int(total, p);
            }
            let mut totals = [0; LANES];
            L::store_int(total, &mut totals);
            *sum = totals.iter().sum();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lanes::Plain;
    use super::*;

    fn plain(f: unsafe fn(Plain) -> Plain, x: f32) -> f32 {
        // SAFETY: plain lanes need no instruction set.
        unsafe { array(f(Plain::splat(x)))[0] }
    }

    fn gelu(x: f32) -> f32 {
        plain(super::gelu, x)
    }

    fn exp_negative(x: f32) -> f32 {
        plain(super::exp_negative, x)
    }

    fn gelu_tanh(x: f32) -> f32 {
        plain(super::gelu_tanh, x)
    }

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
