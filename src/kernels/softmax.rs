//! Attention probabilities of integer scores, in 16-bit integers throughout: twice as many lanes as floats
//! have, and the same bits everywhere without a thought for rounding.

use super::args::SoftmaxArgs;
use super::lanes::{Lanes, Shorts};

/// A distance of this many units halves a probability.
const HALVING: f32 = 1024.0;

/// `1 − x · (A − x · (B − x · C))` is `2^−x` on 0 ≤ x < 1, all in units of 2⁻¹⁵: a minimax fit of the
/// integers as they are multiplied, relative error 1.3e-4, less than the rounding of the largest probability.
const FIT: [i16; 3] = [22_651, 7_548, 1_281];

/// How scores become distances: `(best − score) · 2^(left − right) · factor / 2¹⁵`.
#[derive(Debug, PartialEq)]
struct Unit {
    left: u32,
    right: u32,
    factor: i16,
}

impl Unit {
    /// For scores of which 1 stands for `score_scale` in the exponent of e, which is not negative.
    fn new(score_scale: f32) -> Self {
        let units = score_scale * (std::f32::consts::LOG2_E * HALVING);
        let bits = units.to_bits();
        let exponent = (bits >> 23) as i32 - 126;
        if exponent <= -126 {
            // 0, or next to it: all scores are alike.
            return Unit { left: 0, right: 31, factor: 0 };
        }
        // A factor of ½ to 1, cut to 15 bits.
        let factor = ((bits & 0x7f_ffff | 0x80_0000) >> 9) as i16;
        Unit { left: exponent.clamp(0, 15) as u32, right: (-exponent).clamp(0, 31) as u32, factor }
    }
}

/// See [`Kernels::softmax`](super::Kernels::softmax).
///
/// A function of its own in WebAssembly, for V8's registers.
///
/// # Safety
/// As [`Lanes`].
#[cfg_attr(target_arch = "wasm32", inline(never))]
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
pub(super) unsafe fn softmax<L: Lanes>(
    scores: &mut [i32],
    args: SoftmaxArgs<'_>,
    out: &mut [i16],
    sums: &mut [i32],
) {
    let SoftmaxArgs { keys, stride, score_scales } = args;
    // SAFETY: the caller's.
    unsafe {
        let powers = Powers::<L::Shorts>::new();
        let needed = keys.next_multiple_of(L::Shorts::WIDTH);
        let rows = scores.chunks_exact_mut(stride).zip(out.chunks_exact_mut(stride));
        for ((scores, out), (&score_scale, sum)) in rows.zip(score_scales.iter().zip(sums)) {
            let best = scores[..keys].iter().fold(i32::MIN, |best, &score| best.max(score));
            let unit = Unit::new(score_scale);
            if unit.left > 0 {
                // Scores far apart, as no sentence has them: one by one.
                for score in &mut scores[..keys] {
                    let distance = best.wrapping_sub(*score).min(1 << 15 >> unit.left);
                    *score = best.wrapping_sub(distance << unit.left);
                }
            }
            // What is no key's is computed and then overwritten.
            powers.row(&scores[..needed], best, &unit, &mut out[..needed]);
            out[keys..].fill(0);
            *sum = L::sum_i16(out);
        }
    }
}

/// The constants for `8192 · 2^(−distance / 1024)`, rounded.
struct Powers<S> {
    one: S,
    fit: [S; 3],
    /// See [`Powers::power`].
    table: S,
    twice: S,
    from: S,
}

impl<S: Shorts> Powers<S> {
    /// # Safety
    /// As [`Shorts`].
    #[inline(always)]
    unsafe fn new() -> Self {
        // SAFETY: the caller's.
        unsafe {
            Powers {
                one: S::constant(i16::MAX),
                fit: [S::constant(FIT[0]), S::constant(FIT[1]), S::constant(FIT[2])],
                table: S::powers(),
                twice: S::constant(0x0101),
                from: S::constant(0x050d),
            }
        }
    }

