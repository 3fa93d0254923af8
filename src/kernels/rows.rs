//! What happens to rows of floats between the matrix products. Sums across a row are always
//! [`LANES`] partial sums joined by one fixed tree, so nothing depends on a register's width.

use super::args::{LayerNormArgs, RowsMut};
use super::lanes::{LANES, Lanes, array, sixteen, sixteen_mut};
use crate::config::Activation;
use crate::quant::{ROUNDING_MAGIC, RowScale};

/// From here on, GELU is 0 or its argument.
const GELU_END: f32 = 4.32;
/// Minimax fit of `a · Φ(−a)` for 0 ≤ a ≤ [`GELU_END`] by `a · b⁴ · (c₀ + c₁ b + c₂ b² + c₃ b³)` with
/// `b = GELU_END − a`: the factors make it exact at 0 and at the end.
const GELU_TAIL: [f32; 4] = [0.001_316_596_4, -0.001_511_575, 0.000_781_632_14, -9.862_744_6e-5];

/// What happens to a value before it is quantized, with the constants that it needs. A trait and not
/// a closure: closures do not take part in a function's instruction set, and what they call is then
/// not inlined.
trait Activate<L: Lanes> {
    /// # Safety
    /// As [`Lanes`].
    unsafe fn new() -> Self;
    /// # Safety
    /// As [`Lanes`].
    unsafe fn apply(&self, x: L) -> L;
}

struct Identity;
impl<L: Lanes> Activate<L> for Identity {
    #[inline(always)]
    unsafe fn new() -> Self {
        Identity
    }
    #[inline(always)]
    unsafe fn apply(&self, x: L) -> L {
        x
    }
}

/// `x · Φ(x)` as `max(x, 0) − |x| · Φ(−|x|)`, the latter by [`GELU_TAIL`]; absolute error at most 1.9e-4
/// for |x| ≤ 100 (checked in this module's tests), a fiftieth of a step of the 7 bits that it is
/// rounded to where a row reaches 1.
struct Gelu<L> {
    zero: L,
    end: L,
    tail: [L; 4],
}

impl<L: Lanes> Activate<L> for Gelu<L> {
    #[inline(always)]
    unsafe fn new() -> Self {
        // SAFETY: the caller's.
        unsafe {
            Gelu { zero: L::splat(0.0), end: L::constant(GELU_END), tail: constants(GELU_TAIL) }
        }
    }
    #[inline(always)]
    unsafe fn apply(&self, x: L) -> L {
        // SAFETY: the caller's.
        unsafe {
            let a = x.abs().min(self.end);
            let b = self.end.sub(a);
            let square = b.mul(b);
            let tail = polynomial(&self.tail, b).mul(a).mul(square.mul(square));
            x.max(self.zero).sub(tail)
        }
    }
}

/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn constants<L: Lanes, const N: usize>(values: [f32; N]) -> [L; N] {
    // SAFETY: the caller's.
    let mut lanes = [unsafe { L::splat(0.0) }; N];
    for (lanes, value) in lanes.iter_mut().zip(values) {
        // SAFETY: the caller's.
        *lanes = unsafe { L::constant(value) };
    }
    lanes
}

/// `c₀ + c₁ x + c₂ x² …`, from the highest power down.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn polynomial<L: Lanes, const N: usize>(coefficients: &[L; N], x: L) -> L {
    let mut p = coefficients[N - 1];
    for i in (0..N - 1).rev() {
        // SAFETY: the caller's.
        p = unsafe { p.mul(x).add(coefficients[i]) };
    }
    p
}

/// Minimax fit of 2^f on |f| ≤ ½, exact at 0; relative error 2.9e-6.
const EXP2: [f32; 5] = [1.0, 0.693_124_1, 0.240_240_92, 0.055_906_82, 0.009_583_171];

/// `2^x` for x ≤ 0; `2^−29` below −29, which is zero for every use here.
struct Exp2<L> {
    lowest: L,
    magic: L,
    fit: [L; EXP2.len()],
}

impl<L: Lanes> Exp2<L> {
    /// # Safety
    /// As [`Lanes`].
    #[inline(always)]
    unsafe fn new() -> Self {
        // SAFETY: the caller's.
        unsafe {
            Exp2 {
                lowest: L::constant(-29.0),
                magic: L::constant(ROUNDING_MAGIC),
                fit: constants(EXP2),
            }
        }
    }

    /// # Safety
    /// As [`Lanes`].
    #[inline(always)]
    unsafe fn of(&self, x: L) -> L {
        // SAFETY: the caller's.
        unsafe {
            let t = x.max(self.lowest);
            // The rounded exponent stands in the low bits of `shifted`, whose own exponent the shift
            // pushes out.
            let shifted = t.add(self.magic);
            let f = t.sub(shifted.sub(self.magic));
            let p = polynomial(&self.fit, f);
            L::from_bits(L::add_int(p.bits(), L::to_exponent(shifted.bits())))
        }
    }
}

/// `x · ½ (1 + tanh(√(2/π) (x + 0.044715 x³)))`, by `½ (1 + tanh z) = 1 / (1 + exp(−2z))`.
struct GeluTanh<L>(Exp2<L>);

impl<L: Lanes> Activate<L> for GeluTanh<L> {
    #[inline(always)]
    unsafe fn new() -> Self {
        // SAFETY: the caller's.
        GeluTanh(unsafe { Exp2::new() })
    }
    #[inline(always)]
    unsafe fn apply(&self, x: L) -> L {
        // SAFETY: the caller's.
        unsafe {
            let cube = x.mul(x).mul(x).mul(L::splat(0.044_715));
            let z = L::splat(1.595_769_1).mul(x.add(cube));
            let negative = L::splat(0.0).sub(z.abs());
            let e = array(self.0.of(negative.mul(L::splat(std::f32::consts::LOG2_E))));
            let z = array(z);
            let factor: [f32; LANES] = std::array::from_fn(|i| {
                let upper = 1.0 / (1.0 + e[i]);
                if z[i] < 0.0 { e[i] * upper } else { upper }
            });
            x.mul(L::load(&factor))
        }
    }
}

