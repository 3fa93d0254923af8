//! The best of many scores.

use std::cmp::Ordering;

/// Collects the `k` best of scores that come in order of row. What cannot be among them is turned
/// away by one comparison with [`threshold`](Self::threshold).
#[derive(Clone, Debug)]
pub struct TopK {
    k: usize,
    threshold: f32,
    /// At most twice `k`: it is cut to the `k` best when it is full, so a score costs O(1).
    found: Vec<(u32, f32)>,
}

impl TopK {
    /// An empty collection of at most `k` scores of at least `min_score`.
    pub fn new(k: usize, min_score: f32) -> Self {
        let threshold = if k == 0 { f32::INFINITY } else { min_score.next_down() };
        TopK { k, threshold, found: Vec::new() }
    }

    /// A score that is not above this one is not among the best.
    pub fn threshold(&self) -> f32 {
        self.threshold
    }

    /// Takes the score of `row`, which is greater than all rows before. NaN is passed over.
    #[inline]
    pub fn push(&mut self, row: u32, score: f32) {
        if score > self.threshold {
            self.take(row, score);
        }
    }

    fn take(&mut self, row: u32, score: f32) {
        self.found.push((row, score));
        // Rows to come lose against equal scores, so the k-th best is the threshold from now on.
        if self.found.len() >= self.k.saturating_mul(2).max(32) {
            self.found.select_nth_unstable_by(self.k - 1, by_rank);
            self.found.truncate(self.k);
            self.threshold = self.found[self.k - 1].1;
        }
    }

    /// Rows and scores, best first; equal scores in order of row.
    pub fn into_sorted(mut self) -> Vec<(u32, f32)> {
        self.found.sort_unstable_by(by_rank);
        self.found.truncate(self.k);
        self.found
    }
}

/// Better scores first, equal ones in order of row.
pub(super) fn by_rank(a: &(u32, f32), b: &(u32, f32)) -> Ordering {
    b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal).then(a.0.cmp(&b.0))
}

/// Indices and values of the `k` largest scores, best first; equal scores in order of index. NaN is
/// left out. All of them if there are fewer than `k`.
pub fn top_k(scores: &[f32], k: usize) -> Vec<(usize, f32)> {
    let mut best = TopK::new(k, f32::NEG_INFINITY);
    for (row, &score) in scores.iter().enumerate() {
        best.push(row as u32, score);
    }
    best.into_sorted().into_iter().map(|(row, score)| (row as usize, score)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_first_and_stable_on_ties() {
        let scores = [0.5, f32::NAN, 0.9, 0.5, -1.0, 0.9];
        assert_eq!(top_k(&scores, 3), [(2, 0.9), (5, 0.9), (0, 0.5)]);
        assert_eq!(top_k(&scores, 0), []);
        assert_eq!(top_k(&scores, 10).len(), 5);
        assert_eq!(top_k(&[], 3), []);
        assert_eq!(top_k(&[0.5; 1000], 2), [(0, 0.5), (1, 0.5)]);
    }

    #[test]
    fn agrees_with_sorting() {
        let scores: Vec<f32> = (0..500).map(|i| ((i * 7919) % 101) as f32).collect();
        let mut sorted: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
        sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        for k in [1, 2, 99, 499, 500, usize::MAX] {
            assert_eq!(top_k(&scores, k), sorted[..k.min(500)]);
        }
    }

    #[test]
    fn the_least_score_is_taken_itself() {
        let mut best = TopK::new(5, 0.5);
        for (row, score) in [0.4, 0.5, 0.6, f32::NAN].into_iter().enumerate() {
            best.push(row as u32, score);
        }
        assert_eq!(best.into_sorted(), [(2, 0.6), (1, 0.5)]);
    }
}
