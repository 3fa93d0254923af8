//! Scales, rounding and clamping: the one definition that the exporter, the trainer and the run
//! time share.
//!
//! | what | integers | scale |
//! | --- | --- | --- |
//! | weights of linear layers | −63 … 63 (7 significant bits) | per output channel, symmetric |
//! | activations before a linear layer | 0 … 127 with a zero point | per row (token) |
//! | embedding rows | −127 … 127 | per row, symmetric |
//! | queries | −2047 … 2047 | per token and head, symmetric |
//! | keys | −2047 … 2047 | per sentence and head, symmetric |
//! | attention weights | 0 … 8192 | 1/8192 of the row's largest |
//! | values | −255 … 255 | per sentence and channel, symmetric |
//!
//! Weights stop at 63 so that four neighbouring products with activations fit 16 bits
//! (4 · 127 · 63 = 32,004 < 32,768), which lets the kernels sum two steps in 16 bits, exactly.

/// Largest magnitude of a quantized weight.
pub const WEIGHT_MAX: i8 = 63;
/// Largest quantized activation.
pub const ACTIVATION_MAX: u8 = 127;
/// Largest magnitude of a quantized embedding value.
pub const EMBEDDING_MAX: i8 = 127;
/// Largest magnitude of a quantized query or key.
pub const QUERY_KEY_MAX: i16 = 2047;
/// The quantized attention weight of a row's best key.
pub const PROBABILITY_MAX: i16 = 8192;
/// Largest magnitude of a quantized value.
pub const VALUE_MAX: i16 = 255;

/// Adding this number rounds an `f32` of magnitude below 2²² to the nearest integer, ties to even,
/// and leaves that integer in the low bits: one correctly rounded addition on every machine, where
/// a conversion instruction would round or saturate in its own way.
pub const ROUNDING_MAGIC: f32 = 12_582_912.0; // 1.5 · 2²³

/// `x` rounded to the nearest integer, ties to even; exact for |x| < 2²², some integer for anything else.
#[inline(always)]
pub fn round_to_i32(x: f32) -> i32 {
    ((x + ROUNDING_MAGIC).to_bits() as i32).wrapping_sub(ROUNDING_MAGIC.to_bits() as i32)
}

/// How one row of activations is quantized: `real = (quantized − zero_point) · scale`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowScale {
    /// Size of one step; 0 for a row of zeros.
    pub scale: f32,
    /// `1 / scale` as the quantizer uses it; 0 for a row of zeros.
    pub inverse: f32,
    /// The integer that stands for 0.
    pub zero_point: i32,
}

impl RowScale {
    /// The scale of a row whose values lie in `min..=max`. Zero is always in the range, so that it
    /// is exact.
    #[inline(always)]
    pub fn from_range(min: f32, max: f32) -> Self {
        let min = if min < 0.0 { min } else { 0.0 };
        let max = if max > 0.0 { max } else { 0.0 };
        let range = max - min;
        // Only a row that is not finite, or beyond all bounds, has no largest value: its products are
        // infinite too, in every table alike.
        if range == f32::INFINITY {
            return RowScale { scale: range, ..RowScale::default() };
        }
        // Below this the inverse would overflow; such a row is all zeros for any purpose.
        if range < 1e-30 {
            return RowScale::default();
        }
        let inverse = ACTIVATION_MAX as f32 / range;
        RowScale {
            scale: range / ACTIVATION_MAX as f32,
            inverse,
            zero_point: round_to_i32(-min * inverse),
        }
    }

    /// The integer for `x`.
    #[inline(always)]
    pub fn quantize(&self, x: f32) -> u8 {
        round_to_i32(x * self.inverse).wrapping_add(self.zero_point).clamp(0, ACTIVATION_MAX as i32)
            as u8
    }

    /// The number that `q` stands for.
    #[inline(always)]
    pub fn dequantize(&self, q: u8) -> f32 {
        (q as i32 - self.zero_point) as f32 * self.scale
    }
}

/// The scale of one row of activations.
pub fn row_scale(row: &[f32]) -> RowScale {
    let (mut min, mut max) = (0.0f32, 0.0f32);
    for &x in row {
        min = if x < min { x } else { min };
        max = if x > max { x } else { max };
    }
    RowScale::from_range(min, max)
}

/// Symmetric scale of a row: `max |x| / limit`, or 0 for a row of zeros.
pub fn symmetric_scale(row: &[f32], limit: i8) -> f32 {
    let max_abs = row.iter().fold(0.0f32, |max, x| if x.abs() > max { x.abs() } else { max });
    if max_abs < 1e-30 { 0.0 } else { max_abs / limit as f32 }
}

/// Quantizes one row symmetrically to −`limit` … `limit` and returns its scale.
pub fn quantize_symmetric(row: &[f32], limit: i8, out: &mut [i8]) -> f32 {
    let scale = symmetric_scale(row, limit);
    for (q, &x) in out.iter_mut().zip(row) {
        *q = if scale == 0.0 {
            0
        } else {
            round_to_i32(x / scale).clamp(-(limit as i32), limit as i32) as i8
        };
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_ties_to_even() {
        for (x, expected) in [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (126.49, 126)] {
            assert_eq!(round_to_i32(x), expected, "{x}");
        }
    }

    #[test]
    fn activations_keep_zero_exact_and_stay_within_half_a_step() {
        let row = [-0.17, 0.0, 0.4, 3.9, 2.2, -0.01];
        let scale = row_scale(&row);
        assert_eq!(scale.dequantize(scale.quantize(0.0)), 0.0);
        for x in row {
            let error = (scale.dequantize(scale.quantize(x)) - x).abs();
            // The zero point is itself rounded, so the ends of the range may lose a step's half more.
            assert!(error <= scale.scale * 1.001, "{x}: {error} against a step of {}", scale.scale);
        }
    }

    #[test]
    fn a_row_of_zeros_or_of_one_sign_is_defined() {
        assert_eq!(row_scale(&[0.0; 4]), RowScale::default());
        assert_eq!(row_scale(&[1e-38; 4]), RowScale::default());
        let positive = row_scale(&[2.0, 4.0]);
        assert_eq!((positive.zero_point, positive.quantize(4.0)), (0, 127));
        let negative = row_scale(&[-2.0, -4.0]);
        assert_eq!((negative.zero_point, negative.quantize(-4.0)), (127, 0));
    }

    #[test]
    fn weights_use_the_whole_range() {
        let mut out = [0i8; 3];
        let scale = quantize_symmetric(&[0.6, -2.0, 0.5], WEIGHT_MAX, &mut out);
        assert_eq!((out, scale), ([19, -63, 16], 2.0 / 63.0));
        assert_eq!(quantize_symmetric(&[0.0; 3], WEIGHT_MAX, &mut out), 0.0);
        assert_eq!(out, [0; 3]);
    }
}