struct Relu;
impl<L: Lanes> Activate<L> for Relu {
    #[inline(always)]
    unsafe fn new() -> Self {
        Relu
    }
    #[inline(always)]
    unsafe fn apply(&self, x: L) -> L {
        // SAFETY: the caller's.
        unsafe { x.max(L::splat(0.0)) }
    }
}

/// Applies `activation` in place and returns the range of the results with 0.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn activate<L: Lanes, A: Activate<L>>(activation: &A, x: &mut [f32]) -> (f32, f32) {
    // SAFETY: the caller's.
    unsafe {
        let (mut low, mut high) = (L::splat(0.0), L::splat(0.0));
        for x in x.chunks_exact_mut(L::WIDTH) {
            let y = activation.apply(L::load(x));
            y.store(x);
            low = low.min(y);
            high = high.max(y);
        }
        (low.lowest(), high.highest())
    }
}

/// See [`Kernels::quantize_rows`](super::Kernels::quantize_rows).
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
    // SAFETY: the caller's.
    unsafe {
        match activation {
            None => activate_and_quantize::<L, L, Identity>(x, stride, out),
            Some(Activation::Gelu) => {
                activate_and_quantize::<L, L::Few, Gelu<L::Few>>(x, stride, out)
            }
            Some(Activation::GeluTanh) => {
                activate_and_quantize::<L, L::Few, GeluTanh<L::Few>>(x, stride, out)
            }
            Some(Activation::Relu) => activate_and_quantize::<L, L, Relu>(x, stride, out),
        }
    }
}

/// A function of its own in WebAssembly, for V8's registers.
///
/// # Safety
/// As [`Lanes`].
#[cfg_attr(target_arch = "wasm32", inline(never))]
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
unsafe fn activate_and_quantize<L: Lanes, F: Lanes, A: Activate<F>>(
    x: &mut [f32],
    stride: usize,
    out: RowsMut<'_>,
) {
    // SAFETY: the caller's.
    unsafe {
        let activation = A::new();
        let rows = x.chunks_exact_mut(stride).zip(out.data.chunks_exact_mut(stride));
        for ((x, out), scale) in rows.zip(out.scales) {
            let (low, high) = activate(&activation, x);
            *scale = RowScale::from_range(low, high);
            let inverse = L::splat(scale.inverse);
            for (x, out) in x.chunks_exact(L::WIDTH).zip(out.chunks_exact_mut(L::WIDTH)) {
                let q = L::load(x).mul(inverse).round_plus(scale.zero_point);
                L::store_u7(q, out);
            }
        }
    }
}

/// See [`Kernels::add_layer_norm`](super::Kernels::add_layer_norm).
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
                let here = sixteen_mut(x, at);
                let mut y = L::load(here);
                if let Some(residual) = residual {
                    y = y.add(L::load(sixteen(residual, r * stride + at)));
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
                let d = L::load(sixteen(x, at)).sub(mean);
                squares = squares.add(d.mul(d));
            }
            let variance = squares.sum() / norm.columns as f32;
            let factor = L::splat(1.0 / (variance + norm.eps).sqrt());
            for at in (0..stride).step_by(LANES) {
                let here = sixteen_mut(x, at);
                let y = L::load(here).sub(mean).mul(factor);
                let y = y.mul(L::load(sixteen(norm.weight, at)));
                y.add(L::load(sixteen(norm.bias, at))).store(here);
            }
            // Weight and bias are 0 there, but the product may be −0.
            if whole < stride {
                x[norm.columns..].fill(0.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lanes::Plain;
    use super::*;

    fn activated<A: Activate<Plain>>(x: f32) -> f32 {
        // SAFETY: plain lanes need no instruction set.
        unsafe { array(A::new().apply(Plain::splat(x)))[0] }
    }

    fn gelu(x: f32) -> f32 {
        activated::<Gelu<Plain>>(x)
    }

    fn exp2(x: f32) -> f32 {
        // SAFETY: plain lanes need no instruction set.
        unsafe { array(Exp2::new().of(Plain::splat(x)))[0] }
    }

    fn gelu_tanh(x: f32) -> f32 {
        activated::<GeluTanh<Plain>>(x)
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
        assert!(worst <= 1.9e-4, "{worst}");
        assert_eq!((gelu(0.0), gelu(-5.0), gelu(5.0)), (0.0, 0.0, 5.0));
    }

    #[test]
    fn powers_of_two_and_tanh_gelu_stay_within_their_stated_errors() {
        for i in 0..=29_000 {
            let x = -i as f32 * 0.001;
            let exact = (x as f64).exp2();
            assert!((exp2(x) as f64 - exact).abs() <= 3e-6 * exact, "{x}");
        }
        assert_eq!(exp2(0.0), 1.0);
        assert!(exp2(-1e30) < 2e-9);
        for i in -1000..=1000 {
            let x = i as f32 * 0.01;
            let z =
                (2.0 / std::f64::consts::PI).sqrt() * (x as f64 + 0.044715 * (x as f64).powi(3));
            let exact = x as f64 * 0.5 * (1.0 + z.tanh());
            assert!((gelu_tanh(x) as f64 - exact).abs() <= 1e-4, "{x}");
        }
    }
}
