//! The best of many scores.

use std::collections::BinaryHeap;

/// Collects the `k` best scores. What cannot be among them is turned away by one comparison with
/// [`threshold`](Self::threshold). Equal scores are ranked by row, in whatever order they come.
#[derive(Clone, Debug)]
pub struct TopK {
    k: usize,
    threshold: f32,
    /// The worst on top.
    found: BinaryHeap<u64>,
}

/// Orders as ranks do: smaller is better. The score's bits, reversed and made to order as integers, then
/// the row.
fn key(row: u32, score: f32) -> u64 {
    // −0 and 0 are one score.
    let bits = (score + 0.0).to_bits();
    let ordered = if bits >> 31 == 1 { bits } else { !bits & 0x7fff_ffff };
    u64::from(ordered) << 32 | u64::from(row)
}

/// What [`key`] was made of.
fn unkey(key: u64) -> (u32, f32) {
    let ordered = (key >> 32) as u32;
    let bits = if ordered >> 31 == 1 { ordered } else { !ordered & 0x7fff_ffff };
    (key as u32, f32::from_bits(bits))
}

impl TopK {
    /// An empty collection of at most `k` scores of at least `min_score`.
    pub fn new(k: usize, min_score: f32) -> Self {
        let threshold = if k == 0 { f32::INFINITY } else { min_score };
        TopK { k, threshold, found: BinaryHeap::new() }
    }

    /// A score below this one is not among the best.
    #[inline]
    pub fn threshold(&self) -> f32 {
        self.threshold
    }

    /// Takes the score of `row`. NaN is passed over.
    #[inline]
    pub fn push(&mut self, row: u32, score: f32) {
        if score >= self.threshold && self.k > 0 {
            self.take(key(row, score));
        }
    }

    fn take(&mut self, key: u64) {
        if self.found.len() < self.k {
            self.found.push(key);
        } else if let Some(mut worst) = self.found.peek_mut() {
            if key >= *worst {
                return;
            }
            *worst = key;
        }
        if self.found.len() == self.k
            && let Some(&worst) = self.found.peek()
        {
            self.threshold = unkey(worst).1;
        }
    }

    /// Rows and scores, best first; equal scores in order of row.
    pub fn into_sorted(self) -> Vec<(u32, f32)> {
        self.found.into_sorted_vec().into_iter().map(unkey).collect()
    }
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

    #[test]
    fn keys_order_as_ranks_do() {
        let ranked = [
            (0, f32::INFINITY),
            (7, 1.5),
            (8, 1.5),
            (0, f32::MIN_POSITIVE),
            (1, 0.0),
            (2, 0.0),
            (0, -f32::MIN_POSITIVE),
            (0, -1.0),
            (0, f32::NEG_INFINITY),
        ];
        let keys: Vec<u64> = ranked.iter().map(|&(row, score)| key(row, score)).collect();
        assert!(keys.is_sorted());
        assert_eq!(keys.into_iter().map(unkey).collect::<Vec<_>>(), ranked);
        assert_eq!(key(3, -0.0), key(3, 0.0));
    }
}
