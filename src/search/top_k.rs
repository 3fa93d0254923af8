//! The best of many scores.

use std::cmp::Ordering;

/// Indices and values of the `k` largest scores, best first; equal scores in order of index. A NaN
/// ranks last. All of them if there are fewer than `k`.
pub fn top_k(scores: &[f32], k: usize) -> Vec<(usize, f32)> {
    let rank = |&(a_index, a): &(usize, f32), &(b_index, b): &(usize, f32)| -> Ordering {
        let by_score = match (a.is_nan(), b.is_nan()) {
            (false, false) => b.partial_cmp(&a).expect("neither is NaN"),
            (a_nan, b_nan) => a_nan.cmp(&b_nan),
        };
        by_score.then(a_index.cmp(&b_index))
    };
    let mut ranked: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
    if k < ranked.len() {
        if k == 0 {
            return Vec::new();
        }
        ranked.select_nth_unstable_by(k - 1, rank);
        ranked.truncate(k);
    }
    ranked.sort_unstable_by(rank);
    ranked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_first_and_stable_on_ties() {
        let scores = [0.5, f32::NAN, 0.9, 0.5, -1.0, 0.9];
        assert_eq!(top_k(&scores, 3), [(2, 0.9), (5, 0.9), (0, 0.5)]);
        assert_eq!(top_k(&scores, 0), []);
        let all = top_k(&scores, 10);
        assert_eq!(all.len(), 6);
        assert!(all[5].1.is_nan());
        assert_eq!(top_k(&[], 3), []);
    }

    #[test]
    fn agrees_with_sorting() {
        let scores: Vec<f32> = (0..500).map(|i| ((i * 7919) % 101) as f32).collect();
        let mut sorted: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
        sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        for k in [1, 2, 99, 499, 500] {
            assert_eq!(top_k(&scores, k), sorted[..k]);
        }
    }
}
