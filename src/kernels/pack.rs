//! The order in which weights lie in the model file and in memory.
//!
//! A matrix of `rows` output channels × `cols` inputs is cut into panels of 16 channels. A panel
//! holds, for each group of 4 neighbouring inputs, 4 bytes of each of its 16 channels:
//! `[rows / 16][cols / 4][16][4]`. One group is 64 bytes: a cache line, one 512-bit, two 256-bit
//! or four 128-bit registers, and the order that every 8-bit dot instruction reads.

pub(crate) use super::LANES;
use crate::quant::WEIGHT_MAX;

/// Inputs in one group.
pub const GROUP: usize = 4;

/// `n` rounded up to a multiple of [`LANES`].
pub const fn padded(n: usize) -> usize {
    n.div_ceil(LANES) * LANES
}

/// A packed weight matrix with what turns its integer sums into floats.
#[derive(Clone, Copy)]
pub struct PackedMatrix<'a> {
    /// `rows · cols` bytes in packed order, each −63 … 63.
    pub data: &'a [i8],
    /// Output channels, padded.
    pub rows: usize,
    /// Inputs, padded.
    pub cols: usize,
    /// Per-channel scale.
    pub scales: &'a [f32],
    /// Per-channel bias.
    pub bias: &'a [f32],
    /// Per-channel sum of `data`, which corrects the activations' zero point.
    pub sums: &'a [i32],
}

/// Where weight `[row][col]` of a matrix with `cols` padded inputs lies.
#[inline(always)]
pub fn offset(row: usize, col: usize, cols: usize) -> usize {
    let panel = row / LANES * cols * LANES;
    panel + (col / GROUP * LANES + row % LANES) * GROUP + col % GROUP
}

/// Packs `rows × cols` weights in row-major order (neither needs to be padded).
pub fn pack(weights: &[i8], rows: usize, cols: usize) -> Vec<i8> {
    let padded_cols = padded(cols);
    let mut packed = vec![0; padded(rows) * padded_cols];
    for row in 0..rows {
        for col in 0..cols {
            packed[offset(row, col, padded_cols)] = weights[row * cols + col];
        }
    }
    packed
}

/// Per-channel sums of a packed matrix, or `None` if a weight is outside ±63.
pub fn channel_sums(data: &[i8], rows: usize, cols: usize) -> Option<Vec<i32>> {
    let mut sums = vec![0i32; rows];
    let mut outside = false;
    for (sums, panel) in sums.chunks_exact_mut(LANES).zip(data.chunks_exact(LANES * cols)) {
        for group in panel.chunks_exact(LANES * GROUP) {
            for (sum, four) in sums.iter_mut().zip(group.chunks_exact(GROUP)) {
                *sum += four.iter().map(|&w| w as i32).sum::<i32>();
            }
        }
        for &w in panel {
            outside |= !(-WEIGHT_MAX..=WEIGHT_MAX).contains(&w);
        }
    }
    (!outside).then_some(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_is_a_bijection_that_pads_with_zeros() {
        let (rows, cols) = (21, 18);
        let weights: Vec<i8> = (0..rows * cols).map(|i| (i % 63 + 1) as i8).collect();
        let packed = pack(&weights, rows, cols);
        assert_eq!(packed.len(), 32 * 32);
        assert_eq!(packed.iter().filter(|&&w| w != 0).count(), rows * cols);
        for row in 0..rows {
            for col in 0..cols {
                assert_eq!(packed[offset(row, col, 32)], weights[row * cols + col]);
            }
        }
        let sums = channel_sums(&packed, 32, 32).unwrap();
        let expected: i32 = weights[20 * cols..].iter().map(|&w| w as i32).sum();
        assert_eq!((sums[20], sums[21]), (expected, 0));
    }

    #[test]
    fn weights_beyond_63_are_noticed() {
        for (w, ok) in [(63, true), (-63, true), (64, false), (-64, false), (-128, false)] {
            let mut data = vec![0i8; 256];
            data[77] = w;
            assert_eq!(channel_sums(&data, 16, 16).is_some(), ok, "{w}");
        }
    }
}
