//! From token states to one vector per sentence.

use rayon::prelude::*;

use super::vector::simd;
use crate::config::Pooling;

/// Pools `states` (`tokens × hidden`) into `out` (`sentences × hidden`).
pub fn forward(
    pooling: Pooling,
    offsets: &[usize],
    hidden: usize,
    states: &[f32],
    out: &mut [f32],
) {
    assert_eq!(out.len(), (offsets.len() - 1) * hidden);
    out.par_chunks_mut(hidden).zip(offsets.par_windows(2)).with_min_len(8).for_each(
        |(out, pair)| {
            let rows = &states[pair[0] * hidden..pair[1] * hidden];
            match pooling {
                Pooling::Cls => out.copy_from_slice(&rows[..hidden]),
                Pooling::Mean => simd(|| {
                    out.fill(0.0);
                    for row in rows.chunks_exact(hidden) {
                        out.iter_mut().zip(row).for_each(|(out, &x)| *out += x);
                    }
                    let inverse = 1.0 / (pair[1] - pair[0]) as f32;
                    out.iter_mut().for_each(|out| *out *= inverse);
                }),
            }
        },
    );
}

/// Adds the gradient of the pooled vectors to that of the token states.
pub fn backward(
    pooling: Pooling,
    offsets: &[usize],
    hidden: usize,
    dpooled: &[f32],
    dstates: &mut [f32],
) {
    for (pair, dpooled) in offsets.windows(2).zip(dpooled.chunks_exact(hidden)) {
        let rows = &mut dstates[pair[0] * hidden..pair[1] * hidden];
        let (rows, share) = match pooling {
            Pooling::Cls => (&mut rows[..hidden], 1.0),
            Pooling::Mean => (rows, 1.0 / (pair[1] - pair[0]) as f32),
        };
        simd(|| {
            for row in rows.chunks_exact_mut(hidden) {
                row.iter_mut().zip(dpooled).for_each(|(x, &d)| *x += d * share);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_gradient, noise};
    use super::*;

    #[test]
    fn gradients_agree_with_differences() {
        let offsets = [0, 1, 4, 6];
        for pooling in [Pooling::Mean, Pooling::Cls] {
            let (states, target) = (noise(18, 1), noise(9, 2));
            let mut gradient = vec![0.0; 18];
            backward(pooling, &offsets, 3, &target, &mut gradient);
            check_gradient("states", &states, &gradient, 1e-3, |states| {
                let mut out = vec![0.0; 9];
                forward(pooling, &offsets, 3, states, &mut out);
                out.iter().zip(&target).map(|(&y, &t)| y as f64 * t as f64).sum()
            });
        }
    }
}
