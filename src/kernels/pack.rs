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
    /// [`exact_steps`] of `data`, or nothing where no kernel asks for it.
    pub steps: &'a [u8],
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

/// Channels that share an entry of [`exact_steps`].
pub const STEP_CHANNELS: usize = 8;

/// For every 8 channels, how many groups of 4 inputs, one after the other, can be added as pairs in
/// 16 bits for any activations (0 … 127): 6, 4 or 2. Whatever the weights are, it is 2
/// (4 · 127 · 63 < 2¹⁵); that all sums of 6 groups are exact is seen from the weights themselves: those
/// above zero, and those below, may sum to 258; what is asked for is 254, which sums of bytes that
/// saturate cannot pass. 6 only where `cols` is a multiple of 24.
pub fn exact_steps(data: &[i8], rows: usize, cols: usize) -> Vec<u8> {
    let mut steps = Vec::with_capacity(rows / STEP_CHANNELS);
    for panel in data.chunks_exact(LANES * cols).take(rows / LANES) {
        let mut found = [2; LANES / STEP_CHANNELS];
        for most in [4, 6] {
            if cols.is_multiple_of(GROUP * most) {
                let exact = exact_halves(panel, most);
                for (found, exact) in found.iter_mut().zip(exact) {
                    *found = if exact { most as u8 } else { *found };
                }
            }
        }
        steps.extend(found);
    }
    steps
}

/// Whether `steps` groups add up in 16 bits, for both halves of a panel.
fn exact_halves(panel: &[i8], steps: usize) -> [bool; LANES / STEP_CHANNELS] {
    const BYTES: usize = LANES * GROUP;
    // Sums of two neighbours; a sum that saturated is beyond this too.
    const MOST: u16 = 254;
    let mut largest = [0u16; BYTES / 2];
    for groups in panel.chunks_exact(BYTES * steps) {
        let (mut above, mut below) = ([0u8; BYTES], [0u8; BYTES]);
        for group in groups.chunks_exact(BYTES) {
            for ((above, below), &w) in above.iter_mut().zip(&mut below).zip(group) {
                *above = above.saturating_add(w.max(0) as u8);
                *below = below.saturating_add(w.min(0).unsigned_abs());
            }
        }
        for sums in [above, below] {
            for (largest, pair) in largest.iter_mut().zip(sums.as_chunks::<2>().0) {
                *largest = (*largest).max(u16::from(pair[0]) + u16::from(pair[1]));
            }
        }
    }
    let mut halves = largest.chunks_exact(BYTES / 4);
    std::array::from_fn(|_| halves.next().is_some_and(|half| half.iter().all(|&sum| sum <= MOST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_exact_for_the_worst_activations() {
        let (rows, cols) = (32, 48);
        let mut weights = vec![0i8; rows * cols];
        // 6 groups of one lane hold 12 weights: 21 each is 252, 22 each 264.
        weights[..cols].fill(21);
        weights[8 * cols..9 * cols].fill(22);
        weights[16 * cols..17 * cols].fill(-63);
        // The same sum in one lane only, and the other sign beside it.
        for col in (0..24).step_by(4) {
            weights[24 * cols + col..][..2].copy_from_slice(&[43, -43]);
        }
        assert_eq!(exact_steps(&pack(&weights, rows, cols), rows, cols), [6, 4, 2, 4]);
        // 6 groups do not divide a depth of 32.
        assert_eq!(exact_steps(&vec![1; 16 * 32], 16, 32), [4, 4]);
    }

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
