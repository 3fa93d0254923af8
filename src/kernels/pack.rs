//! The order in which weights lie in the model file and in memory.
//!
//! A matrix of `rows` output channels × `cols` inputs is cut into panels of 16 channels. A panel
//! holds, for each group of 4 neighbouring inputs, 4 bytes of each of its 16 channels:
//! `[rows / 16][cols / 4][16][4]`. One group is 64 bytes: a cache line, one 512-bit, two 256-bit
//! or four 128-bit registers, and the order that every 8-bit dot instruction reads.

use super::lanes::{LANES, padded};
use crate::quant::WEIGHT_MAX;

/// Inputs in one group.
pub const GROUP: usize = 4;

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

/// Channels of half a panel, which share an entry of [`exact_groups`].
pub const HALF_PANEL: usize = LANES / 2;

/// For every 8 channels, how many groups of 4 inputs, one after the other, can be added as pairs in
/// 16 bits for any activations (0 … 127): 6, 4 or 2. Whatever the weights are, it is 2
/// (4 · 127 · 63 < 2¹⁵); that all sums of 6 groups are exact is seen from the weights themselves: those
/// above zero, and those below, may sum to 258; what is asked for is 254, which sums of bytes that
/// saturate cannot pass. 6 only where `cols` is a multiple of 24.
pub fn exact_groups(data: &[i8], rows: usize, cols: usize) -> Vec<u8> {
    let mut groups = Vec::with_capacity(rows / HALF_PANEL);
    for panel in data.chunks_exact(LANES * cols).take(rows / LANES) {
        let mut found = [2; LANES / HALF_PANEL];
        for most in [4, 6] {
            if cols.is_multiple_of(GROUP * most) {
                let exact = exact_halves(panel, most);
                for (found, exact) in found.iter_mut().zip(exact) {
                    *found = if exact { most as u8 } else { *found };
                }
            }
        }
        groups.extend(found);
    }
    groups
}

/// Whether `count` groups add up in 16 bits, for both halves of a panel.
fn exact_halves(panel: &[i8], count: usize) -> [bool; LANES / HALF_PANEL] {
    const BYTES: usize = LANES * GROUP;
    // Sums of two neighbours; a sum that saturated is beyond this too.
    const MOST: u16 = 254;
    let mut largest = [0u16; BYTES / 2];
    for groups in panel.chunks_exact(BYTES * count) {
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
    fn groups_are_exact_for_the_worst_activations() {
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
        assert_eq!(exact_groups(&pack(&weights, rows, cols), rows, cols), [6, 4, 2, 4]);
        // 6 groups do not divide a depth of 32.
        assert_eq!(exact_groups(&vec![1; 16 * 32], 16, 32), [4, 4]);
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