    /// # Safety
    /// As [`Shorts`].
    #[inline(always)]
    unsafe fn row(&self, scores: &[i32], best: i32, unit: &Unit, out: &mut [i16]) {
        // SAFETY: the caller's.
        unsafe {
            let factor = S::constant(unit.factor);
            for (scores, out) in scores.chunks_exact(S::WIDTH).zip(out.chunks_exact_mut(S::WIDTH)) {
                let distance = S::below(best, scores, unit.right).scale(factor);
                let x = distance.fraction();
                let p = self.fit[1].sub(x.scale(self.fit[2]));
                let p = self.fit[0].sub(x.scale(p));
                let p = self.one.sub(x.scale(p));
                p.scale(self.power(distance)).store(out);
            }
        }
    }

    /// `2^(13 − n)` for the `n` whole halvings of a distance, 0 for more than 13: byte by byte from a
    /// table, the low one at `13 − n`, the high one at `5 − n`, nothing at negative places.
    ///
    /// # Safety
    /// As [`Shorts`].
    #[inline(always)]
    unsafe fn power(&self, distance: S) -> S {
        // SAFETY: the caller's.
        unsafe { self.table.at(self.from.sub_bytes(distance.halvings().mul(self.twice))) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lanes::Plain;
    use super::*;
    use crate::quant::PROBABILITY_MAX;

    fn probabilities(scores: &[i32], score_scale: f32) -> Vec<i16> {
        let stride = scores.len().next_multiple_of(16);
        let mut padded = scores.to_vec();
        padded.resize(stride, i32::MAX);
        let (mut out, mut sum) = (vec![-1; stride], [0]);
        let args = SoftmaxArgs { keys: scores.len(), stride, score_scales: &[score_scale] };
        // SAFETY: plain lanes need no instruction set.
        unsafe { softmax::<Plain>(&mut padded, args, &mut out, &mut sum) };
        assert!(out[scores.len()..].iter().all(|&p| p == 0));
        assert_eq!(out.iter().map(|&p| i32::from(p)).sum::<i32>(), sum[0]);
        out[..scores.len()].to_vec()
    }

    /// Over scales of all sizes, distances that matter and those that do not.
    #[test]
    fn probabilities_stay_within_their_stated_error() {
        for score_scale in [1e-9f32, 3.3e-7, 1e-5, 7.7e-4, 6.5e-4, 1e-2, 0.3, 2.0, 40.0] {
            let most = 16.0 / f64::from(score_scale);
            let scores: Vec<i32> =
                (0..4000).map(|i| (-most * f64::from(i) / 4000.0).max(-2e9) as i32).collect();
            for (&score, p) in scores.iter().zip(probabilities(&scores, score_scale)) {
                let exact =
                    f64::from(PROBABILITY_MAX) * (f64::from(score) * f64::from(score_scale)).exp();
                // Half a unit for its rounding, a unit of distance, the fit and the factor's 15 bits.
                let distance =
                    -f64::from(score) * f64::from(score_scale) * std::f64::consts::LOG2_E;
                let units = 1.6 + distance * 1024.0 / 16384.0;
                let bound = 0.52 + exact * (1.3e-4 + units * std::f64::consts::LN_2 / 1024.0);
                let p = f64::from(p);
                assert!((p - exact).abs() <= bound, "{score} of {score_scale}: {p}, {exact}");
            }
        }
    }

    #[test]
    fn extremes_are_as_they_should_be() {
        let one = PROBABILITY_MAX;
        assert_eq!(probabilities(&[5, 5, -3], 0.0), [one; 3]);
        assert_eq!(probabilities(&[i32::MAX / 2, -(i32::MAX / 2)], 1e-30), [one; 2]);
        assert_eq!(probabilities(&[i32::MAX / 2, -(i32::MAX / 2)], 1.0), [one, 0]);
        assert_eq!(probabilities(&[7, 6, -1_000_000], 1e9), [one, 0, 0]);
        assert_eq!(probabilities(&[-1_000_000], 1e-3), [one]);
    }
}
