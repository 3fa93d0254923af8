//! What loading asks of every weight of a matrix, in SIMD. A page pays for these before its first embedding, in
//! code that V8 has not optimized yet, so they are written for few instructions; `pack` has their
//! definitions.

use std::arch::wasm32::*;

use crate::kernels::lanes::LANES;
use crate::kernels::pack::{self, GROUP, HALF_PANEL};
use crate::quant::WEIGHT_MAX;

/// Vectors of a group of 4 inputs: 4 channels in each.
const QUARTERS: usize = LANES / 4;
/// Groups whose sums fit 16 bits for any `i8`: 2 · 128 · 96 < 2¹⁵.
const GROUPS_IN_16_BITS: usize = 96;
/// 4 and 6 divide it.
const TWELVE: usize = 12;

fn load(bytes: &[i8; 16]) -> v128 {
    // SAFETY: the array has the 16 bytes that are read, and any alignment will do.
    unsafe { v128_load(bytes.as_ptr().cast()) }
}

/// [`pack::channel_sums`].
pub(in crate::kernels) fn channel_sums(data: &[i8], rows: usize, cols: usize) -> Option<Vec<i32>> {
    let mut all = vec![0i32; rows];
    let (mut least, mut most) = (i8x16_splat(0), i8x16_splat(0));
    for (of_panel, panel) in all.chunks_exact_mut(LANES).zip(data.chunks_exact(LANES * cols)) {
        for part in panel.as_chunks::<16>().0.chunks(QUARTERS * GROUPS_IN_16_BITS) {
            let mut sums = [i16x8_splat(0); QUARTERS];
            for group in part.as_chunks::<QUARTERS>().0 {
                for (sums, weights) in sums.iter_mut().zip(group) {
                    let weights = load(weights);
                    least = i8x16_min(least, weights);
                    most = i8x16_max(most, weights);
                    *sums = i16x8_add(*sums, i16x8_extadd_pairwise_i8x16(weights));
                }
            }
            for (of_quarter, sums) in of_panel.as_chunks_mut::<4>().0.iter_mut().zip(sums) {
                let sums = i32x4_extadd_pairwise_i16x8(sums);
                of_quarter[0] += i32x4_extract_lane::<0>(sums);
                of_quarter[1] += i32x4_extract_lane::<1>(sums);
                of_quarter[2] += i32x4_extract_lane::<2>(sums);
                of_quarter[3] += i32x4_extract_lane::<3>(sums);
            }
        }
    }
    let below = i8x16_lt(least, i8x16_splat(-WEIGHT_MAX));
    let above = i8x16_gt(most, i8x16_splat(WEIGHT_MAX));
    (!v128_any_true(v128_or(below, above))).then_some(all)
}

/// [`pack::exact_groups`].
pub(in crate::kernels) fn exact_groups(data: &[i8], rows: usize, cols: usize) -> Vec<u8> {
    if !cols.is_multiple_of(GROUP * TWELVE) {
        return pack::exact_groups(data, rows, cols);
    }
    let mut counts = Vec::with_capacity(rows / HALF_PANEL);
    for panel in data.chunks_exact(LANES * cols).take(rows / LANES) {
        let groups = panel.as_chunks::<16>().0;
        for quarters in [[0, 1], [2, 3]] {
            // Of 4 and of 6 groups.
            let mut largest = [u16x8_splat(0); 2];
            for quarter in quarters {
                for twelve in groups.chunks_exact(QUARTERS * TWELVE) {
                    look_at_twelve(twelve, quarter, &mut largest);
                }
            }
            // Sums of two neighbours; a sum that saturated is beyond this too.
            let [four, six] =
                largest.map(|largest| !v128_any_true(u16x8_gt(largest, u16x8_splat(254))));
            counts.push(if six {
                6
            } else if four {
                4
            } else {
                2
            });
        }
    }
    counts
}

/// The largest sums of two neighbouring inputs over 4 and over 6 of 12 groups, of weights above and of
/// those below zero, for the channels of one quarter.
#[inline(always)]
fn look_at_twelve(twelve: &[[i8; 16]], quarter: usize, largest: &mut [v128; 2]) {
    let zero = i8x16_splat(0);
    let (mut fours, mut sixes) = ([zero; 2], [zero; 2]);
    let take = |sums: &mut [v128; 2], largest: &mut v128| {
        for sums in sums {
            *largest = u16x8_max(*largest, u16x8_extadd_pairwise_u8x16(*sums));
            *sums = zero;
        }
    };
    for pair in 0..TWELVE / 2 {
        let weights = [0, 1].map(|at| load(&twelve[QUARTERS * (2 * pair + at) + quarter]));
        let above = weights.map(|weights| i8x16_max(weights, zero));
        let below = weights.map(|weights| i8x16_max(i8x16_neg(weights), zero));
        for (at, [first, second]) in [above, below].into_iter().enumerate() {
            let sum = u8x16_add_sat(first, second);
            fours[at] = u8x16_add_sat(fours[at], sum);
            sixes[at] = u8x16_add_sat(sixes[at], sum);
        }
        if pair % 2 == 1 {
            take(&mut fours, &mut largest[0]);
        }
        if pair % 3 == 2 {
            take(&mut sixes, &mut largest[1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::kernels::tests::Numbers;

    #[test]
    fn weights_are_seen_as_the_definitions_see_them() {
        let mut numbers = Numbers(7);
        let mut random = move |n: usize| numbers.below(n as u32) as usize;
        let mut found = std::collections::BTreeSet::new();
        for (rows, cols) in [(16, 4), (32, 48), (48, 96), (16, 1536), (32, 400), (16, 3072)] {
            for limit in [8, 20, 24, 30, 40, 63] {
                for spikes in [0, 1, 3] {
                    let mut data: Vec<i8> = (0..rows * cols)
                        .map(|_| (random(2 * limit + 1) as i64 - limit as i64) as i8)
                        .collect();
                    for _ in 0..spikes {
                        data[random(rows * cols)] = [63, -63][random(2)];
                    }
                    let sums = pack::channel_sums(&data, rows, cols);
                    assert!(sums.is_some());
                    assert_eq!(channel_sums(&data, rows, cols), sums, "{rows} × {cols}");
                    let groups = pack::exact_groups(&data, rows, cols);
                    assert_eq!(exact_groups(&data, rows, cols), groups, "{rows} × {cols}, {limit}");
                    found.extend(groups);
                }
            }
            for weight in [64, 127, -64, -127, -128] {
                let mut data = vec![3i8; rows * cols];
                data[random(rows * cols)] = weight;
                assert_eq!(channel_sums(&data, rows, cols), None, "{weight}");
            }
            for weight in [63, -63] {
                let data = vec![weight; rows * cols];
                assert_eq!(channel_sums(&data, rows, cols), pack::channel_sums(&data, rows, cols));
            }
        }
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [2, 4, 6]);
    }
}
